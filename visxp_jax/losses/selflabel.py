"""Cross-entropy of several clustering heads to their stored pseudo-labels."""

import jax
import jax.numpy as jnp


def pseudo_label_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over heads of the cross-entropy to each head's own label, one per clip.

    Heads see the same features but number their clusters independently. A negative
    label means "not labelled": that clip's loss is 0 for that head. Chance: ln k.

    Args:
        logits: [b, r, k], unnormalised, any float type; computed in float32.
        labels: int [b, r], in [0, k) or negative.

    Returns:
        float32 [b], nats.

    Raises:
        ValueError: shapes do not fit. Raised while tracing.

    Source: Asano, Rupprecht and Vedaldi, Self-labelling via simultaneous clustering and
    representation learning, 2020, eq. 1, with several heads as in section 3.3.
    """
    if logits.ndim != 3 or logits.shape[:2] != labels.shape:
        raise ValueError(
            f"logits must be [b, r, k] with labels [b, r], got {logits.shape} and "
            f"{labels.shape}."
        )
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    picked = jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[..., None], axis=-1)
    return -jnp.mean(jnp.where(labels >= 0, picked[..., 0], 0.0), axis=-1)
