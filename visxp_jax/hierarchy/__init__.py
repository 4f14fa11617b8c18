"""Hierarchies over the rows of any feature matrix."""

from visxp_jax.hierarchy.construction import build
from visxp_jax.hierarchy.estimator import HyperbolicHierarchy
from visxp_jax.hierarchy.export import newick, tree_json
from visxp_jax.hierarchy.learning import learn
from visxp_jax.hierarchy.metrics import dasgupta_cost, dendrogram_purity, heights
from visxp_jax.hierarchy.refinement import refine
from visxp_jax.hierarchy.tree import cut, linkage_matrix, lowest_common_ancestors

__all__ = [
    "HyperbolicHierarchy",
    "build",
    "cut",
    "dasgupta_cost",
    "dendrogram_purity",
    "heights",
    "learn",
    "linkage_matrix",
    "lowest_common_ancestors",
    "newick",
    "refine",
    "tree_json",
]
