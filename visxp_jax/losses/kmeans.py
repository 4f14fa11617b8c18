"""K-means on rows that may be split over devices.

Rows are read in blocks, in any float type, and distances are matrix products: memory
is that of the features, of a block of scores and of a sample of the rows. First centres
come from that sample, which every device holds, so that afterwards only sums for each
cluster cross between devices.

Source: Lloyd, 1982; Arthur and Vassilvitskii, k-means++, 2007, with several trials for
each centre (section 5 there, and scikit-learn). Differs in: first centres, and the
first iterations, see a sample of the rows alone; an empty cluster becomes one half of
that with the largest sum of squared distances.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from visxp_jax.losses.blocks import (
    gathered,
    map_in_blocks,
    sum_in_blocks,
)
from visxp_jax.losses.dual import HIGHEST, TINY

# The sample of rows: at least so many, and so many for each cluster.
SAMPLE_ROWS, SAMPLE_ROWS_PER_CLUSTER = 16_384, 32
SAMPLE_ITERS = 20
# Halves of a split cluster begin this far from its centre, in rms radii. The border
# between them goes through that centre however far it is; other borders hardly move.
SPLIT_STEP = 0.1
# Clusters whose rms radius is below this part of the spread (both squared) are single
# points but for rounding: not split.
SPLIT_RADIUS_SQUARED = 1e-9


class KMeans(NamedTuple):
    """Result of `kmeans`."""

    centres: jax.Array  # float32 [k, d]
    labels: jax.Array  # int32 [n], nearest centre; of rows of mass 0: any in [0, k)
    inertia: jax.Array  # float32 [], mean squared distance to it, weighted by mass
    iterations: jax.Array  # int32 [], moves of centres by all rows
    converged: jax.Array  # bool [], the last moved no centre by more than `tol`


@partial(jax.jit, static_argnames=("clusters", "max_iters", "block", "axis_name"))
def kmeans(
    key: jax.Array,
    features: jax.Array,
    *,
    clusters: int,
    row_mass: jax.Array | None = None,
    row_id: jax.Array | None = None,
    max_iters: int = 50,
    tol: float | jax.Array = 1e-4,
    block: int = 4096,
    axis_name: str | None = None,
) -> KMeans:
    """Clusters of small squared distance to their means: Lloyd's algorithm.

    No cluster stays empty while there are points to be had, further apart than 1e-4 of
    the spread. With fewer points than clusters, the centres left over lie on others'
    and have no rows. If anything is not finite, the loop stops, `inertia` is not finite
    and `converged` is False.

    Args:
        key: Chooses first centres; the same on all devices.
        features: float32, float16 or bfloat16 [n, d]. Half floats are widened a block
            at a time (but XLA on CPUs widens all of bfloat16 at once).
        clusters: k >= 1; may exceed n.
        row_mass: float32 [n] >= 0, relative weight of rows; None for equal ones. Rows
            of mass 0 may hold anything, even NaN, and change nothing.
        row_id: int32 [n], names of the rows: what is drawn then depends on these and
            not on their order. None for their places.
        max_iters: Largest number of iterations over all rows.
        tol: Stop once no centre moves by more than this, relative to the spread (rms
            distance of rows from their mean).
        block: Rows at a time.
        axis_name: Inside `jax.shard_map`, the axis over which rows are split. Labels
            are then of the device's own rows; all else is the same everywhere, and
            the same as on one device but for rounding.

    Returns:
        `KMeans`.

    Raises:
        ValueError: `features` is not a matrix of such floats.
    """
    rows, mean = mass_and_mean(features, row_mass, block, axis_name)
    for_sample, for_first, for_halves = jax.random.split(key, 3)
    # Far from the origin, |c|^2 - 2 x.c would lose its digits.
    names = places(len(rows), axis_name) if row_id is None else row_id
    sample, sample_mass, names = sample_rows(
        for_sample, features, rows, names, mean, clusters, axis_name
    )
    first = plus_plus(for_first, sample, sample_mass, names, clusters)
    spread = jnp.matmul(sample_mass, jnp.sum(sample**2, axis=1), precision=HIGHEST)
    limit = tol**2 * spread
    every = (features, rows, mean, block, axis_name)
    few = (sample, sample_mass, jnp.zeros_like(mean), block, None)

    def lloyd(data: tuple, centres: jax.Array, iters: int) -> tuple:
        def move(state: tuple) -> tuple:
            old, _, i = state
            total, mass, inertia = _sums(old, *data)
            new = total / jnp.maximum(mass, TINY)[:, None]
            new = jnp.where(mass[:, None] > 0, new, old)
            new = _split(jax.random.fold_in(for_halves, i), new, mass, inertia, spread)
            return new, jnp.max(jnp.sum((new - old) ** 2, axis=1)), i + 1

        def moves(state: tuple) -> jax.Array:
            return (state[1] > limit) & (state[2] < iters)

        begin = (centres, jnp.float32(jnp.inf), jnp.int32(0))
        return jax.lax.while_loop(moves, move, begin)

    centres, _, _ = lloyd(few, first, SAMPLE_ITERS)
    centres, moved, iterations = lloyd(every, centres, max_iters)
    inertia = jnp.sum(_sums(centres, *every)[2])

    def nearest(part: jax.Array) -> jax.Array:
        return _nearest(part.astype(jnp.float32) - mean[None], centres)

    labels = map_in_blocks(nearest, features, block=block)
    centres = centres + mean[None]
    converged = (moved <= limit) & jnp.isfinite(moved)
    return KMeans(centres, labels, inertia, iterations, converged)


@partial(jax.jit, static_argnames=("block", "axis_name"))
def unit_length(
    features: jax.Array,
    row_mass: jax.Array | None = None,
    *,
    block: int = 4096,
    axis_name: str | None = None,
) -> jax.Array:
    """Rows less their weighted mean, scaled to length 1: dot products are cosines.

    Args:
        features: As in `kmeans`, as are all arguments.
        row_mass: [n].
        block: Rows at a time.
        axis_name: Of the devices among which rows are split.

    Returns:
        [n, d], of the type of `features`. Rows of mass 0 are 0. Rows whose distance
        from the mean is rounding, below 1e-6 of the rms distance, are shorter than 1.

    Raises:
        ValueError: `features` is not a matrix of such floats.
    """
    rows, mean = mass_and_mean(features, row_mass, block, axis_name)

    def square(part: jax.Array, mass: jax.Array) -> jax.Array:
        return jnp.sum(mass[:, None] * _centred(part, mass, mean) ** 2)

    spread = sum_in_blocks(square, features, rows, block=block, axis_name=axis_name)

    def of_block(tree: tuple[jax.Array, jax.Array]) -> jax.Array:
        x = _centred(*tree, mean)
        return scaled(x, 1e-6 * jnp.sqrt(spread) + TINY).astype(features.dtype)

    return map_in_blocks(of_block, (features, rows), block=block)


def scaled(x: jax.Array, least: jax.Array) -> jax.Array:
    """Rows of length 1, but for those that are not much longer than `least`."""
    return x / (jnp.linalg.norm(x, axis=1, keepdims=True) + least)


def mass_and_mean(
    features: jax.Array, row_mass: jax.Array | None, block: int, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Masses [n] of sum 1, and the mean [d] of the rows."""
    floats = (jnp.float32, jnp.float16, jnp.bfloat16)
    if features.ndim != 2 or features.dtype not in floats:
        raise ValueError(
            "features must be a float32, float16 or bfloat16 [n, d] matrix, got "
            f"{features.dtype} {features.shape}."
        )
    n, d = features.shape
    rows = (
        jnp.ones(n, jnp.float32) if row_mass is None else row_mass.astype(jnp.float32)
    )
    total = jnp.sum(rows)
    rows = rows / (total if axis_name is None else jax.lax.psum(total, axis_name))

    def of_block(part: jax.Array, mass: jax.Array) -> jax.Array:
        return jnp.matmul(
            mass, _centred(part, mass, jnp.zeros(d, jnp.float32)), precision=HIGHEST
        )

    where = {"block": block, "axis_name": axis_name}
    return rows, sum_in_blocks(of_block, features, rows, **where)


