"""Cross-modal contrastive loss: a picture must be nearer to its own sound than others.

Source: van den Oord et al., Representation learning with contrastive predictive coding,
2018, eq. 4 (InfoNCE); across modalities, with the positive the same moment of the
other, Morgado et al., Audio-visual instance discrimination with cross-modal agreement,
2021; the mean of both directions over one batch, Radford et al., Learning transferable
visual models from natural language supervision (CLIP), 2021. Differs from Morgado et
al. in the negatives, which are the rest of the batch and pass gradients, not a memory
bank, and in being a softmax, not a binary loss with an estimated constant; from CLIP in
a temperature that is set, not learnt; from all in that other seconds of one video,
which often show and sound the same, are no negatives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from visxp_jax.losses.directions import directions


class CrossModalNce(NamedTuple):
    """Means over both directions."""

    loss: jax.Array  # float32 [], nats
    accuracy: jax.Array  # float32 [], share whose own is nearer than all negatives


def cross_modal_nce(
    video: jax.Array,
    audio: jax.Array,
    video_id: jax.Array,
    weight: jax.Array,
    *,
    temperature: float,
) -> CrossModalNce:
    """InfoNCE from pictures to sounds and from sounds to pictures, over a batch.

    For row i, with cosines c and its negatives N, the clips of other videos,

        log(1 + sum_{j in N} exp((c_ij - c_ii) / temperature)),

    where the other direction has c_ji. Clips without negatives say nothing and are left
    out of the mean; where none has any, it is 0. Chance: ln(1 + negatives), that is
    ln b for b clips of different videos. On several devices all b cosines of a row are
    taken, wherever their clips lie.

    Args:
        video: Of pictures, in the common space, [b, d]; only directions count. Rows of
            0 have a cosine of 0 to all, and pass no gradient.
        audio: The same of sounds, [b, d].
        video_id: int [b]; equal where clips come from the same video.
        weight: float32 [b]; 0 for rows that only fill up the batch, whose vectors may
            be anything. The mean is weighted, negatives count the same.
        temperature: Above 0; the smaller, the more the nearest negatives count.

    Returns:
        `CrossModalNce`.

    Raises:
        ValueError: shapes do not fit. Raised while tracing.
    """
    b = video.shape[0]
    if video.ndim != 2 or video.shape != audio.shape:
        raise ValueError(
            f"video and audio must be [b, d], of one shape, got {video.shape} and "
            f"{audio.shape}."
        )
    if video_id.shape != (b,) or weight.shape != (b,):
        raise ValueError(
            f"video_id and weight must be [{b}], got {video_id.shape} and "
            f"{weight.shape}."
        )
    real = weight > 0
    # Not even NaN gets from rows that fill up into gradients.
    x, y = (
        directions(jnp.where(real[:, None], z, jnp.zeros_like(z)))
        for z in (video, audio)
    )
    cosine = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    negative = (video_id[:, None] != video_id[None]) & real[:, None] & real[None]
    counted = weight * jnp.any(negative, axis=1).astype(jnp.float32)
    total = jnp.maximum(jnp.sum(counted), 1e-6)
    own = jnp.diagonal(cosine)
    # The own pair is always there, as the 1: no sum is of nothing.
    taken = negative | jnp.eye(b, dtype=bool)

    def direction(nearer: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of how much nearer each is than the own; negatives of a row in the last."""
        each = jax.nn.logsumexp(nearer / temperature, axis=1, where=taken)
        right = jnp.all(jnp.where(negative, nearer < 0, True), axis=1)
        right = right.astype(jnp.float32)
        return jnp.sum(counted * each) / total, jnp.sum(counted * right) / total

    to_sound = direction(cosine - own[:, None])
    to_picture = direction(cosine.T - own[:, None])
    return CrossModalNce(
        loss=(to_sound[0] + to_picture[0]) / 2,
        accuracy=(to_sound[1] + to_picture[1]) / 2,
    )
