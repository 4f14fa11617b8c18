"""How good a tree is: Dasgupta's cost by similarities, dendrogram purity by labels."""

import numpy as np

from visxp_jax.hierarchy.tree import check_merges, spans

COLUMNS = 64  # of the vectors whose running sums are held at once


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float64 [n, d].

    Raises:
        ValueError: `x` is no matrix of finite numbers, or a row is 0.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"X must be a matrix [n, d] with rows, got shape {x.shape}.")
    length = np.linalg.norm(x, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0))[:, 0])
    if bad.size:
        raise ValueError(
            "rows of X must be finite and not 0, as their direction is what counts; "
            f"{bad.size} are not, the first is row {bad[0]}."
        )
    return x / length


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
    sizes, between = _met(merges, x)
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
    sizes, between = _met(merges, x)
    return 1 - between / np.prod(sizes, axis=1)


def _met(merges: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaves of both sides [n - 1, 2], and summed similarity between them [n - 1]."""
    merges, x = check_merges(merges), unit_rows(x)
    n = len(merges) + 1
    if len(x) != n:
        raise ValueError(f"X must have the {n} rows of the tree, got {len(x)}.")
    order, start, stop = spans(merges)
    shared = np.zeros(n - 1)
    for first in range(0, x.shape[1], COLUMNS):
        part = x[order, first : first + COLUMNS]
        upto = np.concatenate([np.zeros((1, part.shape[1])), np.cumsum(part, axis=0)])
        left, right = (upto[stop[node]] - upto[start[node]] for node in merges.T)
        shared += np.einsum("id,id->i", left, right)
    sizes = (stop - start)[merges].astype(np.float64)
    return sizes, (np.prod(sizes, axis=1) + shared) / 2


def dendrogram_purity(merges: np.ndarray, labels: np.ndarray) -> float:
    """Mean over pairs of one class of its share of the leaves below their ancestor.

    Args:
        merges: int [n - 1, 2].
        labels: [n], of any type.

    Returns:
        In (0, 1]; NaN if no class has two leaves.

    Source: Heller and Ghahramani, Bayesian hierarchical clustering, 2005. Exact, in
    time of n times the number of classes.
    """
    merges = check_merges(merges)
    n = len(merges) + 1
    _, at = np.unique(np.asarray(labels), return_inverse=True)
    if len(at) != n:
        raise ValueError(
            f"labels must be of the {n} leaves of the tree, got {len(at)}."
        )
    order, start, stop = spans(merges)
    size = (stop - start).astype(np.float64)
    total = pairs = 0.0
    for label in range(at.max() + 1):
        upto = np.concatenate([[0], np.cumsum(at[order] == label)])
        count = (upto[stop] - upto[start]).astype(np.float64)
        met = count[merges[:, 0]] * count[merges[:, 1]]
        total += np.sum(met * count[n:] / size[n:])
        pairs += np.sum(met)
    return float(total / pairs) if pairs else float("nan")
