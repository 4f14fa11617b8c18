"""What VisXP's workers exchange: folders of keyframes, spectrograms and metadata.

    keyframes/{ms}.jpg                              a picture at each time
    spectrograms/{ms}_{rate}.npz                    the second of sound around it
    metadata/shot_boundaries_timestamps_ms.txt      [(start, end), ...]

or the same in a tar.gz.
"""

import ast
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from visxp_jax.errors import VisxpError
from visxp_jax.production.arrays import read_pickled_dict
from visxp_jax.production.settings import AudioSettings, Normalisation

# Of an archive.
MAX_MEMBERS = 500_000
MAX_ARCHIVE_BYTES = 64 * 2**30
MAX_PIXELS = 8192 * 4608
MAX_METADATA_BYTES = 16 * 2**20
SHOTS = PurePosixPath("metadata/shot_boundaries_timestamps_ms.txt")
NO_SHOT = (-1, -1)
KINDS = {"keyframes": ".jpg", "spectrograms": ".npz", "metadata": ".txt"}


@dataclass(frozen=True)
class Folder:
    """What is in a folder; files themselves are read later.

    Attributes:
        keyframes: Paths by time in ms, in the order of time.
        spectrograms: Paths by (time in ms, samples per second).
        shots: int64 [shots, 2], first and last ms.
    """

    keyframes: dict[int, Path]
    spectrograms: dict[tuple[int, int], Path]
    shots: np.ndarray

    def shot_at(self, time_ms: int) -> tuple[int, int]:
        """The first shot that a time is in, or `NO_SHOT`."""
        hits = (self.shots[:, 0] <= time_ms) & (time_ms <= self.shots[:, 1])
        if not hits.any():
            return NO_SHOT
        first, last = self.shots[np.argmax(hits)].tolist()
        return first, last


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """A folder, or an archive of one, which is unpacked for the while.

    Raises:
        VisxpError: it is neither, has no keyframes or shots, a name that is no time, or
            is over a limit.
    """
    if path.is_dir():
        yield read_folder(path)
        return
    with tempfile.TemporaryDirectory(prefix="visxp-folder-") as scratch:
        unpack(path, Path(scratch))
        yield read_folder(Path(scratch))


def name_of(path: Path) -> str:
    """Of a folder or archive without its endings: production's source id."""
    name = path.resolve().name
    if not path.is_dir():
        for ending in (".gz", ".tgz", ".tar"):
            name = name.removesuffix(ending)
    return name


