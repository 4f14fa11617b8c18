"""Audio-visual correspondence: do this picture and this sound belong together?

Source: Arandjelovic and Zisserman, Look, Listen and Learn, 2017. The paper draws
mismatched pairs by loading a second clip; here they are made by shifting embeddings
within the batch, so that each tower runs once per clip instead of twice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class ShiftedPairs(NamedTuple):
    """Matching pairs followed by as many mismatched ones."""

    video: jax.Array  # [2b, d]
    audio: jax.Array  # [2b, d]
    matches: jax.Array  # float32 [2b], 1 for the clip's own sound, else 0
    weight: jax.Array  # float32 [2b], 0 for pairs that must not count


def shifted_pairs(
    video: jax.Array, audio: jax.Array, video_id: jax.Array, weight: jax.Array
) -> ShiftedPairs:
    """Each clip with its own sound, then each clip with its neighbour's sound.

    A neighbour cut from the same video is no mismatch, and gets weight 0. On several
    devices the shift moves one row per device; whole clips never travel.

    Args:
        video: Frame embeddings, [b, d].
        audio: Sound embeddings, [b, d].
        video_id: int [b]; equal where clips come from the same video.
        weight: float32 [b]; 0 for rows that only fill up the batch.

    Returns:
        `ShiftedPairs` of 2b pairs.
    """
    b = video.shape[0]
    different = (video_id != jnp.roll(video_id, -1)).astype(jnp.float32)
    negative = weight * jnp.roll(weight, -1) * different
    return ShiftedPairs(
        video=jnp.concatenate([video, video]),
        audio=jnp.concatenate([audio, jnp.roll(audio, -1, axis=0)]),
        matches=jnp.repeat(jnp.array([1.0, 0.0], jnp.float32), b),
        weight=jnp.concatenate([weight, negative]),
    )


def avc_bce(logits: jax.Array, matches: jax.Array) -> jax.Array:
    """Binary cross-entropy of the correspondence, in nats, one value per pair.

    Two logits per pair, as in the published networks, are reduced to their difference,
    which gives exactly the two-class softmax cross-entropy. Computed in float32 in the
    form max(t, 0) - t y + log(1 + e^-|t|), finite for any finite logit. Chance: ln 2.

    Args:
        logits: [b], the log odds of a match; or [b, 2], (mismatch, match).
        matches: [b], 1 where picture and sound belong together, else 0.

    Returns:
        float32 [b].

    Raises:
        ValueError: shapes do not fit. Raised while tracing.
    """
    if logits.ndim == 2 and logits.shape[1] == 2:
        logits = logits[:, 1] - logits[:, 0]
    if logits.shape != matches.shape:
        raise ValueError(
            f"logits must be [b] or [b, 2] with matches [b], got logits "
            f"{logits.shape} and matches {matches.shape}."
        )
    t = logits.astype(jnp.float32)
    y = matches.astype(jnp.float32)
    return jnp.maximum(t, 0.0) - t * y + jnp.log1p(jnp.exp(-jnp.abs(t)))
