"""A tree of low Dasgupta cost over any number of rows.

Few rows: average linkage, refined. Many: groups of about equal size (balanced k-means,
an optimal transport), a tree of the groups, a tree of the rows of each, and at last a
refinement of the uppermost nodes, in which parts of groups go where they cost less.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from joblib import Parallel, delayed
from scipy.cluster.hierarchy import linkage

from visxp_jax.hierarchy.metrics import dasgupta_cost, heights, unit_rows
from visxp_jax.hierarchy.refinement import refine_groups
from visxp_jax.hierarchy.tree import grafted, sorted_by_height, uppermost, with_top
from visxp_jax.losses import balanced_kmeans
from visxp_jax.progress import progress_bar

# Leaves of which a tree is made at once, in up to ten seconds and about 100 MB.
DIRECT = 2000
# Times that the centres of groups move: what these get wrong is put right above them.
ROUNDS = 5
# Small trees are made several times, up to so many rows, and the best is taken.
ROWS = 1000
# Of refinement, where there are groups: the first three bring 95 % of what ten do.
SWEEPS = 3


def build(
    x: np.ndarray,
    *,
    random_state: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> np.ndarray:
    """A binary tree over the rows of a matrix.

    Time is that of trees of at most `DIRECT` leaves, one for about every sqrt(n) rows.
    Memory is about ten times that of `x`, and 0.3 GB for each process beside the first.

    Args:
        x: [n, d]; similarity is (1 + cosine) / 2.
        random_state: Of the groups, and of the order in which refinement goes.
        n_jobs: Processes that trees of groups are made in: None for 1, -1 for one on
            each core. It does not change the tree.
        verbose: Whether to show progress.

    Returns:
        int64 [n - 1, 2], merges in the order of `heights`.

    Raises:
        ValueError: see `unit_rows`.
    """
    x = unit_rows(x)
    if x.shape[1] > len(x):  # only products of rows count, and these stay
        x = np.transpose(np.linalg.qr(x.T, mode="r"))
    rng = np.random.default_rng(random_state)
    if len(x) <= DIRECT:
        # Where refinement ends depends on its order, which matters where rows are few.
        tries = [
            _direct(np.ones(len(x)), x, rng) for _ in range(min(10, 1 + ROWS // len(x)))
        ]
        merges = min(tries, key=lambda tree: dasgupta_cost(tree, x))
    else:
        with progress_bar(shown=verbose, total=len(x), desc="tree", unit="row") as bar:
            merges = _of_groups(x, rng, n_jobs, bar.update)
        merges = _refined_above(merges, x, rng)
    return sorted_by_height(merges, heights(merges, x))[0]


def _of_groups(
    x: np.ndarray,
    rng: np.random.Generator,
    n_jobs: int | None,
    done: Callable[[int], object],
) -> np.ndarray:
    labels = _groups(x, min(DIRECT, math.isqrt(len(x))), rng)
    above = _direct(*_group_sums(x, labels), rng, SWEEPS)
    parts = np.split(
        np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]
    )
    # Other processes are kept from groups of groups, which are made by jax.
    tasks = (
        delayed(_direct)(np.ones(len(part)), x[part], own, SWEEPS)
        for part, own in zip(parts, rng.spawn(len(parts)), strict=True)
        if len(part) <= DIRECT
    )
    made: Any = Parallel(n_jobs, return_as="generator", max_nbytes=None)(tasks)
    trees = []
    for part in parts:
        if len(part) <= DIRECT:
            trees.append(next(made))
            done(len(part))
        else:
            trees.append(_of_groups(x[part], rng, n_jobs, done))
    return grafted(above, parts, trees)


def _direct(
    sizes: np.ndarray,
    sums: np.ndarray,
    rng: np.random.Generator,
    sweeps: int = 10,
) -> np.ndarray:
    """Of groups of rows: average linkage of their means, refined."""
    if len(sizes) == 1:
        return np.zeros((0, 2), np.int64)
    means = sums / sizes[:, None]
    far = (1 - means @ means.T)[np.triu_indices(len(means), 1)]
    first = linkage(np.clip(far, 0, None), "average")[:, :2].astype(np.int64)
    return refine_groups(first, sizes, sums, max_sweeps=sweeps, random_state=rng)


def _groups(x: np.ndarray, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Labels int64 [n] from 0 up without gaps.

    Of at most `DIRECT` rows each, or the mean number if that is more.
    """
    labels, _ = balanced_kmeans(
        jax.random.key(int(rng.integers(2**31))),
        x.astype(np.float32),
        clusters=groups,
        rounds=ROUNDS,
    )
    labels = _halved(x, np.array(labels, np.int64), max(DIRECT, len(x) // groups))
    return np.unique(labels, return_inverse=True)[1]


def _halved(x: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """Labels with large groups cut in halves, across the way to their furthest row."""
    made = labels.max() + 1
    todo = np.flatnonzero(np.bincount(labels) > most).tolist()
    while todo:
        group = todo.pop()
        (rows,) = np.nonzero(labels == group)
        centred = x[rows] - x[rows].mean(axis=0)
        furthest = centred[np.argmax(np.einsum("id,id->i", centred, centred))]
        half = rows[np.argsort(centred @ furthest, kind="stable")[len(rows) // 2 :]]
        labels[half] = made
        if len(rows) - len(half) > most:
            todo.append(group)
        if len(half) > most:
            todo.append(made)
        made += 1
    return labels


def _group_sums(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes [k] and sums of rows [k, d] of groups."""
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return sizes.astype(np.float64), np.add.reduceat(x[order], first, axis=0)


def _refined_above(
    merges: np.ndarray, x: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The tree with its uppermost nodes refined, subtrees below them kept whole."""
    merges, _ = sorted_by_height(merges, heights(merges, x))
    labels, nodes, top = uppermost(merges, DIRECT)
    sizes, sums = _group_sums(x, labels)
    top = refine_groups(top, sizes, sums, max_sweeps=SWEEPS, random_state=rng)
    return with_top(merges, nodes, top)
