"""Audio-visual correspondence: do this picture and this sound belong together?

Source: Arandjelovic and Zisserman, Look, Listen and Learn, 2017. The paper draws
mismatched pairs by loading a second clip; here they are made by shifting embeddings
within the batch, so that each tower runs once per clip instead of twice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class ShiftedPairs(NamedTuple):
    """b matching pairs followed by shifts * b mismatched ones."""

    video: jax.Array  # [(1 + shifts) b, d]
    audio: jax.Array  # [(1 + shifts) b, d]
    matches: jax.Array  # float32 [(1 + shifts) b], 1 for the clip's own sound, else 0
    weight: jax.Array  # float32 [(1 + shifts) b]; both kinds weigh the same in sum


def shifted_pairs(
    video: jax.Array,
    audio: jax.Array,
    video_id: jax.Array,
    weight: jax.Array,
    *,
    shifts: int = 1,
) -> ShiftedPairs:
    """Each clip with its own sound, then with the sounds of the next clips.

    A neighbour cut from the same video is no mismatch, and gets weight 0. On several
    devices a shift moves a few rows per device; whole clips never travel. Only the
    fusion runs on more than b pairs, so several shifts cost little and make the
    gradient less noisy.

    Args:
        video: Frame embeddings, [b, d].
        audio: Sound embeddings, [b, d].
        video_id: int [b]; equal where clips come from the same video.
        weight: float32 [b]; 0 for rows that only fill up the batch.
        shifts: Mismatched sounds per clip, at least 1 and less than b.

    Returns:
        `ShiftedPairs`; mismatched pairs weigh as much in sum as matching ones, if there
        are any.

    Raises:
        ValueError: `shifts` is out of range. Raised while tracing.
    """
    b = video.shape[0]
    if not 1 <= shifts < b:
        raise ValueError(
            f"shifts must be at least 1 and less than the {b} clips, got {shifts}."
        )
    negatives = []
    for shift in range(1, shifts + 1):
        different = (video_id != jnp.roll(video_id, -shift)).astype(jnp.float32)
        negatives.append(weight * jnp.roll(weight, -shift) * different)
    # Where neighbours share a video, the other mismatches count for more.
    negative = jnp.concatenate(negatives)
    negative = negative * (jnp.sum(weight) / jnp.maximum(jnp.sum(negative), 1e-6))
    rolled = [jnp.roll(audio, -shift, axis=0) for shift in range(1, shifts + 1)]
    matches = jnp.arange((1 + shifts) * b) < b
    return ShiftedPairs(
        video=jnp.tile(video, (1 + shifts, 1)),
        audio=jnp.concatenate([audio, *rolled]),
        matches=matches.astype(jnp.float32),
        weight=jnp.concatenate([weight, negative]),
    )


def avc_bce(logits: jax.Array, matches: jax.Array) -> jax.Array:
    """Binary cross-entropy of the correspondence, in nats, one value per pair.

    Two logits per pair, as in the published networks, are reduced to their difference,
    which gives exactly the two-class softmax cross-entropy. Computed in float32 in the
    form max(t, 0) - t y + log(1 + e^-|t|), finite for finite log odds. Chance: ln 2.

    Args:
        logits: [b], the log odds of a match; or [b, 2], (mismatch, match).
        matches: [b], 1 where picture and sound belong together, else 0.

    Returns:
        float32 [b].

    Raises:
        ValueError: shapes do not fit. Raised while tracing.
    """
    logits = logits.astype(jnp.float32)  # a difference of halves would be rounded
    if logits.ndim == 2 and logits.shape[1] == 2:
        logits = logits[:, 1] - logits[:, 0]
    if logits.shape != matches.shape:
        raise ValueError(
            f"logits must be [b] or [b, 2] with matches [b], got logits "
            f"{logits.shape} and matches {matches.shape}."
        )
    t = logits
    y = matches.astype(jnp.float32)
    return jnp.maximum(t, 0.0) - t * y + jnp.log1p(jnp.exp(-jnp.abs(t)))
