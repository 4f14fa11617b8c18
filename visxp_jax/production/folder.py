"""What VisXP's workers exchange: folders of keyframes, spectrograms and metadata.

    keyframes/{ms}.jpg                              a picture at each time
    spectrograms/{ms}_{rate}.npz                    the second of sound around it
    metadata/keyframes_timestamps_ms.txt            [ms, ...]
    metadata/shot_boundaries_timestamps_ms.txt      [(start, end), ...]

or the same in a tar.gz.
"""

import gzip
import io
import os
import re
import reprlib
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from visxp_jax.container import MAX_PIXELS
from visxp_jax.errors import VisxpError
from visxp_jax.production.arrays import MAX_BYTES, read_pickled_dict
from visxp_jax.production.files import Unreadable, read_bytes
from visxp_jax.production.settings import AudioSettings, Normalisation

# Of an archive, unpacked, and of what stands before a file in it.
MAX_MEMBERS = 500_000
MAX_ARCHIVE_BYTES = 16 * 2**30
MAX_HEADER_BYTES = 8 * 2**10
MAX_PICTURE_BYTES = 32 * 2**20
MAX_SCANS = 64  # of a JPEG, each of which goes over all pixels
MAX_METADATA_BYTES = 4 * 2**20
# Largest files of each kind in an archive: those that are over it are never read.
MAX_UNPACKED = {
    ".jpg": MAX_PICTURE_BYTES,
    ".npz": MAX_BYTES,
    ".txt": MAX_METADATA_BYTES,
}
# Of stored values: as far apart as float16 and other decoders put them.
TOLERANCE = 5e-3
SHOTS = PurePosixPath("metadata/shot_boundaries_timestamps_ms.txt")
TIMES = PurePosixPath("metadata/keyframes_timestamps_ms.txt")
NO_SHOT = (-1, -1)
# The first versions of the production system had no second r.
SPECTROGRAMS = ("spectrograms", "spectograms")
KINDS = {"keyframes": ".jpg", **dict.fromkeys(SPECTROGRAMS, ".npz")}
# Holes take no space but when written, and the list of them may be of any length.
SPARSE = "a file in it is sparse; pack it without holes"
ARCHIVES = (".tar.gz", ".tgz", ".tar")
TAR_DAMAGE = (tarfile.TarError, EOFError, zlib.error, ValueError, RecursionError)
# No two \s* may meet: to share out n spaces between them takes n * n steps.
_MS = r"\s*(-?\d{1,12})(?:\.0*)?\s*"
TIME = re.compile(_MS)
PAIR = re.compile(rf"\s*[\[(]{_MS},{_MS}(?:,\s*)?[\])]\s*")


@dataclass(frozen=True)
class Folder:
    """What is in a folder; files themselves are read later.

    Attributes:
        keyframes: Paths by time in ms, in the order of time.
        spectrograms: Paths by (time in ms, samples per second).
        shots: int64 [shots, 2], first and last ms.
        lost: How many keyframes its list has that are not there; None if there is a
            list that cannot be read.
    """

    keyframes: dict[int, Path]
    spectrograms: dict[tuple[int, int], Path]
    shots: np.ndarray
    lost: int | None

    def shot_at(self, time_ms: int) -> tuple[int, int]:
        """The first shot that a time is in, or `NO_SHOT`.

        Both ends of a shot belong to it, as in the original, whose feature files ours
        must equal. So a time at which one shot ends and the next begins is in the
        earlier one: of (0, 2960) and (2960, 3000), which `segment` writes where the
        last shot is short, 2960 is in (0, 2960).
        """
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
    if not path.exists():
        raise VisxpError("no such folder or file.")
    if path.is_dir():
        yield read_folder(path)
        return
    with tempfile.TemporaryDirectory(prefix="visxp-folder-") as scratch:
        unpack(path, Path(scratch))
        try:
            yield read_folder(Path(scratch))
        except VisxpError as error:  # of a file in it, which has a place there alone
            told = str(error).replace(scratch, os.fspath(path))
            raise VisxpError(told) from error


def folders_of(paths: Sequence[Path], out: Path) -> list[Path]:
    """Folders and archives, and all those in a folder that is none itself, sorted.

    What may not be read stays, to be refused where it is opened.

    Args:
        paths: Of the command line.
        out: Left out where it lies in one of them.
    """
    found: list[Path] = []
    for path in paths:
        inside = []
        with suppress(OSError):
            names = os.listdir(path)
            if not {*KINDS, SHOTS.parent.name} & set(names):
                inside = [path / name for name in sorted(names)]
        ours = os.path.realpath(out)
        found += [
            one
            for one in inside
            if not one.name.startswith(".")  # unfinished, or a lock
            and (os.path.isdir(one) or one.name.endswith(ARCHIVES))
            and os.path.realpath(one) != ours
        ] or [path]
    return found


def name_of(path: Path) -> str:
    """Of a folder or archive: production's source id.

    Without endings, and without what production puts before it in archives' names.
    """
    name = os.path.basename(os.path.abspath(path))
    if not os.path.isdir(path):  # false, too, of what may not be looked at
        name = name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")
        name = name.removeprefix("visxp_prep__")
    return name


