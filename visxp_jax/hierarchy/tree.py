"""Binary trees as merges, int [n - 1, 2], in the order of scipy's linkage matrices.

Leaves are 0 to n - 1; row i makes node n + i of two earlier nodes. The last is the
root. Everything here takes time of O(n), but for sorting, and no recursion.
"""

from typing import NamedTuple

import numpy as np


class Spans(NamedTuple):
    """Leaves in an order in which those of every node stand together.

    Attributes:
        order: int64 [n], leaves.
        start: int64 [2n - 1], where those of a node begin in it.
        stop: int64 [2n - 1], where they end.
    """

    order: np.ndarray
    start: np.ndarray
    stop: np.ndarray


def check_merges(merges: np.ndarray) -> np.ndarray:
    """The merges as int64.

    Raises:
        ValueError: they are no binary tree.
    """
    merges = np.asarray(merges)
    if merges.ndim != 2 or merges.shape[1] != 2 or merges.dtype.kind not in "iu":
        raise ValueError(
            f"merges must be integers [n - 1, 2], got {merges.dtype} {merges.shape}."
        )
    merges = merges.astype(np.int64)
    made = len(merges) + 1 + np.arange(len(merges))
    if not np.array_equal(np.sort(merges, axis=None), np.arange(2 * len(merges))):
        raise ValueError("merges must name every node but the root exactly once.")
    if (merges >= made[:, None]).any():
        raise ValueError("merges must be of nodes that an earlier row has made.")
    return merges


def spans(merges: np.ndarray) -> Spans:
    """Where the leaves of every node stand.

    Args:
        merges: int [n - 1, 2].
    """
    merges = check_merges(merges)
    n = len(merges) + 1
    pairs = merges.tolist()
    size = [1] * n
    for left, right in pairs:
        size.append(size[left] + size[right])
    start = [0] * (2 * n - 1)
    for i in range(n - 2, -1, -1):
        left, right = pairs[i]
        start[left] = start[n + i]
        start[right] = start[n + i] + size[left]
    begin = np.array(start)
    order = np.empty(n, np.int64)
    order[begin[:n]] = np.arange(n)
    return Spans(order, begin, begin + np.array(size))


def sorted_by_height(
    merges: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same tree with its rows in the order of heights, as scipy wants it.

    Heights that are below those of the node's children are raised to these.

    Args:
        merges: int [n - 1, 2].
        heights: [n - 1], of the nodes made.

    Returns:
        (int64 [n - 1, 2], float64 [n - 1] that never fall).

    Raises:
        ValueError: they are not finite.
    """
    merges = check_merges(merges)
    if not np.isfinite(heights).all():
        raise ValueError("heights must be finite.")
    n = len(merges) + 1
    high = [-np.inf] * n
    for (left, right), own in zip(merges.tolist(), heights, strict=True):
        high.append(max(float(own), high[left], high[right]))
    raised = np.array(high[n:])
    # Stable: of equal heights, children stay before their parents.
    rows = np.argsort(raised, kind="stable")
    name = np.arange(2 * n - 1)
    name[n + rows] = n + np.arange(n - 1)
    return np.sort(name[merges[rows]], axis=1), raised[rows]


def linkage_matrix(merges: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """What `scipy.cluster.hierarchy` calls Z: float64 [n - 1, 4].

    Args:
        merges: int [n - 1, 2].
        heights: [n - 1], see `sorted_by_height`.
    """
    merges, heights = sorted_by_height(merges, heights)
    _, start, stop = spans(merges)
    sizes = (stop - start)[len(merges) + 1 :]
    return np.column_stack([merges, heights, sizes]).astype(np.float64)


def cut(merges: np.ndarray, clusters: int) -> np.ndarray:
    """Flat clusters: what is left of the tree without its last merges.

    Args:
        merges: int [n - 1, 2], in the order of heights.
        clusters: Number of clusters, from 1 to n.

    Returns:
        int64 [n], in [0, clusters), numbered by their first leaf.

    Raises:
        ValueError: there cannot be so many clusters.
    """
    merges = check_merges(merges)
    n = len(merges) + 1
    if not 1 <= clusters <= n:
        raise ValueError(f"clusters must be from 1 to the {n} rows, got {clusters}.")
    order, start, stop = spans(merges)
    kept = n - clusters  # merges
    tops = np.setdiff1d(np.arange(n + kept), merges[:kept])
    label = np.empty(n, np.int64)
    for number, node in enumerate(tops[np.argsort(start[tops])]):
        label[order[start[node] : stop[node]]] = number
    _, first = np.unique(label, return_index=True)
    rank = np.argsort(np.argsort(first))
    return rank[label]