def _centred(part: jax.Array, rows: jax.Array, origin: jax.Array) -> jax.Array:
    """float32; padded rows may hold anything, even NaN: they become zeros."""
    x = part.astype(jnp.float32) - origin[None]
    return jnp.where(rows[:, None] > 0, x, 0.0)


def places(n: int, axis_name: str | None) -> jax.Array:
    """Of this device's rows among those of all, int32 [n]."""
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    return jnp.arange(n, dtype=jnp.int32) + device * n


def sample_rows(
    key: jax.Array,
    features: jax.Array,
    rows: jax.Array,
    names: jax.Array,
    origin: jax.Array,
    clusters: int,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Centred rows [s, d], masses [s] of sum 1 and names [s], alike on all devices.

    All rows, if there are not many more; otherwise those of largest mass / u, u drawn
    from [0, 1) by their names alone: a row is taken as often as it weighs, and the mass
    of a light one stands for those that were not (priority sampling; Duffield, Lund and
    Thorup, 2007).
    """
    parts = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    size = max(SAMPLE_ROWS, SAMPLE_ROWS_PER_CLUSTER * clusters)
    if len(rows) * parts <= size:
        at, place, mass = jnp.arange(len(rows)), places(len(rows), axis_name), rows
        size = len(rows) * parts
    else:
        draw = jax.vmap(lambda name: jax.random.uniform(jax.random.fold_in(key, name)))
        wait = jnp.where(rows > 0, draw(names) / rows, jnp.inf)
        at = jnp.lexsort((names, wait))[: size + 1]  # equal ones by name
        waits, called = (gathered(x[at], axis_name) for x in (wait, names))
        order = jnp.lexsort((called, waits))
        place = jnp.argsort(order)[places(len(at), axis_name)]
        first_left = jnp.maximum(waits[order[size]], TINY)
        mass = jnp.where(rows[at] > 0, jnp.maximum(rows[at], 1 / first_left), 0.0)

    def together(x: jax.Array) -> jax.Array:
        all_rows = (
            jnp.zeros((size, *x.shape[1:]), x.dtype).at[place].set(x, mode="drop")
        )
        return all_rows if axis_name is None else jax.lax.psum(all_rows, axis_name)

    x = together(_centred(features[at], mass, origin))
    mass, names = together(mass), together(names[at])
    return x, mass / jnp.maximum(jnp.sum(mass), TINY), names


def plus_plus(
    key: jax.Array, x: jax.Array, rows: jax.Array, names: jax.Array, clusters: int
) -> jax.Array:
    """Greedy k-means++: of a few rows drawn by squared distance, the best, k times."""
    trials = min(len(x), 2 + int(math.log(clusters)))
    square = jnp.sum(x**2, axis=1)

    def choose(i: jax.Array, state: tuple) -> tuple:
        centres, distance = state
        weight = jnp.log(rows) + jnp.log(distance)
        turn = jax.random.fold_in(key, i)
        chance = jax.vmap(
            lambda name: jax.random.gumbel(
                jax.random.fold_in(turn, name), dtype=weight.dtype
            )
        )(names)
        drawn, at = jax.lax.top_k(weight + chance, trials)  # without repetition
        to = square[:, None] - 2 * jnp.matmul(x, x[at].T, precision=HIGHEST)
        to = jnp.clip(to + square[at][None], 0.0, distance[:, None])
        left = jnp.matmul(rows, to, precision=HIGHEST)
        # What has no mass, or is a centre already, was drawn for want of others.
        best = jnp.argmin(jnp.where(drawn > -jnp.inf, left, jnp.inf))
        return centres.at[i].set(x[at[best]]), to[:, best]

    # No two rows are further apart: the first centre is drawn by mass alone.
    far = jnp.full_like(rows, 4 * jnp.max(square))
    start = (jnp.zeros((clusters, x.shape[1]), x.dtype), far)
    return jax.lax.fori_loop(0, clusters, choose, start)[0]


def _sums(
    centres: jax.Array,
    features: jax.Array,
    rows: jax.Array,
    origin: jax.Array,
    block: int,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of the clusters: of rows [k, d], masses [k] and squared distances [k]."""

    def of_block(part: jax.Array, mass: jax.Array) -> tuple:
        x = _centred(part, mass, origin)
        label = _nearest(x, centres)
        hot = label[:, None] == jnp.arange(len(centres))[None]
        hot = jnp.where(hot, mass[:, None], 0.0)
        # Not from the product: in narrow clusters rounding would be all that is left.
        distance = jnp.sum((x - centres[label]) ** 2, axis=1)
        terms = (x, jnp.ones_like(mass), distance)
        return tuple(jnp.matmul(hot.T, term, precision=HIGHEST) for term in terms)

    return sum_in_blocks(of_block, features, rows, block=block, axis_name=axis_name)


def _nearest(x: jax.Array, centres: jax.Array) -> jax.Array:
    """Label of each row, int32 [b]; in [0, k) even if something is NaN.

    On a CPU in a third of the time that `jnp.argmax` takes.
    """
    half = jnp.sum(centres**2, axis=1) / 2
    score = jnp.matmul(x, centres.T, precision=HIGHEST) - half[None]
    best = score == jnp.max(score, axis=1, keepdims=True)
    k = len(centres)
    return jnp.min(jnp.where(best, jnp.arange(k)[None], k - 1), axis=1)


def _split(
    key: jax.Array,
    centres: jax.Array,
    mass: jax.Array,
    inertia: jax.Array,
    spread: jax.Array,
) -> jax.Array:
    """Centres in which the i-th empty cluster is half of that of i-th most inertia.

    Not of that of most rows, which may be one point many times.
    """
    square = inertia / jnp.maximum(mass, TINY)
    wide = square > SPLIT_RADIUS_SQUARED * spread
    order = jnp.argsort(-jnp.where(wide, inertia, -1.0))
    empty = jnp.argsort(mass > 0, stable=True)
    pairs = jnp.minimum(jnp.sum(mass <= 0), jnp.sum(wide))
    used = (jnp.arange(len(mass)) < pairs)[:, None]
    step = jax.random.normal(key, centres.shape, centres.dtype)
    step = step / (jnp.linalg.norm(step, axis=1, keepdims=True) + TINY)
    step = jnp.where(used, step * SPLIT_STEP * jnp.sqrt(square)[order][:, None], 0.0)
    new = jnp.where(used, centres[order] + step, centres[empty])
    return centres.at[empty].set(new).at[order].add(-step)