class _Counted:
    """A stream that ends with an error after so many bytes, compressed or not."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._left = stream, MAX_ARCHIVE_BYTES

    def read(self, size: int = 2**16) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable(f"it is over the limit of {MAX_ARCHIVE_BYTES:,} bytes")
        return data


class _Member(tarfile.TarInfo):
    """A member whose names and extensions are no larger than any need."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.type == tarfile.XGLTYPE:  # each later file would have a copy of it
            raise Unreadable(
                "a header in it is for all of its files (global PAX); pack it without"
            )
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise Unreadable(SPARSE)
        files = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)
        extended = member.type not in files
        if member.size < 0 or (extended and member.size > MAX_HEADER_BYTES):
            raise Unreadable("a header in it is damaged or too large")
        return member

    def _proc_gnusparse_10(self, *_: Any) -> NoReturn:
        # Beneath it the list is read, before anyone is asked.
        raise Unreadable(SPARSE)


def unpack(archive: Path, into: Path) -> None:
    """The known files of an archive, wherever in it their folders are.

    Nothing else is written: no paths that lead elsewhere. A link in place of a known
    file is refused, as a row without it would be missing unsaid.

    Args:
        archive: tar or tar.gz.
        into: An empty folder.

    Raises:
        VisxpError: it cannot be read, is damaged, over a limit, has a link for a known
            file or several such folders, or there is no space.
    """
    names: dict[PurePosixPath, PurePosixPath] = {}  # what was where in the archive
    try:
        if not stat.S_ISREG(archive.stat().st_mode):
            raise Unreadable("it is neither a folder nor a file")
        with archive.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            stream: Any = _Counted(gzip.GzipFile(fileobj=file) if packed else file)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for count, member in enumerate(tar, start=1):
                    if count > MAX_MEMBERS:
                        raise Unreadable(
                            f"it is over the limit of {MAX_MEMBERS:,} files"
                        )
                    # It would keep all of them.
                    tar.members.clear()  # type: ignore[attr-defined]
                    place = _place(member)
                    source = None if place is None else tar.extractfile(member)
                    if place is None or source is None:
                        continue
                    name = PurePosixPath(member.name)
                    if names.setdefault(place, name) != name:
                        raise Unreadable(
                            f"{ascii(str(place))} is in it from several folders; one "
                            "archive is for one"
                        )
                    target = into / place
                    target.parent.mkdir(exist_ok=True)
                    with target.open("wb") as out:
                        shutil.copyfileobj(source, out)
    except OSError as error:
        raise _archive(archive, error.strerror or str(error)) from error
    except (Unreadable, *TAR_DAMAGE) as error:
        why = str(error) if isinstance(error, Unreadable) else "it is damaged"
        raise _archive(archive, why) from error


def _place(member: tarfile.TarInfo) -> PurePosixPath | None:
    """Where a file of an archive belongs; None for what is no part of such a folder."""
    place = PurePosixPath(*PurePosixPath(member.name).parts[-2:])
    known = len(place.parts) == 2 and KINDS.get(place.parts[0]) == place.suffix
    if not known and place not in (SHOTS, TIMES):
        return None
    if member.issparse():
        raise Unreadable(SPARSE)
    if not member.isreg():
        raise Unreadable(
            f"{ascii(str(place))} in it must be a plain file, not a link or a device"
        )
    most = MAX_UNPACKED[place.suffix]
    if member.size > most:
        raise Unreadable(
            f"{ascii(str(place))} in it is over the limit of {most:,} bytes"
        )
    return place


def _archive(path: Path, why: str) -> VisxpError:
    name = ascii(os.fspath(path))
    return VisxpError(
        f"{name} must be a folder of keyframes, or a tar.gz of one: {why}."
    )


def read_folder(path: Path) -> Folder:
    """What is in a folder.

    Raises:
        VisxpError: see `opened`.
    """
    keyframes: dict[int, Path] = {}
    for file in (path / "keyframes").glob("*.jpg"):
        _put(keyframes, _time(file, file.stem), file)
    if not keyframes:
        raise VisxpError(f"{path} must have keyframes/*.jpg, but has none.")
    spectrograms: dict[tuple[int, int], Path] = {}
    for name in SPECTROGRAMS:
        for file in (path / name).glob("*.npz"):
            _put(spectrograms, time_and_rate(file), file)
    times = sorted(keyframes)
    return Folder(
        keyframes={time: keyframes[time] for time in times},
        spectrograms=spectrograms,
        shots=read_shots(path / SHOTS, times[-1]),
        lost=_lost(path / TIMES, keyframes),
    )


def _put(files: dict[Any, Path], key: Any, file: Path) -> None:
    if key in files:
        raise VisxpError(f"{file} and {files[key].name} must be of different times.")
    files[key] = file


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
            f"{ascii(os.fspath(file))} must be named by its time in whole ms, as "
            "keyframes/1500.jpg and spectrograms/1500_24000.npz."
        )
    return int(text)