def unpack(archive: Path, into: Path) -> None:
    """The known files of an archive, wherever in it their folders are.

    Nothing else is written: no links, devices, or paths that lead elsewhere.

    Args:
        archive: tar, compressed or not.
        into: An empty folder.

    Raises:
        VisxpError: it cannot be read, is damaged, or over a limit.
    """
    total = 0
    try:
        with tarfile.open(archive, "r|*") as tar:
            for count, member in enumerate(tar, start=1):
                if count > MAX_MEMBERS:
                    raise _archive(archive, f"over the limit of {MAX_MEMBERS:,} files")
                place = _place(member)
                if place is None:
                    continue
                total += member.size
                if total > MAX_ARCHIVE_BYTES:
                    raise _archive(
                        archive, f"over the limit of {MAX_ARCHIVE_BYTES:,} bytes"
                    )
                source = tar.extractfile(member)
                assert source is not None  # it is a file
                target = into / place
                target.parent.mkdir(exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (tarfile.TarError, EOFError) as error:
        raise _archive(archive, f"not readable as one: {error}") from error
    except OSError as error:
        raise _archive(archive, error.strerror or str(error)) from error


def _place(member: tarfile.TarInfo) -> PurePosixPath | None:
    """Where a file of an archive belongs; None for what is no part of such a folder."""
    parts = PurePosixPath(member.name).parts[-2:]
    if not member.isreg() or len(parts) < 2:
        return None
    kind, name = parts
    known = KINDS.get(kind) == PurePosixPath(name).suffix
    return PurePosixPath(kind, name) if known and name != ".." else None


def _archive(path: Path, why: str) -> VisxpError:
    return VisxpError(
        f"{os.fspath(path)!r} must be a folder of keyframes, or a tar.gz of one: {why}."
    )


def read_folder(path: Path) -> Folder:
    """What is in a folder.

    Raises:
        VisxpError: see `opened`.
    """
    keyframes = {
        _time(file, file.stem): file for file in (path / "keyframes").glob("*.jpg")
    }
    if not keyframes:
        raise VisxpError(f"{path} must have keyframes/*.jpg, but has none.")
    spectrograms = {}
    for file in (path / "spectrograms").glob("*.npz"):
        spectrograms[time_and_rate(file)] = file
    times = sorted(keyframes)
    return Folder(
        keyframes={time: keyframes[time] for time in times},
        spectrograms=spectrograms,
        shots=read_shots(path / SHOTS, times[-1]),
    )


def time_and_rate(spectrogram: Path) -> tuple[int, int]:
    """(ms of the middle, samples per second) that a file's name says.

    Raises:
        VisxpError: it says neither.
    """
    time, _, rate = spectrogram.stem.partition("_")
    return _time(spectrogram, time), _time(spectrogram, rate)


def _time(file: Path, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise VisxpError(
            f"{os.fspath(file)!r} must be named by its time in whole ms, as "
            "keyframes/1500.jpg and spectrograms/1500_24000.npz."
        )
    return int(text)


def read_shots(path: Path, last_ms: int) -> np.ndarray:
    """A list of (start, end) in ms, read as literals.

    An empty list, which detectors write where there is no cut, is one shot.

    Args:
        path: Of the file.
        last_ms: Where that shot ends.

    Returns:
        int64 [shots, 2].

    Raises:
        VisxpError: it cannot be read, or holds anything else.
    """
    try:
        if path.stat().st_size > MAX_METADATA_BYTES:
            raise VisxpError(f"{path} must be at most {MAX_METADATA_BYTES:,} bytes.")
        found = ast.literal_eval(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise VisxpError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if found == []:
        return np.array([[0, last_ms]])
    if not isinstance(found, list) or not all(
        isinstance(shot, tuple | list)
        and len(shot) == 2
        and all(type(ms) is int and abs(ms) < 2**53 for ms in shot)
        for shot in found
    ):
        raise VisxpError(f"{path} must be a list of (start, end) in whole ms.")
    return np.array(found, np.int64)


def read_keyframe(path: Path, size: tuple[int, int], norm: Normalisation) -> np.ndarray:
    """A picture as the network takes it, float32 [h, w, 3].

    Resized by triangles as wide as the shrinkage, whatever its shape was, as
    torchvision's antialiased resize does.

    Args:
        path: Of the JPEG.
        size: (h, w).
        norm: Of its channels.

    Raises:
        VisxpError: it is no picture, or over a limit.
    """
    height, width = size
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VisxpError(
                    f"{os.fspath(path)!r} must have at most {MAX_PIXELS:,} pixels, got "
                    f"{image.width} x {image.height}."
                )
            pixels = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        if isinstance(error, VisxpError):
            raise
        raise VisxpError(f"{os.fspath(path)!r} must be a JPEG: {error}.") from error
    channels = []
    for channel, mean, std in zip(
        pixels.transpose(2, 0, 1), norm.mean, norm.std, strict=True
    ):
        plane = Image.fromarray((channel - np.float32(mean)) / np.float32(std))
        resized = plane.resize((width, height), Image.Resampling.BILINEAR)
        channels.append(np.asarray(resized))
    return np.stack(channels, axis=-1)


def read_spectrogram(path: Path, audio: AudioSettings, silence: float) -> np.ndarray:
    """A spectrogram as the network takes it, float32 [bands, frames].

    One that is short, as from a window over the end of the sound, is filled up with
    silence; the original stops there.

    Args:
        path: Of the npz.
        audio: What the network takes.
        silence: Of the stored values.

    Raises:
        VisxpError: it is none, or of another shape; names what is wrong.
    """
    arrays = read_pickled_dict(path)
    found = arrays.get("audio")
    want = f"(1, {audio.bands}, {audio.frames})"
    if found is None or found.dtype.kind != "f":
        raise VisxpError(f"{os.fspath(path)!r} must have floats {want} named 'audio'.")
    if (
        found.ndim != 3
        or found.shape[:2] != (1, audio.bands)
        or not 1 <= found.shape[2] <= audio.frames
    ):
        raise VisxpError(
            f"{os.fspath(path)!r} must be of shape {want}, got {found.shape}; it was "
            "made with other settings than the network's, such as another rate, window "
            "or number of bands."
        )
    whole = np.full((audio.bands, audio.frames), silence, np.float32)
    whole[:, : found.shape[2]] = found[0]
    if not np.isfinite(whole).all():
        raise VisxpError(f"{os.fspath(path)!r} must be finite, got NaN or infinity.")
    (mean,), (std,) = audio.normalisation.mean, audio.normalisation.std
    return (whole - np.float32(mean)) / np.float32(std)
