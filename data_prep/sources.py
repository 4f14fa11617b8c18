"""Which files to prepare, what they are called, and what their labels are."""

import csv
import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from visxp_jax.errors import VisxpError
from visxp_jax.media import printable

# Endings of what lies beside videos: subtitles, descriptions, pictures, checksums.
BESIDE = frozenset(
    (
        *(".srt", ".vtt", ".ass", ".txt", ".md", ".nfo", ".html", ".pdf", ".log"),
        *(".xml", ".json", ".yaml", ".yml", ".csv", ".xlsx", ".docx", ".edl", ".xmp"),
        *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".md5", ".sha1", ".sha256"),
    )
)


class Source(NamedTuple):
    """One input file."""

    path: Path
    name: str  # path within the folder, with forward slashes, valid UTF-8
    label: str  # '' if none
    num_bytes: int
    mtime_ns: int

    @property
    def key(self) -> str:
        """A short name for files about this one."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:24]

    @property
    def hidden(self) -> bool:
        """Whether its name begins with a dot: caches, half copies and the like."""
        return is_hidden(self.name)


def is_hidden(name: str) -> bool:
    """Of a file as the manifest names it."""
    return name.rpartition("/")[2].startswith(".")


def source_of(path: Path, name: Path | None = None) -> Source:
    """A file without a label, by the name it is to have (default: its path).

    A file that is not there has size 0; it is whoever reads it that complains.
    """
    text = os.fsencode((name or path).as_posix()).decode("utf-8", "backslashreplace")
    try:
        stat = path.stat()
    except OSError:
        return Source(path, text, "", 0, 0)
    return Source(path, text, "", stat.st_size, stat.st_mtime_ns)


def path_of(folder: Path, name: str) -> Path:
    """Where the file of a `Source.name` lies; names of odd bytes are turned back."""
    as_read = folder / name
    if os.path.exists(as_read):  # no error, should the name be too long
        return as_read
    odd_bytes = re.sub(
        rb"\\x([89a-f][0-9a-f])", lambda m: bytes.fromhex(m[1].decode()), name.encode()
    )
    return folder / os.fsdecode(odd_bytes)


def address_of(folder: Path, name: str) -> str:
    """URL of the file of a `Source.name`, for links; none if it is not there."""
    path = path_of(folder, name)
    return path.as_uri() if os.path.isfile(path) else ""


def find_sources(
    videos: Path, *, labels: Path | None, leave_out: Collection[Path]
) -> list[Source]:
    """Everything under a folder, sorted by name.

    What cannot be used is listed too, so that the manifest says what became of it:
    links to nothing or to folders, hidden files, hidden folders as one, folders that
    may not be read.

    Args:
        videos: Folder, searched with its subfolders.
        labels: Csv with columns `file` and `label`; `file` as in the manifest. Without
            it the subfolder is the label, such as `bell/small`. Rows that name no file
            are reported on standard error.
        leave_out: Real paths of folders not to search, should they lie in `videos`.

    Raises:
        VisxpError: no such folder, no file in it, two files of one name, or labels that
            cannot be read, give a file two labels or name none of the files.
    """
    if not videos.is_dir():
        raise VisxpError(
            f"VIDEOS must be a folder, got {printable(videos)}, which is "
            f"{'a file' if videos.exists() else 'missing'}."
        )
    by_file = None if labels is None else _read_labels(labels)
    found: list[Source] = []

    def add(path: Path) -> None:
        source = source_of(path, path.relative_to(videos))
        if by_file is None:
            label = source.name.rpartition("/")[0]
        else:
            label = by_file.get(source.name, "")
        found.append(source._replace(label=label))

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == videos:
            raise VisxpError(f"VIDEOS may not be read, got {printable(videos)}.")
        add(Path(error.filename))

    for folder, subfolders, files in os.walk(videos, onerror=unreadable):
        inside = [
            name
            for name in subfolders
            if Path(os.path.realpath(Path(folder, name))) not in leave_out
        ]
        closed = [
            name
            for name in inside
            if name.startswith(".") or Path(folder, name).is_symlink()
        ]
        subfolders[:] = sorted(set(inside) - set(closed))
        for file in files + closed:
            if Path(folder, file) != labels:
                add(Path(folder, file))
    twice = [n for n, count in Counter(s.name for s in found).items() if count > 1]
    if twice:  # bytes that are no UTF-8, and a name that spells them out
        raise VisxpError(
            f"file names must differ as text, got two that read {twice[0]!r}; rename "
            "one."
        )
    if not found:
        raise VisxpError(f"VIDEOS must hold files, got {printable(videos)}: empty.")
    if by_file is not None:
        seen = [source for source in found if not source.hidden]
        stray = sorted(by_file.keys() - {source.name for source in seen})
        if not any(source.label for source in seen):
            raise VisxpError(
                f"labels must name files of {printable(videos)} by their path within "
                f"it, got {len(by_file)} rows of {printable(labels or videos)} that "
                "name none."
            )
        if stray:
            print(
                f"note: {len(stray)} of {len(by_file)} rows of "
                f"{printable(labels or videos)} name no file of {printable(videos)}, "
                f"the first {printable(Path(stray[0]))}",
                file=sys.stderr,
            )
    return sorted(found, key=lambda source: source.name)


def find_videos(paths: Sequence[Path], out: Path) -> list[Source]:
    """The videos of a command line, by absolute path.

    Args:
        paths: Files, and folders that are searched with their subfolders; what lies
            beside videos there by its ending (`BESIDE`) is left out.
        out: Not searched.

    Raises:
        VisxpError: there is none, a folder is empty, unreadable or `out`, or two
            names read the same.
    """
    found: dict[Path, Source] = {}
    ours = {Path(os.path.realpath(out))}
    for path in map(Path, map(os.path.abspath, paths)):
        inside = [path]
        if path.is_dir():
            if Path(os.path.realpath(path)) in ours:
                raise VisxpError(
                    f"--out must not be a folder of VIDEOS itself, got "
                    f"{printable(path)}; a subfolder of it will do."
                )
            sources = find_sources(path, labels=None, leave_out=ours)
            inside = [
                source.path
                for source in sources
                if not source.hidden and source.path.suffix.lower() not in BESIDE
            ]
        found |= {file: source_of(file) for file in inside}
    if not found:
        raise VisxpError(
            "VIDEOS must hold a file that is no text, picture or hidden, got none."
        )
    names = Counter(source.name for source in found.values())
    if twice := [name for name, count in names.items() if count > 1]:
        # bytes that are no UTF-8, and a name that spells them out
        raise VisxpError(f"VIDEOS must differ as text, got two that read {twice[0]!r}.")
    return list(found.values())


def fingerprint(sources: list[Source]) -> str:
    """Changes when files, their sizes or their labels change; not by hidden ones."""
    digest = hashlib.sha256()
    for source in sources:
        if source.hidden:
            continue
        row = (source.name, source.num_bytes, source.label)
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _read_labels(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if not {"file", "label"} <= set(columns):
                raise VisxpError(
                    f"labels must have the columns file and label, got "
                    f"{', '.join(columns) or 'none'} in {printable(path)}."
                )
            by_file: dict[str, str] = {}
            for row in reader:
                file_name, label = row["file"], (row["label"] or "").strip()
                if file_name is None:
                    raise VisxpError(
                        f"labels must have a file in every row, got none in line "
                        f"{reader.line_num} of {printable(path)}."
                    )
                if by_file.setdefault(file_name, label) != label:
                    raise VisxpError(
                        f"labels must give a file one label, got "
                        f"{by_file[file_name]!r} and {label!r} for {file_name!r} in "
                        f"{printable(path)}."
                    )
            return by_file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VisxpError(
            f"labels must be a csv in UTF-8 that can be read, got {printable(path)}: "
            f"{error}."
        ) from error
