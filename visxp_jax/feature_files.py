"""Features on disk: a Parquet file for each video, and what made it beside it.

    OUT/talk-1f2e3d4c5b6a7988.parquet        a row for each second
    OUT/_talk-1f2e3d4c5b6a7988.json          what made it, and from what

Readers of Parquet take the folder as one table; they leave out what begins with `_`.
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from visxp_jax.atomic import write_whole
from visxp_jax.errors import VisxpError

MODALITIES = ("video", "audio")
ABOUT = b"about"
MAX_STEM = 80
ROWS_PER_GROUP = 512  # held in memory, 8 KB each
# What reading raises where bytes have changed, whichever they are.
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    pa.ArrowException,
)
UNFINISHED = re.compile(r"(?:\.(?P<rows>.+)|_(?P<about>.+)\.json)\.\d+\.tmp")


class ClipRow(NamedTuple):
    """One clip of one video, but for its vectors."""

    path: str
    start_s: float
    end_s: float
    frame_s: float
    has_audio: bool
    silent: bool
    partial: bool
    shot_start_s: float | None = None  # where shots were looked for
    shot_end_s: float | None = None
    agreement: float | None = None  # probability that its sound belongs to its picture
    thumbnail: bytes = b""  # JPEG


TYPES = {
    "path": pa.string(),
    **dict.fromkeys(("start_s", "end_s", "frame_s"), pa.float64()),
    **dict.fromkeys(("has_audio", "silent", "partial"), pa.bool_()),
    **dict.fromkeys(("shot_start_s", "shot_end_s"), pa.float64()),
    "agreement": pa.float32(),
    "thumbnail": pa.binary(),
}
PLAIN = pa.schema([(name, TYPES[name]) for name in ClipRow._fields])


class FeatureFile(NamedTuple):
    """What a feature file holds.

    Attributes:
        table: Columns of `PLAIN`.
        vectors: float16 [n, d] by modality; zeros where there is no sound.
        about: What made it.
    """

    table: pa.Table
    vectors: dict[str, np.ndarray]
    about: dict[str, Any]


def file_name(path: str, key: str) -> str:
    """Of a video's feature file, without its ending: readable, and its own.

    Args:
        path: Of the video.
        key: That no other video has.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    plain = re.sub(r"[^A-Za-z0-9.-]+", "_", stem).strip("._-")[:MAX_STEM]
    return f"{plain or 'video'}-{key[:16]}"


def remove_unfinished(folder: Path, names: Collection[str]) -> None:
    """Remove what a call that was killed has left of feature files.

    Args:
        folder: That they go to; it is listed once, and may hold very many.
        names: Of those that nobody else writes now, from `file_name`.
    """
    for file in os.listdir(folder):
        found = UNFINISHED.fullmatch(file)
        if found and (found["rows"] or found["about"]) in names:
            (folder / file).unlink(missing_ok=True)


class Writer:
    """Writes one feature file, which appears once it is whole."""

    def __init__(self, folder: Path, name: str) -> None:
        """Nothing is written before the first rows.

        Args:
            folder: Where it goes.
            name: From `file_name`.
        """
        self._path = folder / f"{name}.parquet"
        self._json = folder / f"_{name}.json"
        self._unfinished = folder / f".{name}.{os.getpid()}.tmp"
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[ClipRow] = []
        self._vectors: dict[str, list[np.ndarray]] = {}

    def add(self, row: ClipRow, vectors: dict[str, np.ndarray]) -> None:
        """Add a clip, with its vectors [d] by modality."""
        self._rows.append(row)
        for name, vector in vectors.items():
            self._vectors.setdefault(name, []).append(vector)
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        columns: dict[str, Any] = {
            name: pa.array([getattr(row, name) for row in self._rows], TYPES[name])
            for name in ClipRow._fields
        }
        for name, vectors in self._vectors.items():
            x = np.stack(vectors).astype(np.float32)
            columns[name] = pa.FixedSizeListArray.from_arrays(x.ravel(), x.shape[1])
        table = pa.table(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._unfinished,
                table.schema,
                compression="zstd",
                write_page_checksum=True,
            )
        self._writer.write_table(table)
        self._rows, self._vectors = [], {}

    def finish(self, about: dict[str, Any], *, keep: bool = False) -> None:
        """Put it in place; without rows only the JSON, and no older features stay.

        Args:
            about: What made it.
            keep: Where there are no rows, older features stay, and their JSON.
        """
        if self._rows:
            self._flush()
        if keep and self._writer is None and self._path.exists():
            return
        self._json.unlink(missing_ok=True)  # it vouches for what is there
        if self._writer is None:
            self._path.unlink(missing_ok=True)
        else:
            self._writer.add_key_value_metadata({ABOUT.decode(): json.dumps(about)})
            self._writer.close()
            with self._unfinished.open("rb") as file:
                os.fsync(file.fileno())
            self._unfinished.replace(self._path)
        write_whole(self._json, json.dumps(about, indent=2))

    def discard(self) -> None:
        """Leave nothing of what is not finished."""
        if self._writer is not None:
            self._writer.close()
        self._unfinished.unlink(missing_ok=True)


def about_of(path: Path) -> dict[str, Any]:
    """What made a feature file.

    Raises:
        VisxpError: it is none.
    """
    try:
        about = json.loads((pq.read_metadata(path).metadata or {})[ABOUT])
        if "model_sha256" not in about:
            raise KeyError("model_sha256")
    except DAMAGED as error:
        raise _none(path, error) from error
    return about


def columns_of(path: Path, names: list[str] | None = None) -> pa.Table:
    """Columns of a feature file, all if none are named, whose checksums are right.

    Raises:
        VisxpError: it is none, or damaged.
    """
    try:
        return pq.read_table(path, columns=names, page_checksum_verification=True)
    except DAMAGED as error:
        raise _none(path, error) from error


def read(path: Path) -> FeatureFile:
    """A feature file.

    Raises:
        VisxpError: it is none, or a vector does not fit into float16.
    """
    about, table = about_of(path), columns_of(path)
    try:
        plain = (
            table.select(list(ClipRow._fields)).cast(PLAIN).replace_schema_metadata()
        )
        plain.validate(full=True)  # its texts are UTF-8
        if plain["path"].null_count:
            raise ValueError("a row has no path")
        vectors = {}
        for name in MODALITIES:
            column = table[name].combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False)
            with np.errstate(over="ignore"):  # seen below
                vectors[name] = flat.reshape(len(table), -1).astype(np.float16)
    except DAMAGED as error:
        raise _none(path, error) from error
    for name, x in vectors.items():
        if not np.isfinite(x).all():
            raise VisxpError(f"{path}: vectors of {name} must fit into float16.")
    return FeatureFile(plain, vectors, about)


def files_of(paths: Sequence[Path]) -> Iterator[Path]:
    """Feature files by themselves, and those in folders, sorted.

    Raises:
        VisxpError: one is missing, or a folder holds none.
    """
    for path in paths:
        if not path.exists():
            raise VisxpError(
                f"{path} must be what `visxp extract` wrote, a folder or a file of it; "
                "it is missing."
            )
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.glob("[!._]*.parquet"))
        if not found:
            raise VisxpError(f"{path} must hold feature files, *.parquet; it has none.")
        yield from found


def _none(path: Path, error: Exception) -> VisxpError:
    why = " ".join(str(error).split())
    why = why if why.isprintable() else repr(why)[1:-1]  # it may quote the file
    return VisxpError(f"{path} must be a .parquet file from `visxp extract`: {why}.")
