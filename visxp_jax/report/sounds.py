"""The sounds of one video, as a task for a worker; imports little for its sake."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visxp_jax.media import read_sounds


class SoundTask(NamedTuple):
    """Which seconds of which video."""

    path: Path
    seconds: frozenset[int]
    rate_hz: int


def sounds_of(task: SoundTask, beat: Callable[[], None]) -> dict[int, np.ndarray]:
    """Second -> int16 [rate_hz]; `beat` is called for every second passed."""
    return read_sounds(task.path, task.seconds, rate_hz=task.rate_hz, on_second=beat)
