"""One video as a folder of VisXP, which appears only when it is whole."""

import json
import os
import shutil
import tarfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visxp_jax import __version__
from visxp_jax.audio.spectrogram import Spectrogram, visxp_at
from visxp_jax.media import (
    MIN_SOUND_SHARE,
    PARTIAL_SHARE,
    MediaError,
    printable,
)
from visxp_jax.production.arrays import pickled_dict
from visxp_jax.production.files import read_bytes
from visxp_jax.production.folder import SHOTS, TAR_DAMAGE, TIMES
from visxp_jax.production.keyframes import Segments, Window, by_seconds, by_shots

# Late, as elsewhere: that package is above this one.
if TYPE_CHECKING:
    from data_prep.pool import Beat, Failure
    from data_prep.sources import Source

PROVENANCE = "provenance.json"
MAX_PROVENANCE_BYTES = 2**20
ARCHIVE = "visxp_prep__{}.tar.gz"  # as production names it
METHODS = {"shots": by_shots, "seconds": by_seconds}
UNFINISHED = ".{}.partial"
FOLDER = "folder"  # within what is unfinished
MADE_WITH = ("scenedetect-headless", "opencv-python-headless", "av", "numpy")


class Task(NamedTuple):
    """What a worker needs to know of one video.

    Attributes:
        source: The video.
        folders: Where its folder goes.
        keyframes: A key of `METHODS`.
        rates_hz: Of the spectrograms.
        archive: Whether to write a tar.gz in place of the folder.
    """

    source: "Source"
    folders: Path
    keyframes: str
    rates_hz: tuple[int, ...]
    archive: bool

    @property
    def name(self) -> str:
        """Production's source id: the file's name without its last ending."""
        return self.source.path.stem

    @property
    def target(self) -> Path:
        """What appears once it is whole."""
        name = ARCHIVE.format(self.name) if self.archive else self.name
        return self.folders / name

    @property
    def unfinished(self) -> Path:
        """What is there until then; hidden from who looks for folders."""
        return self.folders / UNFINISHED.format(self.source.key)

    @property
    def inputs(self) -> dict[str, Any]:
        """By which a later call knows that there is nothing to do."""
        return {
            "source": {
                "name": printable(Path(self.source.path.name)),
                "num_bytes": self.source.num_bytes,
                "mtime_ns": self.source.mtime_ns,
            },
            "options": {"keyframes": self.keyframes, "rates_hz": list(self.rates_hz)},
        }


def read_provenance(task: Task) -> dict[str, Any] | None:
    """What made the folder or archive that is there; None if it is none of ours."""
    try:
        if task.archive:
            # It is the first in it: nothing else is unpacked.
            with tarfile.open(task.target, "r|gz") as tar:
                first = tar.next()
                file = None if first is None else tar.extractfile(first)
                text = b"" if file is None else file.read(MAX_PROVENANCE_BYTES)
        else:
            text = read_bytes(task.target / PROVENANCE, MAX_PROVENANCE_BYTES)
        found = json.loads(text)
    except (OSError, *TAR_DAMAGE):
        return None
    return found if isinstance(found, dict) and "visxp_jax" in found else None


def write_folder(task: Task, beat: "Beat") -> "dict[str, Any] | Failure":
    """Write the folder of one video; runs in a worker.

    Returns:
        What is in its provenance.json, or why the file cannot be used.
    """
    from data_prep.pool import Failure

    shutil.rmtree(task.unfinished, ignore_errors=True)  # of a call that was killed
    try:
        about = _write(task, beat)
        _publish(task)
    except MediaError as error:
        return Failure(error.reason, None)
    finally:
        shutil.rmtree(task.unfinished, ignore_errors=True)
    return about


def _write(task: Task, beat: "Beat") -> dict[str, Any]:
    folder, segments = task.unfinished / FOLDER, Segments()
    for part in ("keyframes", "spectrograms", "metadata"):
        (folder / part).mkdir(parents=True)
    recipes = [visxp_at(rate) for rate in task.rates_hz]
    times_ms: list[int] = []
    counts = [dict.fromkeys(("written", "padded", "missing"), 0) for _ in recipes]
    method = METHODS[task.keyframes]
    for keyframe in method(task.source.path, task.rates_hz, segments, beat):
        times_ms.append(keyframe.time_ms)
        path = folder / "keyframes" / f"{keyframe.time_ms}.jpg"
        path.write_bytes(keyframe.jpeg)
        nothing = [(np.zeros(0, np.int16), 0)] * len(recipes)
        windows = keyframe.windows or nothing
        for recipe, window, count in zip(recipes, windows, counts, strict=True):
            spectrogram = spectrogram_of(recipe, window)
            if spectrogram is None:
                count["missing"] += 1
                continue
            count["written"] += 1
            count["padded"] += window[1] < (1 - PARTIAL_SHARE) * recipe.rate_hz
            name = f"{keyframe.time_ms}_{recipe.rate_hz}.npz"
            (folder / "spectrograms" / name).write_bytes(spectrogram)
    (folder / TIMES).write_text(str(times_ms), encoding="ascii")
    (folder / SHOTS).write_text(str(segments.shots), encoding="ascii")
    report = segments.report
    about = {
        "visxp_jax": __version__,
        **{name: _version(name) for name in MADE_WITH},
        **task.inputs,
        "video_stream": report.video_stream,
        "audio_stream": report.audio_stream,
        "seconds": report.seconds,
        "keyframes": len(times_ms),
        "shots": len(segments.shots),
        "spectrograms": dict(zip(map(str, task.rates_hz), counts, strict=True)),
        "frames": report.frames,
        "faults": report.faults,
        "leaps": report.leaps,
        "damaged_seconds": report.dropped,
    }
    text = json.dumps(about, indent=2) + "\n"
    (folder / PROVENANCE).write_text(text, encoding="utf-8")
    return about


def spectrogram_of(recipe: Spectrogram, window: Window) -> bytes | None:
    """The npz of a second of sound as production writes it.

    Args:
        recipe: From `visxp_at`.
        window: Its samples, zeros where there were none, and how many there were.

    Returns:
        float32 [1, bands, frames] in a dict; None if less than half of it was there.
    """
    samples, filled = window
    if filled < MIN_SOUND_SHARE * recipe.rate_hz:
        return None
    log_mel = recipe.log_mel(samples.astype(np.float32) / 32_768)
    return pickled_dict({"audio": log_mel[None]})


def _publish(task: Task) -> None:
    """Put it in its place; what was there from another call goes."""
    made = task.unfinished / FOLDER
    if task.archive:
        made = task.unfinished / "archive"
        _pack(task, made)
    # Once for hundreds of files: after a power cut none of them may be half there.
    os.sync()
    if task.target.is_dir():
        task.target.rename(task.unfinished / "old")
    made.replace(task.target)


def _pack(task: Task, archive: Path) -> None:
    """All of the folder, its provenance first."""

    def of_nobody(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    # Most of it is JPEG: higher levels take long for nothing.
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for part in (PROVENANCE, "keyframes", "spectrograms", "metadata"):
            place = f"{task.name}/{part}"
            tar.add(task.unfinished / FOLDER / part, place, filter=of_nobody)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
