"""What to search for, as vectors."""

from pathlib import Path

import jax
import numpy as np

from visxp_jax.search.isolated import ExampleTask, example_of, isolated
from visxp_jax.search.reading import Example
from visxp_jax.weights import Trained


def vectors_of(trained: Trained, path: Path, at_s: float) -> dict[str, np.ndarray]:
    """What can be seen and heard in a file, float32 [d] by 'video' and 'audio'.

    Args:
        trained: From `load_weights`.
        path: Of a picture, a sound or a video.
        at_s: In the second that this time is in; of no meaning for pictures.

    Raises:
        VisxpError: the file cannot be used, or ends before.
    """
    encoder = trained.encoder
    task = ExampleTask(path, at_s, encoder.size_px, encoder.spectrogram)
    return encoded(trained, isolated(example_of, task))


def encoded(trained: Trained, example: Example) -> dict[str, np.ndarray]:
    """Vectors of what there is of one clip, float32 [d] by 'video' and 'audio'."""
    size = trained.encoder.size_px
    frame, log_mel = example
    there = {"video": frame is not None, "audio": log_mel is not None}
    if frame is None:
        frame = np.zeros((size, size, 3), np.uint8)
    if log_mel is None:
        log_mel = np.zeros(trained.spectrogram.shape, np.float32)
    # As stored for training and extraction.
    sound = log_mel.astype(np.float16)
    embed = jax.jit(trained.model.embed, static_argnames="train")
    (video, audio), _ = embed(
        trained.params, trained.model_state, frame[None], sound[None], train=False
    )
    found = {"video": np.asarray(video)[0], "audio": np.asarray(audio)[0]}
    return {name: x for name, x in found.items() if there[name]}
