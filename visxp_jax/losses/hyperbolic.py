"""Losses that pull clips towards the leaves of a hierarchy in the Poincare ball."""

import jax
import jax.numpy as jnp

from visxp_jax.geometry import poincare

FORMS = ("ce", "dist", "tree")


def leaf_logits(
    z: jax.Array, leaves: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    """-d(z, leaf) / temperature, float32 [b, k].

    Args:
        z: float32 [b, d], in the ball.
        leaves: float32 [k, d], in the ball.
        temperature: > 0.

    Source: the prediction head of Long et al., Searching for actions on the hyperbole,
    2020, there over the leaves of a batch.
    """
    return -poincare.pairwise_distance(z, leaves) / temperature


def kinship(leaves: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """For each leaf a distribution over all, by the depth of common ancestors, [k, k].

    Args:
        leaves: float32 [k, d], in the ball.
        temperature: > 0; towards 0 each is related to itself alone.
    """
    depth = poincare.lca_depth(leaves[:, None], leaves[None])
    return jax.nn.softmax(depth / temperature, axis=-1)


def leaf_loss(
    z: jax.Array,
    leaves: jax.Array,
    labels: jax.Array,
    *,
    form: str,
    temperature: float | jax.Array,
    tree_temperature: float | jax.Array,
) -> jax.Array:
    """How far each clip is from its leaf, float32 [b]; 0 where its label is negative.

    Args:
        z: float32 [b, d], clips in the ball.
        leaves: float32 [k, d], in the ball.
        labels: int [b], in [0, k) or negative.
        form: 'ce': cross-entropy of `leaf_logits`, nats. 'tree': the same to the soft
            label `kinship`, so that near relatives cost less. 'dist': squared distance.
        temperature: Of the logits.
        tree_temperature: Of the soft labels.

    Raises:
        ValueError: another form.
    """
    known, at = labels >= 0, jnp.maximum(labels, 0)
    if form == "dist":
        cost = poincare.squared_distance(z, leaves[at])
    elif form in FORMS:
        log_probs = jax.nn.log_softmax(leaf_logits(z, leaves, temperature), axis=-1)
        if form == "ce":
            cost = -jnp.take_along_axis(log_probs, at[:, None], axis=-1)[:, 0]
        else:
            wanted = kinship(jax.lax.stop_gradient(leaves), tree_temperature)[at]
            cost = -jnp.sum(wanted * log_probs, axis=-1)
    else:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    return jnp.where(known, cost, 0.0)
