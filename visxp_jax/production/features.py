"""Features of the keyframes of many folders, in batches that are filled across them."""

import dataclasses
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.errors import VisxpError
from visxp_jax.production.folder import (
    Folder,
    Spectrogram,
    opened,
    read_keyframe,
    read_spectrogram,
)
from visxp_jax.production.settings import Settings
from visxp_jax.streams import groups

AHEAD = 64  # keyframes that are read, or being read
READERS = 4  # threads, each with a picture in hand
ARCHIVES = 4  # that are unpacked at a time
RECIPE = PRESETS["visxp"]  # of stored spectrograms


class Item(NamedTuple):
    """A keyframe and its second of sound, as the network takes them."""

    time_ms: int
    shot: tuple[int, int]  # first and last ms, or `NO_SHOT`
    image: np.ndarray  # float32 [h, w, 3]
    sound: Spectrogram | None  # None if there is none


class End(NamedTuple):
    """There are no more keyframes of a folder."""

    path: Path
    error: Exception | None  # why it cannot be used
    lost: int | None  # see `Folder`


class FolderFeatures(NamedTuple):
    """Of one folder."""

    rows: np.ndarray  # float32 [keyframes, 3 + 512 or 3 + 1024]
    lost: int | None  # see `Folder`
    missing: int  # spectrograms that are not there: zeros, as for the original
    filled: int  # spectrograms that end early: silence stands for the rest
    foreign: int  # spectrograms that VisXP's recipe cannot give


def features_of(
    items: Iterable[Item | End],
    settings: Settings,
    encode: Callable,
    *,
    batch_size: int,
) -> Iterator[tuple[Path, FolderFeatures | Exception]]:
    """Features of folder after folder, or why there are none.

    Args:
        items: From `read_folders`.
        settings: Of the network.
        encode: From `make_encoder`; it sees batches of one shape, of which the last is
            filled up with zeros.
        batch_size: Keyframes at a time.
    """
    rows: list[np.ndarray] = []  # of the folder that is at hand
    sounds: Counter[str] = Counter()
    for group in groups(items, batch_size, Item):
        keyframes = [item for item in group if isinstance(item, Item)]
        encoded: Iterator[np.ndarray] = iter(())
        if keyframes:
            encoded = iter(_encoded(keyframes, settings, encode, batch_size))
        for item in group:
            if isinstance(item, Item):
                rows.append(next(encoded))
                sounds.update(_told(item.sound))
                continue
            yield item.path, item.error or _finished(rows, item.lost, sounds, settings)
            rows, sounds = [], Counter()


def read_folders(
    paths: Iterable[Path],
    settings: Settings,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[Item | End]:
    """Keyframes of one folder in the order of time, then its end, then the next.

    Args:
        paths: Folders and archives; the next ones are opened while keyframes wait.
        settings: Of the network.
        stopped: Asked now and then whether to give up.
    """
    ahead: deque[tuple[_Reading, Future[Item] | None]] = deque()
    pool = ThreadPoolExecutor(READERS)
    try:
        for job in _jobs(paths, settings, pool):
            ahead.append(job)
            while len(ahead) > AHEAD or _archives(ahead) >= ARCHIVES:
                yield from _result(*ahead.popleft())
            if stopped():
                return
        while ahead and not stopped():
            yield from _result(*ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        for reading, _ in ahead:
            reading.opened.close()


class _Reading:
    """A folder that is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_archive = not os.path.isdir(path)
        self.opened = ExitStack()
        self.error: Exception | None = None  # the first
        self.lost: int | None = 0


def _jobs(
    paths: Iterable[Path], settings: Settings, pool: ThreadPoolExecutor
) -> Iterator[tuple[_Reading, Future[Item] | None]]:
    """Keyframes that are being read; None stands for the end of a folder."""
    for path in paths:
        reading = _Reading(path)
        try:
            folder = reading.opened.enter_context(opened(path))
            check_rates(folder, settings)
            reading.lost = folder.lost
            times_ms = list(folder.keyframes)
            for time_ms in times_ms:
                if reading.error is None:  # else the rest would be read in vain
                    yield reading, pool.submit(read_item, folder, settings, time_ms)
        # One that fails in whatever way must not cost the others their night.
        except Exception as error:
            reading.error = error
        yield reading, None


def _archives(ahead: Iterable[tuple[_Reading, Future[Item] | None]]) -> int:
    """How many are all read, or nearly, and take up room yet."""
    return sum(future is None and reading.is_archive for reading, future in ahead)


def _result(reading: _Reading, future: Future[Item] | None) -> Iterator[Item | End]:
    if future is None:
        reading.opened.close()
        yield End(reading.path, reading.error, reading.lost)
        return
    try:
        item = future.result()
    except Exception as error:
        reading.error = reading.error or error
        return
    if reading.error is None:
        yield item


def read_item(folder: Folder, settings: Settings, time_ms: int) -> Item:
    """One row's input.

    Raises:
        VisxpError: a file of it cannot be used.
    """
    image = read_keyframe(folder.keyframes[time_ms], settings.size, settings.frame)
    audio, sound = settings.audio, None
    if audio is not None:
        path = folder.spectrograms.get((time_ms, audio.rate_hz))
        if path is not None:
            empty = empty_bands(audio.rate_hz, audio.bands)
            sound = read_spectrogram(path, audio, RECIPE.silence, empty)
    return Item(time_ms, folder.shot_at(time_ms), image, sound)


@cache
def empty_bands(rate_hz: int, bands: int) -> np.ndarray:
    """Of VisXP's recipe at any rate, bool [bands]; see `Spectrogram.empty_bands`."""
    return dataclasses.replace(RECIPE, rate_hz=rate_hz, bands=bands).empty_bands


def check_rates(folder: Folder, settings: Settings) -> None:
    """Refuse spectrograms of which none is for this network: not to be taken for none.

    Raises:
        VisxpError: names the rates that there are.
    """
    rates = {rate for _, rate in folder.spectrograms}
    if settings.audio and rates and settings.audio.rate_hz not in rates:
        raise VisxpError(
            f"spectrograms must be of {settings.audio.rate_hz} Hz for this network, "
            f"there are some of {', '.join(map(str, sorted(rates)))} Hz."
        )


def _encoded(
    items: list[Item], settings: Settings, encode: Callable, size: int
) -> np.ndarray:
    """Their rows, float32 [items, 3 + 512 or 3 + 1024]."""
    audio = settings.audio
    image = np.zeros((size, *settings.size, 3), np.float32)
    sound = audio and np.zeros((size, audio.bands, audio.frames), np.float32)
    for i, item in enumerate(items):
        image[i] = item.image
        if sound is not None and item.sound is not None:
            sound[i] = item.sound.values
    vectors = [x for x in encode(image, sound) if x is not None]
    where = np.array([(item.time_ms, *item.shot) for item in items], np.float32)
    return np.concatenate([where, *(x[: len(items)] for x in vectors)], axis=1)


def _told(sound: Spectrogram | None) -> dict[str, int]:
    if sound is None:
        return {"missing": 1}
    return {"filled": int(sound.filled), "foreign": int(sound.foreign)}


def _finished(
    rows: list[np.ndarray], lost: int | None, sounds: Counter[str], settings: Settings
) -> FolderFeatures | VisxpError:
    found = np.stack(rows)
    if not np.isfinite(found).all():
        return VisxpError("features must be finite, got NaN or infinity.")
    missing = sounds["missing"] if settings.audio else 0
    return FolderFeatures(found, lost, missing, sounds["filled"], sounds["foreign"])
