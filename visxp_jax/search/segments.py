"""One segment of an index on disk: what was added at once, and never changes.

000001/rows.parquet      a row for each clip, and which feature files they are of
000001/thumbnails.arrow  their JPEGs
000001/video.npy         their vectors, float16 [clips, d]; audio.npy likewise
000001/video.usearch     a graph of these, see `approximate`; may come later
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import DAMAGED, MODALITIES, PLAIN
from visxp_jax.search.manifest import Segment

GRAPH = "{}.usearch"
ROWS, THUMBNAILS = "rows.parquet", "thumbnails.arrow"
SCHEMA = pa.schema([field for field in PLAIN if field.name != "thumbnail"])
COLUMNS = tuple(SCHEMA.names)
STAMPS = b"stamps"  # of feature files, by the videos in them
# Feature files are put together to segments of so many clips or a few more: a segment
# is in memory while it is written, and there should be few.
CLIPS_PER_SEGMENT = 2**18


class Rows(NamedTuple):
    """Clips of one segment, those that count.

    Attributes:
        collection: That they belong to.
        table: A row for each clip, see `COLUMNS`.
        stored: Where these clips are among all that the segment was written with.
        vectors: float16 [written, d] by modality, as the encoders give them, of all
            that it was written with; on the disk until they are looked at.
        thumbnails: JPEGs of the same, likewise.
        folder: Of the segment.
        stamp: No other segment has it, nor one of another index in this place.
    """

    collection: str
    table: pa.Table
    stored: np.ndarray
    vectors: dict[str, np.ndarray]
    thumbnails: pa.ChunkedArray
    folder: Path
    stamp: str

    def vectors_of(self, modality: str) -> np.ndarray:
        """Those of the clips that count, float16 [n, d]."""
        x = self.vectors[modality]
        return x if len(self.stored) == len(x) else x[self.stored]


def read(folder: Path, segment: Segment, *, vectors: bool) -> Rows:
    """The clips that count.

    Raises:
        VisxpError: a file is missing or damaged.
    """
    try:
        found = (folder / ROWS).stat()
        table = pq.read_table(folder / ROWS, page_checksum_verification=True)
        table = table.select(list(COLUMNS)).cast(SCHEMA)
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in (MODALITIES if vectors else ())
        }
        with pa.memory_map(os.fspath(folder / THUMBNAILS)) as file:
            thumbnails = pa.ipc.open_file(file).read_all()["thumbnail"]
        thumbnails.validate(full=True)  # its offsets are trusted from here on
    except DAMAGED as error:
        raise VisxpError(f"{folder} is damaged: {error}.") from error
    every = (table, thumbnails, *arrays.values())
    if any(len(x) != segment.rows for x in every):
        raise VisxpError(f"{folder} must have {segment.rows} rows; it is damaged.")
    stored = np.arange(segment.rows)
    if segment.deleted:
        gone = set(segment.deleted)
        paths = table["path"].to_pylist()
        stored = np.flatnonzero([path not in gone for path in paths])
        table = table.take(stored)
    stamp = f"{folder} {found.st_ino} {found.st_mtime_ns}"
    what = table, stored, arrays, thumbnails, folder, stamp
    return Rows(segment.collection, *what)


def stamps_of(folder: Path) -> dict[str, list[str]]:
    """Of the feature files that it was written from, with all the videos in them.

    Raises:
        VisxpError: it is missing or damaged.
    """
    path = folder / ROWS
    try:
        return json.loads((pq.read_schema(path).metadata or {})[STAMPS])
    except DAMAGED as error:
        raise VisxpError(f"{path} is damaged: {error}.") from error


def write(
    folder: Path,
    table: pa.Table,
    vectors: dict[str, np.ndarray],
    stamps: dict[str, list[str]],
) -> None:
    """Write one, and wait until it is on the disk.

    Args:
        folder: That is not there yet.
        table: A row for each clip, with its thumbnail.
        vectors: [n, d] by modality.
        stamps: See `stamps_of`.
    """
    folder.mkdir()
    thumbnails = table.select(["thumbnail"])
    rows = table.select(COLUMNS).replace_schema_metadata({STAMPS: json.dumps(stamps)})
    pq.write_table(rows, folder / ROWS, write_page_checksum=True)
    with (
        pa.OSFile(os.fspath(folder / THUMBNAILS), "wb") as file,
        pa.ipc.new_file(file, thumbnails.schema) as writer,
    ):
        writer.write_table(thumbnails)
    for modality, x in vectors.items():
        np.save(folder / f"{modality}.npy", x, allow_pickle=False)
    for file in folder.iterdir():
        sync(file)
    sync(folder)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
