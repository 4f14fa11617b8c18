"""An index on disk: features of files, added and taken out at any time.

    INDEX/index.json          what is in it; what is not named there does not count
    INDEX/segments/000001/    rows.parquet, video.npy, audio.npy: one addition

Each change writes what it needs beside what is there, waits until that is on the disk,
and then replaces index.json in one step: whoever is stopped in between, by a signal or
a power cut, leaves the index as it was before, and what `add` has returned from stays.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from visxp_jax.atomic import write_whole
from visxp_jax.errors import VisxpError
from visxp_jax.train.lock import LOCK, locked

FORMAT = 1
MANIFEST = "index.json"
MODALITIES = ("video", "audio")
COLUMNS = ("path", "start_s", "end_s", "frame_s", "has_audio", "silent", "partial")


@dataclass(frozen=True)
class Segment:
    """What was added at once.

    Attributes:
        name: Of its folder.
        rows: Number of clips.
        collection: That they belong to.
        deleted: Files of which the clips no longer count.
    """

    name: str
    rows: int
    collection: str
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """All that there is.

    Attributes:
        model_sha256: Of the weights that made all vectors; '' if there are none yet.
        next: Number of the next segment.
        segments: In the order in which they were added.
    """

    model_sha256: str = ""
    next: int = 1
    segments: tuple[Segment, ...] = field(default=())


class Rows(NamedTuple):
    """Clips of one segment, those that count.

    Attributes:
        collection: That they belong to.
        table: A row for each clip, see `COLUMNS`.
        vectors: float16 [n, d] by modality, as the encoders give them.
    """

    collection: str
    table: pa.Table
    vectors: dict[str, np.ndarray]


class Store:
    """The index in a folder."""

    def __init__(self, path: Path) -> None:
        """Read what is there; an empty or missing folder is an empty index.

        Raises:
            VisxpError: it is of another kind, or damaged.
        """
        self.path = path
        self.manifest = self._read()

    def _read(self) -> Manifest:
        file = self.path / MANIFEST
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self.path.is_dir() and any(
                name not in (LOCK, "segments") and not name.startswith(MANIFEST)
                for name in os.listdir(self.path)
            ):
                raise VisxpError(
                    f"{self.path} must be an index or empty, but holds other files."
                ) from None
            return Manifest()
        except (OSError, ValueError) as error:
            raise VisxpError(f"{file} is damaged: {error}.") from error
        try:
            if found.pop("format") != FORMAT:
                raise ValueError("it is of another version")
            segments = tuple(
                Segment(**one | {"deleted": tuple(one["deleted"])})
                for one in found.pop("segments")
            )
            return Manifest(segments=segments, **found)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise VisxpError(f"{file} is damaged: {error}.") from error

    def __len__(self) -> int:
        """Number of clips that count."""
        return sum(rows.table.num_rows for rows in self.rows(vectors=False))

    def rows(self, *, vectors: bool = True) -> Iterator[Rows]:
        """Clips that count, segment by segment.

        Raises:
            VisxpError: a file of a segment is missing or damaged.
        """
        for segment in self.manifest.segments:
            yield self._segment(segment, vectors=vectors)

    def _segment(self, segment: Segment, *, vectors: bool) -> Rows:
        folder = self.path / "segments" / segment.name
        try:
            table = pq.read_table(folder / "rows.parquet")
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in (MODALITIES if vectors else ())
            }
        except (OSError, ValueError, pa.ArrowException) as error:
            raise VisxpError(f"{folder} is damaged: {error}.") from error
        if any(len(x) != segment.rows for x in (table, *arrays.values())):
            raise VisxpError(f"{folder} must have {segment.rows} rows; it is damaged.")
        if segment.deleted:
            gone = set(segment.deleted)
            paths = table["path"].to_pylist()
            at = np.flatnonzero([path not in gone for path in paths])
            table = table.take(at)
            arrays = {name: x[at] for name, x in arrays.items()}
        return Rows(segment.collection, table, arrays)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone, and with what others have written meanwhile."""
        with locked(self.path):
            self.manifest = self._read()
            known = {segment.name for segment in self.manifest.segments}
            segments = self.path / "segments"
            segments.mkdir(exist_ok=True)
            for name in os.listdir(segments):
                if name not in known:  # of someone who was stopped
                    shutil.rmtree(segments / name)
            for unfinished in self.path.glob(f"{MANIFEST}.*"):
                unfinished.unlink()
            yield

    def _commit(self, manifest: Manifest) -> None:
        values = {"format": FORMAT, **asdict(manifest)}
        write_whole(self.path / MANIFEST, json.dumps(values, indent=1))
        _sync(self.path)
        self.manifest = manifest

    def add(self, features: Path, collection: str = "") -> int:
        """Take in a feature file; a file that the collection has already is replaced.

        Args:
            features: From `python -m visxp_jax.extract`, parquet.
            collection: That its files belong to.

        Returns:
            Number of clips, once they are safe on the disk.

        Raises:
            VisxpError: the file is no such one, or of other weights than the index.
        """
        table, vectors, sha256 = read_features(features)
        if not table.num_rows:
            return 0
        with self._writing():
            manifest = self.manifest
            if manifest.model_sha256 not in ("", sha256):
                raise VisxpError(
                    f"{features} must be by the weights of {self.path} (sha256 "
                    f"{manifest.model_sha256[:12]}), got {sha256[:12]}: vectors of two "
                    "models cannot be compared; make a new index."
                )
            files = set(table["path"].to_pylist())
            name = f"{manifest.next:06d}"
            self._write_segment(name, table, vectors)
            segments = (
                *self._without(files, {collection}),
                Segment(name, table.num_rows, collection),
            )
            self._commit(Manifest(sha256, manifest.next + 1, segments))
        return table.num_rows

    def _write_segment(
        self, name: str, table: pa.Table, vectors: dict[str, np.ndarray]
    ) -> None:
        folder = self.path / "segments" / name
        folder.mkdir()
        pq.write_table(table, folder / "rows.parquet")
        for modality, x in vectors.items():
            np.save(folder / f"{modality}.npy", x, allow_pickle=False)
        for file in folder.iterdir():
            _sync(file)
        _sync(folder)
        _sync(folder.parent)

    def _without(
        self, files: Iterable[str], collections: Collection[str] | None
    ) -> list[Segment]:
        """Segments in which these files no longer count."""
        files, segments = set(files), []
        for segment in self.manifest.segments:
            if collections is None or segment.collection in collections:
                table = self._segment(segment, vectors=False).table
                gone = files.intersection(table["path"].to_pylist())
                if gone:
                    deleted = tuple(sorted({*segment.deleted, *gone}))
                    segment = replace(segment, deleted=deleted)
            segments.append(segment)
        return segments

    def delete(self, files: Collection[str], collection: str | None = None) -> int:
        """Take files out; their vectors stay on the disk until `compact`.

        Args:
            files: As the column 'path' names them.
            collection: Of this one only; None for all.

        Returns:
            Number of clips that no longer count.

        Raises:
            VisxpError: none of the files is there.
        """
        with self._writing():
            before = len(self)
            where = None if collection is None else {collection}
            segments = tuple(self._without(files, where))
            if segments == self.manifest.segments:
                raise VisxpError(f"{self.path} has none of the {len(files)} files.")
            self._commit(replace(self.manifest, segments=segments))
            return before - len(self)

    def compact(self) -> None:
        """Write what counts anew, a segment for each collection, and drop the rest."""
        with self._writing():
            parts: dict[str, list[Rows]] = {}
            for rows in self.rows():
                if rows.table.num_rows:
                    parts.setdefault(rows.collection, []).append(rows)
            segments, number = [], self.manifest.next
            for collection, each in parts.items():
                table = pa.concat_tables([rows.table for rows in each])
                vectors = {
                    name: np.concatenate([rows.vectors[name] for rows in each])
                    for name in MODALITIES
                }
                self._write_segment(f"{number:06d}", table, vectors)
                segments.append(Segment(f"{number:06d}", len(table), collection))
                number += 1
            old = self.manifest.segments
            self._commit(replace(self.manifest, next=number, segments=tuple(segments)))
            for segment in old:
                shutil.rmtree(self.path / "segments" / segment.name)


def read_features(path: Path) -> tuple[pa.Table, dict[str, np.ndarray], str]:
    """A feature file: columns without vectors, float16 vectors, sha256 of the weights.

    Raises:
        VisxpError: it is no parquet file of `visxp_jax.extract`.
    """
    try:
        table = pq.read_table(path)
        about: Any = json.loads((table.schema.metadata or {})[b"about"])
        sha256 = str(about["model_sha256"])
        plain = table.select(list(COLUMNS)).replace_schema_metadata()
        vectors = {}
        for name in MODALITIES:
            column = table[name].combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False)
            vectors[name] = flat.reshape(len(table), -1).astype(np.float16)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise VisxpError(
            f"{path} must be a .parquet file from `visxp extract`: {error}."
        ) from error
    for name, x in vectors.items():
        if not np.isfinite(x).all():
            raise VisxpError(f"{path}: vectors of {name} must fit into float16.")
    return plain, vectors, sha256


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
