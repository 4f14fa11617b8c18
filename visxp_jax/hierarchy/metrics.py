"""How good a tree is: Dasgupta's cost by similarities, dendrogram purity by labels."""

import numpy as np

from visxp_jax.hierarchy.tree import check_merges, lowest_common_ancestors, spans

COLUMNS = 64  # of the vectors whose running sums are held at once


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float64 [n, d].

    Raises:
        ValueError: `x` is no matrix of finite numbers, or a row is 0.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"X must be a matrix [n, d] with rows, got shape {x.shape}.")
    most = np.max(np.abs(x), axis=1, keepdims=True, initial=0.0)
    bad = np.flatnonzero(~(np.isfinite(most) & (most > 0))[:, 0])
    if bad.size:
        raise ValueError(
            "rows of X must be finite and not 0, as their direction is what counts; "
            f"{bad.size} are not, the first is row {bad[0]}."
        )
    x = x / most  # whose squares neither overflow nor vanish
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def dasgupta_cost(merges: np.ndarray, x: np.ndarray) -> float:
    """Sum over pairs of rows of similarity times leaves below their lowest ancestor.

    Similarity is (1 + cosine) / 2, of which the sum over the pairs that a node brings
    together is (|L| |R| + <sum of L, sum of R>) / 2: exact in O(n d), without n^2
    similarities. HypHC's authors report twice this.

    Args:
        merges: int [n - 1, 2].
        x: [n, d].

    Raises:
        ValueError: see `unit_rows`; or the tree has another number of leaves.

    Source: Dasgupta, A cost function for similarity-based hierarchical clustering,
    2016.
    """
    sizes, between = _met(merges, *_rows(merges, x))
    return float(np.sum(np.sum(sizes, axis=1) * between))


def heights(merges: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Mean dissimilarity (1 - cosine) / 2 of the rows each merge brings together.

    Where a tree's own heights are not known, such as after `refine`, its rows can be
    sorted by these, and flat clusters be cut.

    Args:
        merges: int [n - 1, 2].
        x: [n, d].

    Returns:
        float64 [n - 1].
    """
    return heights_of(merges, *_rows(merges, x))


def heights_of(merges: np.ndarray, sizes: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The same where leaves are groups of rows.

    Args:
        merges: int [n - 1, 2].
        sizes: [n], of the groups.
        sums: [n, d], of their unit rows.
    """
    sizes, between = _met(merges, sizes, sums)
    # Rounding may be below 0 where rows coincide, and scipy takes no such heights.
    return np.clip(1 - between / np.prod(sizes, axis=1), 0.0, 1.0)


def _rows(merges: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = unit_rows(x)
    if len(x) != len(merges) + 1:
        raise ValueError(
            f"X must have the {len(merges) + 1} rows of the tree, got {len(x)}."
        )
    return np.ones(len(x)), x


def _met(
    merges: np.ndarray, sizes: np.ndarray, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both sides [n - 1, 2], and summed similarity between them [n - 1]."""
    merges = check_merges(merges)
    order, start, stop = spans(merges)

    def below(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums over the leaves of both children."""
        upto = np.concatenate([np.zeros_like(column[:1]), np.cumsum(column, axis=0)])
        left, right = (upto[stop[node]] - upto[start[node]] for node in merges.T)
        return left, right

    size = np.stack(below(sizes[order]), axis=1)
    shared = np.zeros(len(merges))
    for first in range(0, sums.shape[1], COLUMNS):
        left, right = below(sums[order, first : first + COLUMNS])
        shared += np.einsum("id,id->i", left, right)
    return size, (np.prod(size, axis=1) + shared) / 2


def dendrogram_purity(merges: np.ndarray, labels: np.ndarray) -> float:
    """Mean over pairs of one class of its share of the leaves below their ancestor.

    Exact, in O(n log n) for any number of classes: a class meets itself in no more
    nodes than it has leaves, the ancestors of those that are next to each other.

    Args:
        merges: int [n - 1, 2].
        labels: [n], of any type.

    Returns:
        In (0, 1]; NaN if no class has two leaves.

    Source: Heller and Ghahramani, Bayesian hierarchical clustering, 2005.
    """
    merges = check_merges(merges)
    n = len(merges) + 1
    _, of_leaf = np.unique(np.asarray(labels), return_inverse=True)
    if of_leaf.shape != (n,):
        raise ValueError(
            f"labels must be of the {n} leaves of the tree, got {len(of_leaf)}."
        )
    _, start, stop = spans(merges)
    by_class = np.lexsort((start[:n], of_leaf))
    place = of_leaf[by_class] * n + start[by_class]
    beside = of_leaf[by_class][:-1] == of_leaf[by_class][1:]
    meets = lowest_common_ancestors(merges, by_class[:-1][beside], by_class[1:][beside])
    label, node = np.unique(np.stack([of_leaf[by_class][:-1][beside], meets]), axis=1)

    def count(nodes: np.ndarray) -> np.ndarray:
        """Leaves of the class below each."""
        upto = (np.searchsorted(place, label * n + at[nodes]) for at in (start, stop))
        first, last = upto
        return (last - first).astype(np.float64)

    left, right = merges[node - n].T
    pairs = count(left) * count(right)
    share = count(node) / (stop - start)[node]
    return float(np.sum(pairs * share) / np.sum(pairs)) if pairs.size else float("nan")
