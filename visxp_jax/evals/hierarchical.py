"""How well trees fit a taxonomy: labels that are paths, such as family/kind.

Levels are counted from the coarsest, 1, to the label itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from visxp_jax.evals.protocols import cluster_scores
from visxp_jax.hierarchy import cut, dendrogram_purity
from visxp_jax.hierarchy.tree import check_merges, spans


class LevelScores(NamedTuple):
    """How well a tree fits the classes of one level."""

    purity: float  # dendrogram purity
    cut_nmi: float  # of the tree cut into as many clusters as there are classes
    cut_purity: float  # of the same
    retrieval: float  # mean average precision of clips by distance in the tree


def taxonomy(names: Sequence[str]) -> np.ndarray:
    """Classes of labels at every level, int [levels, labels]; the last are the labels.

    Args:
        names: Paths with '/' between parts. One that has no part at some level stays
            in a class of its own there.
    """
    parts = [name.split("/") for name in names]
    levels = max(map(len, parts), default=1)
    rows = []
    for level in range(1, levels + 1):
        above = ["/".join(p[:level]) for p in parts]
        rows.append(np.unique(above, return_inverse=True)[1])
    rows[-1] = np.arange(len(names))
    return np.stack(rows)


def level_scores(merges: np.ndarray, classes: np.ndarray) -> LevelScores:
    """A tree beside the classes of its leaves.

    Args:
        merges: int [n - 1, 2], in the order of heights.
        classes: int [n].
    """
    flat = cut(merges, len(np.unique(classes)))
    _, at = np.unique(classes, return_inverse=True)
    return LevelScores(
        purity=dendrogram_purity(merges, classes),
        cut_nmi=float(normalized_mutual_info_score(at, flat)),
        cut_purity=cluster_scores(flat, at).purity,
        retrieval=tree_retrieval(merges, classes),
    )


def tree_retrieval(merges: np.ndarray, classes: np.ndarray) -> float:
    """Mean average precision of leaves of the same class, nearest in the tree first.

    Leaves that a query meets in the same node are at one distance: precision counts
    from where all of them are in.

    Args:
        merges: int [n - 1, 2].
        classes: int [n].

    Returns:
        The mean over leaves that are not the only one of their class; NaN if all are.
    """
    merges = check_merges(merges)
    n = len(merges) + 1
    _, of_leaf = np.unique(classes, return_inverse=True)
    _, start, stop = spans(merges)
    parent = np.arange(2 * n - 1)
    parent[merges] = n + np.arange(n - 1)[:, None]
    place = np.sort(of_leaf * n + start[:n])

    def others(nodes: np.ndarray) -> np.ndarray:
        """Of the same class as each leaf below each node, itself left out."""
        first, last = (
            np.searchsorted(place, of_leaf * n + at[nodes]) for at in (start, stop)
        )
        return last - first - 1

    at = np.arange(n)
    precision, before, relevant = (
        np.zeros(n),
        np.zeros(n),
        others(np.full(n, 2 * n - 2)),
    )
    while (at != 2 * n - 2).any():
        at = parent[at]
        found = others(at)
        precision += (found - before) * found / (stop - start - 1)[at]
        before = found
    known = relevant > 0
    if not known.any():
        return float("nan")
    return float(np.mean(precision[known] / relevant[known]))


def lca_error(predicted: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """Mean number of levels up to where prediction and label meet: 0 if all are right.

    Args:
        predicted: int [n], labels.
        labels: int [n], the right ones.
        classes: int [levels, labels], from `taxonomy`; not to meet at all counts as
            many as there are levels.
    """
    return float(np.mean(np.sum(classes[:, predicted] != classes[:, labels], axis=0)))
