"""Redundancy between feature dimensions, as a penalty."""

import jax
import jax.numpy as jnp


def decorrelation(features: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean squared correlation between different dimensions of a batch, in [0, 1].

    0 when all dimensions are uncorrelated over the batch, 1 when they all say the same.
    A dimension that is constant over the batch has no correlation and counts as 0, and
    so, by and by, does one whose standard deviation falls below 0.01.
    Independent dimensions give 1 / (b - 1): in few rows chance looks like correlation.

    Args:
        features: [b, d] with d >= 2; computed in float32.
        weight: float32 [b], 0 for rows that only fill up the batch.

    Returns:
        float32 scalar.

    Source: the off-diagonal term of Barlow Twins (Zbontar et al., 2021, eq. 1) on one
    set of features; it differs in the division by d (d - 1).
    """
    d = features.shape[1]
    w = weight[:, None] / jnp.maximum(jnp.sum(weight), 1.0)
    x = features.astype(jnp.float32)
    x = x - jnp.sum(w * x, axis=0, keepdims=True)
    # The floor keeps the gradient finite when a dimension has collapsed.
    std = jnp.sqrt(jnp.sum(w * x * x, axis=0, keepdims=True) + 1e-6)
    z = x / std
    corr = (z * w).T @ z
    off_diagonal = jnp.sum(corr**2) - jnp.sum(jnp.diagonal(corr) ** 2)
    return off_diagonal / (d * (d - 1))
