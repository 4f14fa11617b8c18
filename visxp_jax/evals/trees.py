"""Trees over the clips of a split, and how well they fit labels that are paths."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import linkage
from sklearn.preprocessing import normalize

from visxp_jax.evals import judge
from visxp_jax.evals.hierarchical import level_scores, taxonomy
from visxp_jax.hierarchy import build, dendrogram_purity
from visxp_jax.hierarchy.tree import grafted, random_tree
from visxp_jax.methods.base import Clusters
from visxp_jax.types import Features, PyTree

MAX_CLIPS = 2_000


def thinned(features: Features) -> Features:
    """At most `MAX_CLIPS` clips, evenly spread."""
    n = len(features.clip_id)
    at = np.linspace(0, n - 1, min(n, MAX_CLIPS)).astype(int)
    return Features(*(column[at] for column in features))


def sight_and_sound(features: Features) -> dict[str, np.ndarray]:
    """What trees are made of, by name: rows of both modalities together, and of each.

    Rows that are 0 have no direction of their own, and get that of the mean.
    """
    video = np.asarray(normalize(features.video))
    audio = np.asarray(normalize(features.audio))
    both = np.concatenate([video, audio], axis=1)
    vectors = {"sight and sound": both, "sight": video, "sound": audio}
    return {name: directed(x) for name, x in vectors.items()}


def directed(x: np.ndarray) -> np.ndarray:
    """Rows [n, d], none of them 0."""
    empty = np.all(x == 0, axis=1, keepdims=True)
    return np.where(empty, x.mean(axis=0) + 1e-6, x)


def learnt(
    clusters: Clusters | None, params: PyTree, features: Features
) -> np.ndarray | None:
    """Merges of the method's own hierarchy, each leaf of it with a tree of its clips.

    By the directions of its leaves: single linkage, HypHC's decoding, makes chains.
    None for methods that have no hierarchy.
    """
    if clusters is None or clusters.leaves is None:
        return None
    label = judge.cluster_probs(clusters, params, features)[:, 0].argmax(axis=1)
    used, place = np.unique(label, return_inverse=True)
    parts = [np.flatnonzero(place == i) for i in range(len(used))]
    fused = directed(features.fused)
    above = build(np.asarray(clusters.leaves(params))[used])
    return grafted(above, parts, [build(fused[part]) for part in parts])


def scores(
    merges: np.ndarray, labels: np.ndarray, names: Sequence[str], prefix: str
) -> judge.Scores:
    """`LevelScores` at every level, by names that end in it.

    Args:
        merges: int [n - 1, 2], in the order of heights.
        labels: int [n], >= 0.
        names: Of labels.
        prefix: Of the names.
    """
    return {
        f"{prefix}_{name}_{level}": None if math.isnan(value) else value
        for level, classes in enumerate(taxonomy(names), start=1)
        for name, value in level_scores(merges, classes[labels])._asdict().items()
    }


def average_linkage(x: np.ndarray) -> np.ndarray:
    """Merges of scipy's, by cosine."""
    return linkage(x, "average", metric="cosine")[:, :2].astype(np.int64)


def by_chance(labels: np.ndarray, names: Sequence[str]) -> judge.Scores:
    """Dendrogram purity of random trees, mean of three."""
    rng = np.random.default_rng(0)
    trees = [random_tree(len(labels), rng) for _ in range(3)]
    found = {}
    for level, classes in enumerate(taxonomy(names), start=1):
        mean = np.mean([dendrogram_purity(tree, classes[labels]) for tree in trees])
        found[f"chance_tree_purity_{level}"] = None if np.isnan(mean) else float(mean)
    return found
