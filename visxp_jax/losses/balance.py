"""Cluster sizes: exactly equal ones for labels, and unequal ones to ask for."""

import jax
import jax.numpy as jnp

from visxp_jax.losses.sinkhorn import scores_at


def gaussian_cluster_mass(
    key: jax.Array, claims: jax.Array, *, deviation: float = 0.1
) -> jax.Array:
    """Relative cluster sizes from a normal distribution, the largest where most claim.

    Args:
        key: Of the draw.
        claims: [k], how much the head gives each cluster now, such as the mean of its
            probabilities over clips. Only their order counts.
        deviation: Standard deviation, relative to the mean size.

    Returns:
        float32 [k], > 0, mean 1; for `cluster_mass` of `equipartition`.

    Source: Asano et al., Labelling unlabelled videos from scratch (SeLaVi), 2020,
    section 3.1: sizes from N(1, 0.1) / k, and a permutation R that lets the heaviest
    cluster have the largest. The authors' code gives out reciprocal sizes in no order,
    and draws a new order at every relabelling; this does as the paper says.
    """
    k = claims.shape[0]
    drawn = 1.0 + deviation * jax.random.normal(key, (k,))
    # A draw far below the mean would be negative: nobody could ever be in it.
    drawn = jnp.sort(jnp.maximum(drawn, 0.01))
    rank = jnp.argsort(jnp.argsort(claims))
    return drawn[rank] / jnp.mean(drawn)


def disagreement(probs: jax.Array, others: jax.Array, row_mass: jax.Array) -> jax.Array:
    """How far apart two heads are for each way to pair up their clusters.

    The best numbering of the second head is the assignment of least cost, by
    `scipy.optimize.linear_sum_assignment`.

    Args:
        probs: [n, k], of the first head.
        others: [n, k], of the second, for the same clips.
        row_mass: [n], weights of the clips; those of weight 0 may hold anything.

    Returns:
        [k, k], the sum over clips of |probs[:, i] - others[:, j]|.

    Source: the objective by which SeLaVi's code aligns its modalities; there, some
    exchanges of pairs lower it, here it can be solved exactly.
    """
    apart = jnp.abs(probs[:, :, None] - others[:, None, :])
    mass = row_mass[:, None, None]
    return jnp.sum(jnp.where(mass > 0, mass * apart, 0.0), axis=0)


@jax.jit
def assign_exactly(
    log_probs: jax.Array,
    log_scale: jax.Array,
    *,
    sharpness: float | jax.Array,
    cluster_mass: jax.Array | None = None,
    row_mass: jax.Array | None = None,
) -> jax.Array:
    """Labels whose clusters have the wanted sizes to one clip.

    `assign` gives nearly equal sizes: a plan shares some clips between clusters, a
    label cannot. Here those that lose least move from clusters with too many clips to
    others, the cheapest first, until every size is its share of n rounded down or up.
    Greedy: the sum of scores is near the best, not always the best. No clip moves to a
    cluster of log probability -inf, nor one to make room for another: with such pairs,
    or with scores that are NaN, sizes may end inexact. All rows must be in one program:
    it does not work inside `jax.shard_map`.

    Args:
        log_probs: [n, k], as given to `equipartition`.
        log_scale: [k], from `equipartition`.
        sharpness: The same as there.
        cluster_mass: The same as there.
        row_mass: [n], 0 for rows that count nowhere; others count as one each.

    Returns:
        int32 [n], in [0, k).
    """
    n, k = log_probs.shape
    real = jnp.ones(n, bool) if row_mass is None else row_mass > 0
    scores = scores_at(log_probs, log_scale, sharpness, row_mass)
    sizes = _sizes(jnp.sum(real), k, cluster_mass)
    first = jnp.argmax(scores, axis=1).astype(jnp.int32)

    def over(labels: jax.Array) -> jax.Array:
        return jnp.zeros(k, jnp.int32).at[labels].add(real.astype(jnp.int32)) - sizes

    def move(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        labels, _ = state
        excess = over(labels)
        own = jnp.take_along_axis(scores, labels[:, None], axis=1)
        loss = jnp.where(excess[None] < 0, own - scores, jnp.inf)
        to = jnp.argmin(loss, axis=1).astype(jnp.int32)
        cost = jnp.min(loss, axis=1)
        may = real & jnp.isfinite(cost)
        leaves = may & (_rank(labels, cost, may, k) < excess[labels])
        # Where more come than there is room for, the others wait for the next turn.
        enters = leaves & (_rank(to, cost, leaves, k) < -excess[to])
        return jnp.where(enters, to, labels), jnp.any(enters)

    def unfinished(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        labels, moved = state
        return moved & jnp.any(over(labels) > 0)

    return jax.lax.while_loop(unfinished, move, (first, jnp.array(True)))[0]


def _sizes(n: jax.Array, k: int, cluster_mass: jax.Array | None) -> jax.Array:
    """int32 [k] that sum to n: shares rounded down, the largest remainders up."""
    mass = jnp.ones(k) if cluster_mass is None else cluster_mass
    share = mass / jnp.sum(mass) * n.astype(jnp.float32)
    down = jnp.floor(share).astype(jnp.int32)
    order = jnp.argsort(jnp.argsort(-(share - jnp.floor(share)), stable=True))
    return down + (order < n - jnp.sum(down)).astype(jnp.int32)


def _rank(group: jax.Array, cost: jax.Array, counts: jax.Array, k: int) -> jax.Array:
    """Place of each row among those of its group that count, the cheapest being 0."""
    group = jnp.where(counts, group, k)
    order = jnp.lexsort((cost, group))
    first = jnp.searchsorted(group[order], jnp.arange(k + 1))
    place = jnp.arange(len(group)) - first[group[order]]
    return jnp.zeros_like(place).at[order].set(place)