def read_shots(path: Path, last_ms: int) -> np.ndarray:
    """A list of (start, end) in ms, as Python writes it; it is not run.

    An empty list, which detectors write where there is no cut, is one shot.

    Args:
        path: Of the file.
        last_ms: Where that shot ends.

    Returns:
        int64 [shots, 2].

    Raises:
        VisxpError: it cannot be read, or holds anything else.
    """
    shots = _listed(path, PAIR, "(start, end)")
    return np.array(shots or [(0, last_ms)], np.int64)


def _lost(path: Path, keyframes: Collection[int]) -> int | None:
    """See `Folder`. Features do not hang on the list, as those of production do not."""
    if not os.path.lexists(path):
        return 0
    try:
        listed = {time for (time,) in _listed(path, TIME, "times")}
    except VisxpError:
        return None
    return len(listed - set(keyframes))


def _listed(path: Path, one: re.Pattern, what: str) -> list[tuple[int, ...]]:
    """The numbers of a list, each as the pattern has it."""
    told = f"{path} must be a list of {what} in whole ms"
    try:
        text = read_bytes(path, MAX_METADATA_BYTES).decode("ascii", "replace").strip()
    except Unreadable as error:
        raise VisxpError(f"{told}: {error}.") from error
    found, at, end = [], 1, len(text) - 1
    while at < end and (match := one.match(text, at, end)):
        found.append(tuple(map(int, match.groups())))
        at = match.end()
        if text[at : at + 1] != ",":
            break
        at += 1
    if text[:1] + text[-1:] not in ("[]", "()") or text[at:end].strip():
        raise VisxpError(f"{told}, got {reprlib.repr(text)}.")
    return found


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
        data = read_bytes(path, MAX_PICTURE_BYTES)
        if data.count(b"\xff\xda") > MAX_SCANS:
            raise Unreadable(f"it is over the limit of {MAX_SCANS} scans")
        # Not `Image.open`, which warns of large ones before our limit refuses them.
        with JpegImageFile(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable(
                    f"it is over the limit of {MAX_PIXELS:,} pixels: {image.width} x "
                    f"{image.height}"
                )
            planes = image.convert("RGB").split()
    except Unreadable as error:
        raise _picture(path, str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise _picture(path, "it is damaged, or none") from error
    channels = []
    for plane, mean, std in zip(planes, norm.mean, norm.std, strict=True):
        values = np.asarray(plane, np.float32) / np.float32(255)
        values -= np.float32(mean)
        values /= np.float32(std)
        resized = Image.fromarray(values).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        channels.append(np.asarray(resized))
    return np.stack(channels, axis=-1)


def _picture(path: Path, why: str) -> VisxpError:
    return VisxpError(f"{ascii(os.fspath(path))} must be a JPEG: {why}.")


class Spectrogram(NamedTuple):
    """A spectrogram as the network takes it."""

    values: np.ndarray  # float32 [bands, frames]
    filled: bool  # with silence at the end
    foreign: bool  # VisXP's recipe cannot give it


def read_spectrogram(
    path: Path, audio: AudioSettings, silence: float, empty: np.ndarray
) -> Spectrogram:
    """Read one, and normalise it as the network wants it.

    One that is short, as from a window over the end of the sound, is filled up with
    silence; the original stops there. Bands that no sound can reach tell whether it is
    VisXP's: others, of another scale or tool, have something else there.

    Args:
        path: Of the npz.
        audio: What the network takes.
        silence: Of the stored values.
        empty: bool [bands], those that hold it whatever the sound is.

    Raises:
        VisxpError: it is none, or of another shape; names what is wrong.
    """
    arrays = read_pickled_dict(path)
    found = arrays.get("audio")
    want = f"(1, {audio.bands}, {audio.frames})"
    if found is None or found.dtype.kind != "f":
        got = "nothing of that name" if found is None else str(found.dtype)
        raise VisxpError(
            f"{ascii(os.fspath(path))} must have floats {want} named 'audio', got "
            f"{got}."
        )
    if (
        found.ndim != 3
        or found.shape[:2] != (1, audio.bands)
        or not 1 <= found.shape[2] <= audio.frames
    ):
        raise VisxpError(
            f"{ascii(os.fspath(path))} must be of shape {want}, got {found.shape}; it "
            "was made with other settings than the network's, such as another rate, "
            "window or number of bands."
        )
    whole = np.full((audio.bands, audio.frames), silence, np.float32)
    (mean,), (std,) = audio.normalisation.mean, audio.normalisation.std
    with np.errstate(over="ignore"):  # to infinity, which is refused
        whole[:, : found.shape[2]] = found[0]
        values = (whole - np.float32(mean)) / np.float32(std)
    if not np.isfinite(values).all():
        raise VisxpError(
            f"{ascii(os.fspath(path))} must be finite as float32, got NaN or infinity."
        )
    foreign = not (np.abs(whole[empty] - silence) < TOLERANCE).all()
    return Spectrogram(values, found.shape[2] < audio.frames, foreign)
