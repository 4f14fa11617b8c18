"""Foreign files are read in worker processes, which may crash, hang or eat memory.

Loads no jax, nor do the workers. What comes back is told apart by its type: a text says
why there is none.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data_prep.pool import Beat, Failure, run_isolated
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.container import MediaError
from visxp_jax.errors import VisxpError
from visxp_jax.search.reading import Example, read_example

# A file of which nothing more is read for so long is given up.
TIMEOUT_S = 60.0
# So is one that takes so long altogether: its second may be hours from its start.
LIMIT_S = 120.0

T = TypeVar("T")


class ExampleTask(NamedTuple):
    """A file to search by."""

    path: Path
    at_s: float
    size_px: int
    spectrogram: str


def example_of(task: ExampleTask, beat: Beat) -> Example | str:
    """Runs in a worker."""
    try:
        return read_example(
            task.path,
            task.at_s,
            size_px=task.size_px,
            spectrogram=PRESETS[task.spectrogram],
            on_second=beat,
        )
    except MediaError as error:
        return error.reason


def isolated(function: Callable[[Any, Beat], T | str], task: Any) -> T:
    """What a worker makes of one task.

    Raises:
        VisxpError: says why there is none.
    """
    until = time.monotonic() + LIMIT_S
    results = run_isolated(
        function,
        [task],
        timeout_s=TIMEOUT_S,
        workers=1,
        stopped=lambda: time.monotonic() > until,
    )
    done = [result for _, result in results]
    if not done:
        raise VisxpError(
            f"this second takes more than {LIMIT_S:g} s to read; take an earlier one, "
            "or cut out the part that matters."
        )
    (result,) = done
    if isinstance(result, Failure):
        raise VisxpError(f"this file cannot be read: {result.reason}")
    if isinstance(result, str):
        raise VisxpError(f"this file cannot be used: {result}")
    return result
