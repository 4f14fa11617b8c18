"""Hierarchies over the rows of any feature matrix."""

from visxp_jax.hierarchy.metrics import dasgupta_cost, dendrogram_purity, heights
from visxp_jax.hierarchy.refine import refine
from visxp_jax.hierarchy.tree import cut, linkage_matrix

__all__ = [
    "cut",
    "dasgupta_cost",
    "dendrogram_purity",
    "heights",
    "linkage_matrix",
    "refine",
]
