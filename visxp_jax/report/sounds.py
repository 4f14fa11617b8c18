"""The sounds of videos, read by workers, for whose sake little is imported."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visxp_jax.media import read_sounds

SOUND_RATE_HZ = 16_000
# A file that gives no second of sound for so long is left out.
TIMEOUT_S = 120.0


class SoundTask(NamedTuple):
    """Which seconds of which video."""

    path: Path
    seconds: frozenset[int]
    rate_hz: int


def sounds_of(task: SoundTask, beat: Callable[[], None]) -> dict[int, np.ndarray]:
    """Second -> int16 [rate_hz]; `beat` is called for every second passed."""
    return read_sounds(task.path, task.seconds, rate_hz=task.rate_hz, on_second=beat)


def read_all(
    wanted: Mapping[Path, Collection[int]],
) -> tuple[dict[tuple[Path, int], np.ndarray], int]:
    """The sounds of some seconds of videos, in processes of their own.

    As in the preparation: a file may have been replaced since by one that crashes,
    hangs or eats memory.

    Args:
        wanted: Seconds by video.

    Returns:
        (int16 [SOUND_RATE_HZ] by video and second, number of videos that cannot be
        read); seconds without sound are left out.
    """
    from data_prep.pool import Failure, run_isolated
    from visxp_jax.progress import progress_bar

    tasks = [
        SoundTask(path, frozenset(seconds), SOUND_RATE_HZ)
        for path, seconds in wanted.items()
    ]
    found, missing = {}, 0
    with progress_bar(total=len(tasks), desc="sounds", unit="file") as bar:
        for task, result in run_isolated(sounds_of, tasks, timeout_s=TIMEOUT_S):
            bar.update()
            if isinstance(result, Failure):
                missing += 1
                continue
            found |= {(task.path, second): wave for second, wave in result.items()}
    return found, missing
