"""Values that cross the borders between packages.

Dimension names, everywhere: `b` batch, `h w` image, `m` spectrogram bands, `f`
spectrogram frames, `d` embedding, `k` clusters, `r` clustering heads, `n` clips.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy or jax array: this module loads neither jax nor flax
PyTree = Any


class Batch(NamedTuple):
    """Clips as the training step sees them; all rows have the same leading size b."""

    frame: Array  # uint8 [b, h, w, 3], RGB
    log_mel: Array  # float16 [b, m, f], normalised by the spectrogram preset
    clip_id: Array  # int32 [b], dense in [0, n) within the split
    video_id: Array  # int32 [b], dense over the data set's videos
    label: Array  # int32 [b], -1 where unknown
    weight: Array  # float32 [b], 0 for rows that only fill up a batch

    @property
    def size(self) -> int:
        """Number of rows b."""
        return self.clip_id.shape[0]


class Features(NamedTuple):
    """What the encoders say of a set of clips, in the order of `clip_id`."""

    clip_id: np.ndarray  # int32 [n]
    video_id: np.ndarray  # int32 [n]
    label: np.ndarray  # int32 [n], -1 where unknown
    video: np.ndarray  # float32 [n, d]
    audio: np.ndarray  # float32 [n, d]
    fused: np.ndarray  # float32 [n, d]


class ClipVectors(NamedTuple):
    """Vectors of all training clips, left on the devices that computed them.

    Rows are split over the mesh's axis 'data', in an order of no meaning.
    """

    clip_id: Array  # int32 [n], -1 in rows that only fill up
    vectors: dict[str, Array]  # 'video', 'audio' or 'fused' -> [n, d]
