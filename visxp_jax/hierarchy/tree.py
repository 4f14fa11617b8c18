"""Binary trees as merges, int [n - 1, 2], in the order of scipy's linkage matrices.

Leaves are 0 to n - 1; row i makes node n + i of two earlier nodes. The last is the
root. Everything here takes time of O(n), but for sorting, and no recursion.
"""

from typing import NamedTuple

import numpy as np


def random_tree(n: int, rng: np.random.Generator) -> np.ndarray:
    """Merges int64 [n - 1, 2] of any two nodes, to compare with."""
    there, merges = list(range(n)), []
    for made in range(n, 2 * n - 1):
        pair = []
        for _ in range(2):
            at = rng.integers(len(there))
            there[at], there[-1] = there[-1], there[at]
            pair.append(there.pop())
        merges.append(pair)
        there.append(made)
    return np.array(merges, np.int64).reshape(-1, 2)


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


def check_heights(merges: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """The heights as float64.

    Raises:
        ValueError: they are not finite, or not one for each merge.
    """
    heights = np.asarray(heights, np.float64)
    if heights.shape != (len(merges),) or not np.isfinite(heights).all():
        raise ValueError(
            f"heights must be {len(merges)} finite numbers, one for each merge, got "
            f"shape {heights.shape} and {np.sum(~np.isfinite(heights))} not finite."
        )
    return heights


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


def lowest_common_ancestors(
    merges: np.ndarray, i: np.ndarray, j: np.ndarray
) -> np.ndarray:
    """The first node that two leaves are both below; a leaf and itself: that leaf.

    O(n log n) once and O(1) for each pair: between two leaves in the order of `spans`
    lie gaps, each closed by one merge, and the last of these is the ancestor.

    Args:
        merges: int [n - 1, 2].
        i: int [...], leaves.
        j: int [...], leaves.

    Returns:
        int64 [...], nodes.

    Raises:
        ValueError: there is no such leaf.
    """
    _, start, stop = spans(merges)
    n = len(merges) + 1
    if any(np.size(x) and not 0 <= np.min(x) <= np.max(x) < n for x in (i, j)):
        raise ValueError(f"i and j must be leaves, from 0 to {n - 1}.")
    last = np.empty(n - 1, np.int64)
    last[stop[np.asarray(merges)[:, 0]] - 1] = np.arange(n, 2 * n - 1)
    table = [last]  # over runs of 1, 2, 4, ... gaps
    while len(table[-1]) > 2 ** (len(table) - 1):
        run = 2 ** (len(table) - 1)
        table.append(np.maximum(table[-1][:-run], table[-1][run:]))
    one, other = np.broadcast_arrays(start[i], start[j])
    low, high = np.minimum(one, other), np.maximum(one, other)
    level = np.frexp(np.maximum(high - low, 1))[1] - 1
    found = np.broadcast_to(np.asarray(i), low.shape).astype(np.int64)
    for number, runs in enumerate(table):
        here = (level == number) & (low < high)
        found[here] = np.maximum(runs[low[here]], runs[high[here] - 2**number])
    return found


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
        ValueError: see `check_merges` and `check_heights`.
    """
    merges = check_merges(merges)
    heights = check_heights(merges, heights)
    n = len(merges) + 1
    high = [-np.inf] * n
    for (left, right), own in zip(merges.tolist(), heights.tolist(), strict=True):
        high.append(max(own, high[left], high[right]))
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
    return uppermost(merges, clusters).labels


class Uppermost(NamedTuple):
    """The top of a tree, in which the highest nodes below it are leaves.

    Attributes:
        labels: int64 [n], which of them each leaf of the whole tree is below.
        nodes: int64 [clusters], which nodes of the whole tree they are.
        merges: int64 [clusters - 1, 2], of them.
    """

    labels: np.ndarray
    nodes: np.ndarray
    merges: np.ndarray


def uppermost(merges: np.ndarray, clusters: int) -> Uppermost:
    """The last merges of a tree; arguments and errors are those of `cut`."""
    merges = check_merges(merges)
    n = len(merges) + 1
    if not 1 <= clusters <= n or clusters != int(clusters):
        raise ValueError(
            f"clusters must be a whole number from 1 to the {n} rows, got {clusters}."
        )
    clusters = int(clusters)
    order, start, stop = spans(merges)
    kept = n - clusters  # merges
    nodes = np.setdiff1d(np.arange(n + kept), merges[:kept])
    first = np.minimum.reduceat(order, np.sort(start[nodes]))[
        np.argsort(np.argsort(start[nodes]))
    ]
    nodes = nodes[np.argsort(first)]
    labels = np.empty(n, np.int64)
    for number, node in enumerate(nodes):
        labels[order[start[node] : stop[node]]] = number
    name = np.full(2 * n - 1, -1)
    name[nodes] = np.arange(clusters)
    name[n + kept :] = clusters + np.arange(clusters - 1)
    return Uppermost(labels, nodes, name[merges[kept:]])


def with_top(merges: np.ndarray, nodes: np.ndarray, top: np.ndarray) -> np.ndarray:
    """A tree whose last merges are others.

    Args:
        merges: int [n - 1, 2].
        nodes: int [k], see `Uppermost`.
        top: int [k - 1, 2], the new merges of these.
    """
    n = len(merges) + 1
    made = n + np.arange(n - len(nodes), n - 1)
    return np.concatenate(
        [merges[: n - len(nodes)], np.concatenate([nodes, made])[top]]
    )


def grafted(
    above: np.ndarray, parts: list[np.ndarray], trees: list[np.ndarray]
) -> np.ndarray:
    """A tree in which each leaf of one has become a tree of its own.

    Args:
        above: int [k - 1, 2], merges of parts.
        parts: Of each part the leaves in it, which together are 0 to n - 1.
        trees: Of each part the merges over its leaves, by their places in the part.

    Returns:
        int64 [n - 1, 2].
    """
    made = sum(map(len, parts))
    rows, roots = [], []
    for part, tree in zip(parts, trees, strict=True):
        name = np.concatenate([part, made + np.arange(len(tree))])
        rows.append(name[tree])
        roots.append(name[-1])
        made += len(tree)
    name = np.concatenate([roots, made + np.arange(len(above))])
    return np.concatenate([*rows, name[above]]).astype(np.int64)
