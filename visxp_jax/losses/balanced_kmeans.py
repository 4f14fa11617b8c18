"""K-means with clusters of equal mass: labels to begin with."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from visxp_jax.losses.blocks import sum_in_blocks
from visxp_jax.losses.dual import HIGHEST
from visxp_jax.losses.kmeans import (
    mass_and_mean,
    places,
    plus_plus,
    sample_rows,
    unit_length,
)
from visxp_jax.losses.sinkhorn import (
    Equipartition,
    assign_in_blocks,
    equipartition_in_blocks,
    scores_at,
)

# Of the plans that only move centres.
WHILE_MOVING = {"tol": 1e-2, "max_iters": 50}
# A cluster whose rows cancel out to less than this part of their mass has no direction.
LEAST_LENGTH = 1e-6


@partial(jax.jit, static_argnames=("clusters", "rounds", "block", "axis_name"))
def balanced_kmeans(
    key: jax.Array,
    features: jax.Array,
    *,
    clusters: int,
    row_mass: jax.Array | None = None,
    row_id: jax.Array | None = None,
    rounds: int = 20,
    sharpness: float | jax.Array = 25.0,
    block: int = 4096,
    axis_name: str | None = None,
) -> tuple[jax.Array, Equipartition]:
    """First labels, from features that an earlier stage has learnt.

    K-means by cosine, of features from which their mean is taken, in which the
    assignment is an equipartition: clusters are of equal mass in the soft plan, which
    moves the centres, so that none dies; and nearly of equal size in the labels, unless
    rows coincide.

    Args:
        key: As in `kmeans`, as are all arguments not named here.
        features: [n, d].
        clusters: k.
        row_mass: [n].
        row_id: [n].
        rounds: Times that centres move.
        sharpness: Inverse temperature of the assignment on cosines, > 0, no unit.
        block: Rows at a time.
        axis_name: Of the devices among which rows are split.

    Returns:
        (int32 [n] labels, the last `Equipartition`), the latter not converged if
        anything is not finite.

    Raises:
        ValueError: As in `kmeans`.

    Source: the equipartition of Asano et al., 2020, eqs. 6-8, in place of the nearest
    centre in spherical k-means (Dhillon and Modha, 2001).
    """
    features = unit_length(features, row_mass, block=block, axis_name=axis_name)
    rows, _ = mass_and_mean(features, row_mass, block, axis_name)
    for_sample, for_first = jax.random.split(key)
    none = jnp.zeros(features.shape[1], jnp.float32)
    names = places(len(rows), axis_name) if row_id is None else row_id
    sample = sample_rows(for_sample, features, rows, names, none, clusters, axis_name)

    def cosines(part: jax.Array, centres: jax.Array) -> jax.Array:
        return jnp.matmul(part.astype(jnp.float32), centres.T, precision=HIGHEST)

    def balance(centres: jax.Array, log_scale: jax.Array, **stop: Any) -> Equipartition:
        return equipartition_in_blocks(
            features,
            lambda part: cosines(part, centres),
            sharpness=sharpness,
            clusters=clusters,
            row_mass=rows,
            log_scale=log_scale,
            block=block,
            axis_name=axis_name,
            **stop,
        )

    def move(_: Any, state: tuple) -> tuple[jax.Array, jax.Array]:
        centres, log_scale = state
        log_scale = balance(centres, log_scale, **WHILE_MOVING).log_scale

        def of_block(part: jax.Array, mass: jax.Array) -> jax.Array:
            score = scores_at(cosines(part, centres), log_scale, sharpness)
            share = jax.nn.softmax(score, axis=1) * mass[:, None]
            return jnp.matmul(share.T, part.astype(jnp.float32), precision=HIGHEST)

        total = sum_in_blocks(
            of_block, features, rows, block=block, axis_name=axis_name
        )
        length = jnp.linalg.norm(total, axis=1, keepdims=True)
        directed = length > LEAST_LENGTH / clusters
        return jnp.where(directed, total / length, centres), log_scale

    first = plus_plus(for_first, *sample, clusters)
    begin = (first, jnp.zeros(clusters, jnp.float32))
    centres, log_scale = jax.lax.fori_loop(0, rounds, move, begin)
    result = balance(centres, log_scale)
    labels = assign_in_blocks(
        features,
        lambda part: cosines(part, centres),
        result.log_scale,
        sharpness=sharpness,
        block=block,
    )
    return labels, result
