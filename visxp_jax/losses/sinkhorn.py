"""Equal-sized clusters by optimal transport, in the log domain.

Given log probabilities of n clips over k clusters, find the assignment that follows
them best while every cluster receives its share. Only a vector of k log scales is
unknown: the label of clip i is argmax_j (sharpness * log p_ij + log_scale_j), so labels
can be computed in any order and in any blocks.

Source: Asano, Rupprecht and Vedaldi, 2020, eqs. 6-8; Cuturi, 2013. Differs in: log
potentials in float32 instead of scalings in float64 (p^25 underflows float32), a stop
rule that is relative and does not depend on n, and fewer sweeps: see `dual`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from visxp_jax.losses.blocks import (
    gathered,
    map_in_blocks,
    sample_by_mass,
    sum_in_blocks,
)
from visxp_jax.losses.dual import (
    DAMPING,
    HIGHEST,
    REACH,
    Mass,
    State,
    damped_inverse,
    distance,
    solve,
)

# Of the kernel that is kept in memory: sums of more terms than this lose digits.
BLOCK = 1024
# Elements of the sample of rows that Newton's steps are taken from.
SAMPLE_ELEMENTS = 2**25
# Where a head is sure of itself, the sample is solved at these parts of the sharpness,
# one after another: from one to the next log scales grow by that factor and change by
# little. The last is tried twice. Five parts, each 4 times the last, left 1.8 times the
# sweeps for all rows.
SOFTER = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 1.0)
SAMPLE_TOL, SAMPLE_SWEEPS = 3e-2, 20
# A sample that Sinkhorn's steps solve in so many sweeps needs no Hessian: (100k, 256)
# standard normal logits take 10, and all rows 0.6 times as long without it.
EASY_SWEEPS = 10
# Sweeps with one Hessian. With one for good, problems of groups of very unequal size
# did not end in 500; 15 and 30 took about as many as 20.
TURN = 20
# Log scales that are given are better than those of the sample while their distance is
# below this.
GOOD_START = 0.1
# Of every other turn after one that led nowhere; see `dual.DAMPING`.
MORE_DAMPING = 3e-2

Sum = Callable[[jax.Array], jax.Array]


class Equipartition(NamedTuple):
    """Result of `equipartition`."""

    log_scale: jax.Array  # float32 [k], mean 0
    column_error: jax.Array  # float32 [], max over clusters of |mass / wanted - 1|
    iterations: jax.Array  # int32 [], sweeps over all rows
    converged: jax.Array  # bool [], column_error <= tol


@partial(jax.jit, static_argnames=("max_iters", "axis_name"))
def equipartition(
    log_probs: jax.Array,
    *,
    sharpness: float | jax.Array,
    cluster_mass: jax.Array | None = None,
    row_mass: jax.Array | None = None,
    log_scale: jax.Array | None = None,
    tol: float | jax.Array = 1e-4,
    max_iters: int = 500,
    axis_name: str | None = None,
) -> Equipartition:
    """Log scale per cluster that gives every cluster its share of the clips.

    Takes the memory of `log_probs` once more, and again with `row_mass`, and some three
    times that of a sample of the rows; where that is too much, see
    `equipartition_in_blocks`. If `log_probs` are NaN or infinite anywhere (-inf forbids
    a cluster), the loop stops and `converged` is False. Rows that are split over
    devices belong inside `jax.shard_map`, see `axis_name`.

    Args:
        log_probs: float32 (or float64) [n, k]; rows may be shifted by moderate
            constants, so that logits will do. The mean of several modalities' log
            probabilities pools them.
        sharpness: Inverse temperature, > 0, no unit (the paper's lambda). 25 is sharp.
        cluster_mass: float32 [k] > 0, wanted relative sizes; None for equal ones.
        row_mass: float32 [n] >= 0, relative weight of clips; None for equal ones. Rows
            of mass 0 change nothing.
        log_scale: float32 [k], where to begin, such as an earlier result.
        tol: Largest accepted column error; float32 reaches about 1e-6.
        max_iters: Largest number of sweeps over all rows.
        axis_name: Inside `jax.shard_map`, the axis over which rows are split: each
            device then holds [n / devices, k], and only k numbers are summed over
            devices in a sweep. The result is the same on all.

    Returns:
        `Equipartition`; `log_scale` is centred, as a common shift changes no label.

    Raises:
        ValueError: `log_probs` is not a float32 or float64 matrix. bfloat16 is refused
            because its rounding alone changes about 1 % of the labels at sharpness 25.
    """
    _check(log_probs)
    n, k = log_probs.shape
    problem = _Problem(n, k, log_probs.dtype, cluster_mass, row_mass, axis_name)

    sharp = jnp.asarray(sharpness, log_probs.dtype)
    if row_mass is not None:
        log_probs = _real(log_probs, row_mass)
    return problem.solve(
        lambda at: log_probs[at] * sharp,
        partial(_mass_near, log_probs, sharp, problem.rows, problem.sum),
        log_scale,
        tol=tol,
        max_iters=max_iters,
    )


def _mass(name: str, mass: Any, size: int, dtype: Any) -> jax.Array:
    mass = jnp.ones(size, dtype) if mass is None else jnp.asarray(mass, dtype)
    if mass.shape != (size,):
        raise ValueError(f"{name} must be of shape {(size,)}, got {mass.shape}.")
    return mass


def _check(log_probs: jax.Array) -> None:
    if log_probs.ndim != 2 or log_probs.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(
            "log_probs must be a float32 or float64 [n, k] matrix, got "
            f"{log_probs.dtype} {log_probs.shape}; convert it with .astype('float32')."
        )


class _Problem:
    """What both forms have in common."""

    def __init__(
        self,
        n: int,
        k: int,
        dtype: Any,
        cluster_mass: jax.Array | None,
        row_mass: jax.Array | None,
        axis_name: str | None,
    ) -> None:
        self.axis_name = axis_name
        rows = _mass("row_mass", row_mass, n, dtype)
        self.rows = rows / self.sum(jnp.sum(rows))
        wanted = _mass("cluster_mass", cluster_mass, k, dtype)
        self.wanted = wanted / jnp.sum(wanted)

    def sum(self, x: jax.Array) -> jax.Array:
        """Over devices."""
        return x if self.axis_name is None else jax.lax.psum(x, self.axis_name)

    def solve(
        self,
        scores_of: Callable[[jax.Array], jax.Array],
        mass_near: Callable[[jax.Array], Mass],
        log_scale: jax.Array | None,
        *,
        tol: float | jax.Array,
        max_iters: int,
        reach: float = REACH,
        dear: bool = False,
    ) -> Equipartition:
        """First for a sample of the rows, held by every device, then for all.

        The sample is tried at once, by Sinkhorn's steps, accelerated; where these do
        not get there, softer problems lead up to it. All rows are then solved in turns
        of a few sweeps, each with the Hessian at the best log scales so far; but where
        the sample was easy, and a sweep is not `dear` beside a Hessian, the first turn
        is without. A turn that did not help is followed by one of Sinkhorn's steps.
        """
        scores, rows = self._sample(scores_of)
        wanted = self.wanted
        of_sample = partial(self._of_sample, scores, rows)

        def turn(state: tuple) -> tuple[State, jax.Array, jax.Array]:
            best, newton, fails = state
            # Turns that led nowhere would do so again: they become longer, and every
            # other of them more cautious.
            most = jnp.minimum(TURN * 2 ** jnp.minimum(fails, 4), max_iters)
            damping = DAMPING + MORE_DAMPING * (fails % 2).astype(wanted.dtype)
            how = {"tol": tol, "max_sweeps": jnp.minimum(most, max_iters - best.sweeps)}
            go_on = partial(
                solve, mass_near, best.log_scale, wanted, reach=reach, **how
            )
            found = jax.lax.cond(
                newton,
                lambda: go_on(self._inverse(scores, rows, best.log_scale, damping)),
                lambda: go_on(None),
            )
            taken = (found.distance < best.distance) | (found.error <= tol)
            taken = taken | ~jnp.isfinite(found.error)
            helped = found.distance < best.distance / 2
            sweeps = best.sweeps + found.sweeps
            best = jax.tree.map(lambda a, b: jnp.where(taken, a, b), found, best)
            fails = fails + (~newton & ~taken).astype(fails.dtype)
            return best._replace(sweeps=sweeps), helped | ~newton, fails

        def unfinished(state: tuple) -> jax.Array:
            return (state[0].error > tol) & (state[0].sweeps < max_iters)

        if log_scale is None:
            start, easy = of_sample()
            begin = State.at(start, wanted)
        else:
            given = (log_scale - jnp.mean(log_scale)).astype(wanted.dtype)
            mass = mass_near(given)(given)
            good = distance(mass, wanted) < GOOD_START
            start, easy = jax.lax.cond(
                good, lambda: (given, jnp.array(False)), of_sample
            )
            begin = State.at(start, wanted)._replace(sweeps=jnp.int32(1))
        begin = (begin, ~easy | dear, jnp.int32(0))
        end, *_ = jax.lax.while_loop(unfinished, turn, begin)
        return Equipartition(end.log_scale, end.error, end.sweeps, end.error <= tol)

    def _inverse(
        self,
        scores: jax.Array,
        rows: jax.Array,
        log_scale: jax.Array,
        damping: float | jax.Array = DAMPING,
    ) -> jax.Array:
        """Of the damped Hessian of a sample, [k, k]."""
        plan = jax.nn.softmax(scores + log_scale[None], axis=1)
        return damped_inverse(plan, rows, self.wanted, damping)

    def _of_sample(
        self, scores: jax.Array, rows: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Log scales [k] that nearly give a sample the wanted masses; was it easy?"""
        wanted = self.wanted

        def solved(
            log_scale: jax.Array, part: float | jax.Array, inverse: jax.Array | None
        ) -> State:
            few = partial(_mass_near, scores, part, rows, lambda x: x)
            how = {"tol": SAMPLE_TOL, "max_sweeps": SAMPLE_SWEEPS}
            return solve(few, log_scale, wanted, inverse, **how)

        def anneal(i: int | jax.Array, state: tuple) -> tuple:
            part = jnp.asarray(SOFTER, wanted.dtype)[i]
            log_scale = part * state[0]
            inverse = self._inverse(part * scores, rows, log_scale)
            found = solved(log_scale, part, inverse)
            return found.log_scale / part, found.distance

        # Cancels what each cluster claims: closer than zero. A cluster that nobody may
        # choose claims nothing.
        claims = jnp.where(rows[:, None] > 0, scores, -jnp.inf)
        claim = jax.nn.logsumexp(claims, axis=0)
        claim = jnp.where(jnp.isfinite(claim), claim, jnp.max(claim) - 1e4)
        begun = solved(jnp.mean(claim) - claim, 1.0, None)

        def from_softer() -> jax.Array:
            soft = (jnp.zeros_like(wanted), jnp.zeros_like(begun.distance))
            soft, left = jax.lax.fori_loop(0, len(SOFTER), anneal, soft)
            return jnp.where(left < begun.distance, soft, begun.log_scale)

        there = begun.error <= SAMPLE_TOL
        found = jax.lax.cond(there, lambda: begun.log_scale, from_softer)
        return found, there & (begun.sweeps <= EASY_SWEEPS)

    def _sample(
        self, scores_of: Callable[[jax.Array], jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Scores [s, k] and masses [s] of rows drawn by mass; the same everywhere."""
        n, k = self.rows.shape[0], self.wanted.shape[0]
        parts = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        # Enough for a Hessian of k clusters, and little work beside that for all rows.
        size = max(32 * k, n * parts // 32)
        size = max(4096, min(size, SAMPLE_ELEMENTS // k))
        size = min(n, -(-size // parts))
        at, rows = sample_by_mass(jax.random.key(0), self.rows, size, self.axis_name)
        scores = gathered(_real(scores_of(at), rows), self.axis_name)
        rows = gathered(rows, self.axis_name)
        return scores, rows / jnp.sum(rows)


def scores_at(
    log_probs: jax.Array,
    log_scale: jax.Array,
    sharpness: float | jax.Array,
    row_mass: jax.Array | None = None,
) -> jax.Array:
    """Of labels, which are their maxima, and of plans, which are their softmax."""
    _check(log_probs)
    if row_mass is not None:
        log_probs = _real(log_probs, row_mass)
    return log_probs * jnp.asarray(sharpness, log_probs.dtype) + log_scale[None]


def _real(scores: jax.Array, rows: jax.Array) -> jax.Array:
    """Padded rows may hold anything, even NaN: they become rows of zeros, of mass 0."""
    return jnp.where(rows[:, None] > 0, scores, 0.0)


def _mass_near(
    log_probs: jax.Array,
    sharpness: float | jax.Array,
    rows: jax.Array,
    total: Sum,
    origin: jax.Array,
) -> Mass:
    """Masses by matrix products with exponentials that are taken once.

    Sums over rows are made block by block: a running sum over millions of rows in
    float32 would lose the last digits of `tol`.
    """
    n, k = log_probs.shape
    block = min(n, BLOCK)
    count = -(-n // block)
    # What does not depend on the origin would be computed before the loop, and kept.
    log_probs, origin = jax.lax.optimization_barrier((log_probs, origin))
    shifted = log_probs * sharpness + origin[None]
    kernel = jnp.exp(shifted - jnp.max(shifted, axis=1, keepdims=True))
    missing = count * block - n
    kernel = jnp.pad(kernel, ((0, missing), (0, 0)), constant_values=1.0)
    kernel = kernel.reshape(count, block, k)
    rows = jnp.pad(rows, (0, missing)).reshape(count, block)

    def mass_of(log_scale: jax.Array) -> jax.Array:
        scale = jnp.exp(log_scale - origin)
        norm = jnp.einsum("brk,k->br", kernel, scale, precision=HIGHEST)
        mass = jnp.einsum("br,brk->bk", rows / norm, kernel, precision=HIGHEST)
        return total(jnp.sum(mass, axis=0) * scale)

    return mass_of


def equipartition_in_blocks(
    features: Any,
    log_probs_of: Callable[[Any], jax.Array],
    *,
    sharpness: float | jax.Array,
    clusters: int,
    cluster_mass: jax.Array | None = None,
    row_mass: jax.Array | None = None,
    log_scale: jax.Array | None = None,
    tol: float | jax.Array = 1e-4,
    max_iters: int = 500,
    block: int = 4096,
    axis_name: str | None = None,
) -> Equipartition:
    """`equipartition` where n x k is larger than memory: each sweep computes it anew.

    Takes the memory of `features`, of a block of scores and, some three times, of a
    sample of them: 32 million, or 4,096 rows if that is more. To be called inside
    `jax.jit`.

    Args:
        features: Array [n, ...], or tree of such, of any type.
        log_probs_of: (b of their rows) -> float32 [b, k], such as a head; other types
            are refused as in `equipartition`.
        sharpness: As in `equipartition`, as are all arguments not named here.
        clusters: k.
        cluster_mass: [k].
        row_mass: [n].
        log_scale: [k].
        tol: Column error.
        max_iters: Sweeps.
        block: b, rows at a time.
        axis_name: Of the devices among which rows are split.

    Returns:
        `Equipartition`.
    """
    n = jax.tree.leaves(features)[0].shape[0]
    problem = _Problem(n, clusters, jnp.float32, cluster_mass, row_mass, axis_name)
    _check(jax.eval_shape(log_probs_of, jax.tree.map(lambda x: x[:1], features)))

    def scores_of(at: jax.Array) -> jax.Array:
        some = jax.tree.map(lambda x: x[at], features)
        return log_probs_of(some) * jnp.float32(sharpness)

    def mass_of(log_scale: jax.Array) -> jax.Array:
        def of_block(part: Any, rows: jax.Array) -> jax.Array:
            scores = _real(log_probs_of(part) * jnp.float32(sharpness), rows)
            share = jax.nn.softmax(scores + log_scale[None], axis=1)
            return jnp.matmul(rows, share, precision=HIGHEST)

        return sum_in_blocks(
            of_block, features, problem.rows, block=block, axis_name=axis_name
        )

    return problem.solve(
        scores_of,
        lambda _: mass_of,
        log_scale,
        tol=tol,
        max_iters=max_iters,
        reach=jnp.inf,
        dear=True,
    )


@jax.jit
def assign(
    log_probs: jax.Array, log_scale: jax.Array, *, sharpness: float | jax.Array
) -> jax.Array:
    """Hard labels of the plan that `log_scale` stands for.

    Args:
        log_probs: [n, k], as given to `equipartition`; or a block of rows of it.
        log_scale: [k], from `equipartition`.
        sharpness: The same as there.

    Returns:
        int32 [n], in [0, k).
    """
    scores = scores_at(log_probs, log_scale, sharpness)
    return jnp.argmax(scores, axis=1).astype(jnp.int32)


def assign_in_blocks(
    features: Any,
    log_probs_of: Callable[[Any], jax.Array],
    log_scale: jax.Array,
    *,
    sharpness: float | jax.Array,
    block: int = 4096,
) -> jax.Array:
    """`assign` of the result of `equipartition_in_blocks`, int32 [n].

    Args:
        features: Array [n, ...], or tree of such.
        log_probs_of: As there.
        log_scale: [k], from there.
        sharpness: The same as there.
        block: Rows at a time.
    """

    def of_block(part: Any) -> jax.Array:
        return assign(log_probs_of(part), log_scale, sharpness=sharpness)

    return map_in_blocks(of_block, features, block=block)


@jax.jit
def transport_plan(
    log_probs: jax.Array,
    log_scale: jax.Array,
    *,
    sharpness: float | jax.Array,
    row_mass: jax.Array | None = None,
) -> jax.Array:
    """The soft plan Q, [n, k]: rows sum to their masses, columns to the clusters'.

    Args:
        log_probs: [n, k], as given to `equipartition`.
        log_scale: [k], from `equipartition`.
        sharpness: The same as there.
        row_mass: The same as there.
    """
    rows = jnp.ones(len(log_probs), log_probs.dtype) if row_mass is None else row_mass
    scores = scores_at(log_probs, log_scale, sharpness, rows)
    return (rows / jnp.sum(rows))[:, None] * jax.nn.softmax(scores, axis=1)
