"""An index on disk: features of files, added and taken out at any time.

    INDEX/index.json          what is in it; what is not named there does not count
    INDEX/segments/000001/    rows.parquet, thumbnails.arrow, video.npy, audio.npy

Each change writes what it needs beside what is there, waits until that is on the disk,
and then replaces index.json in one step: whoever is stopped in between, by a signal or
a power cut, leaves the index as it was before, and what `add` has returned from stays.
A reader that finds its segments gone reads index.json again, and goes on with what it
names now.

What was removed stays out: index.json keeps the paths, and features of them are left
out, unchanged or made anew, until they are added with `again`.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from visxp_jax import feature_files
from visxp_jax.atomic import write_whole
from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import MODALITIES, ClipRow, FeatureFile
from visxp_jax.search.manifest import MANIFEST, Manifest, Segment
from visxp_jax.train.lock import LOCK, locked

GRAPH, GRAPH_LOCK = "{}.usearch", "GRAPH_LOCK"  # see `approximate`
ROWS, THUMBNAILS = "rows.parquet", "thumbnails.arrow"
COLUMNS = tuple(name for name in ClipRow._fields if name != "thumbnail")
STAMPS = b"stamps"  # of feature files, by the videos in them
# Feature files are put together to segments of so many clips or a few more: a segment
# is in memory while it is written, and there should be few.
CLIPS_PER_SEGMENT = 2**18

T = TypeVar("T")


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


class Added(NamedTuple):
    """What became of an addition.

    Attributes:
        clips: Number of those taken in.
        unchanged: Number of feature files that were there already.
        removed: Of those left out, as their videos were removed before.
        skipped: Of those that cannot be used.
    """

    clips: int
    unchanged: int
    removed: int
    skipped: int


class _Waiting:
    """Feature files that are to be a segment, of each video the last.

    Attributes:
        files: By their stamps.
        clips: Number of them.
    """

    def __init__(self) -> None:
        self.files: dict[str, FeatureFile] = {}
        self.clips = 0
        self._of: dict[str, str] = {}  # stamps by video

    def drop(self, videos: set[str]) -> int:
        """Leave out those that have one of these videos, and say how many."""
        stamps = {self._of[video] for video in videos if video in self._of}
        for stamp in stamps:
            found = self.files.pop(stamp)
            self.clips -= len(found.table)
            for video in _videos(found):
                del self._of[video]
        return len(stamps)

    def take(self, stamp: str, found: FeatureFile) -> None:
        """Put in one whose videos no other has."""
        self.files[stamp] = found
        self.clips += len(found.table)
        self._of |= dict.fromkeys(_videos(found), stamp)


class Store:
    """The index in a folder."""

    def __init__(self, path: Path) -> None:
        """Read what is there; an empty or missing folder is an empty index.

        Raises:
            VisxpError: it is of another kind, or damaged.
        """
        self.path = path
        self.manifest = self._read()

    @classmethod
    def existing(cls, path: Path) -> "Store":
        """One that is there.

        Raises:
            VisxpError: there is none, or it is damaged.
        """
        store = cls(path)
        if not (path / MANIFEST).exists():
            raise VisxpError(
                f"{path} must be an index, got none there; `visxp search add` makes it."
            )
        return store

    def _read(self) -> Manifest:
        try:
            return Manifest.read(self.path / MANIFEST)
        except FileNotFoundError:
            if self.path.is_dir() and any(
                name not in (LOCK, GRAPH_LOCK, "segments")
                and not name.startswith(MANIFEST)
                for name in os.listdir(self.path)
            ):
                raise VisxpError(
                    f"{self.path} must be an index or empty, but holds other files."
                ) from None
            return Manifest()

    def __len__(self) -> int:
        """Number of clips that count."""
        return sum(rows.table.num_rows for rows in self.rows(vectors=False))

    def rows(self, *, vectors: bool = True) -> list[Rows]:
        """Clips that count, segment by segment.

        Raises:
            VisxpError: a file of a segment is missing or damaged.
        """
        return self.current(
            lambda: [
                self._segment(segment, vectors=vectors)
                for segment in self.manifest.segments
            ]
        )

    def current(self, read: Callable[[], T]) -> T:
        """What is read of segments; again if others have replaced them meanwhile."""
        while True:
            manifest = self.manifest
            try:
                return read()
            except VisxpError:
                self.manifest = self._read()
                if self.manifest == manifest:
                    raise

    def _segment(self, segment: Segment, *, vectors: bool) -> Rows:
        folder = self.path / "segments" / segment.name
        try:
            found = (folder / ROWS).stat()
            table = pq.read_table(folder / ROWS)
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in (MODALITIES if vectors else ())
            }
            with pa.memory_map(os.fspath(folder / THUMBNAILS)) as file:
                thumbnails = pa.ipc.open_file(file).read_all()["thumbnail"]
        except (OSError, ValueError, pa.ArrowException) as error:
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

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone, and with what others have written meanwhile."""
        with locked(self.path):
            self.manifest = self._read()
            known = {segment.name for segment in self.manifest.segments}
            segments = self.path / "segments"
            try:
                segments.mkdir(exist_ok=True)
                for name in os.listdir(segments):
                    if name not in known:  # of someone who was stopped
                        # What stays does not count: a file, or what is still open
                        # elsewhere on a network's disk.
                        shutil.rmtree(segments / name, ignore_errors=True)
                for unfinished in self.path.glob(f"{MANIFEST}.*"):
                    unfinished.unlink()
                yield
            except OSError as error:
                raise VisxpError(
                    f"cannot write to {self.path}: {error}; what was added before is "
                    "safe."
                ) from error

    def _commit(self, manifest: Manifest) -> None:
        write_whole(self.path / MANIFEST, manifest.text())
        sync(self.path)
        self.manifest = manifest

    def add(
        self,
        features: Sequence[Path],
        collection: str = "",
        *,
        again: bool = False,
        saved: Callable[[int], object] = lambda _: None,
        skipped: Callable[[Path, str], object] = lambda *_: None,
    ) -> Added:
        """Take in feature files; videos that the collection has already are replaced.

        A feature file that is in it, and has not changed since, is left out, and so is
        one that cannot be used. Of several of one video the last counts. A video that
        was removed from the collection stays out, also if its features are new.

        Args:
            features: From `python -m visxp_jax.extract`.
            collection: That their videos belong to.
            again: Let in what was removed as well; it stays from then on.
            saved: Is told of clips, once they are safe on the disk.
            skipped: Is told of a file that is no such one, or of other weights than the
                index or those before it, and why.

        Raises:
            VisxpError: the index is damaged or cannot be written to. What was saved
                before stays.
        """
        known = self.current(lambda: self._known(collection, again=again))
        clips = unchanged = removed = failed = 0
        waiting, sha256 = _Waiting(), self.manifest.model_sha256

        def save() -> None:
            nonlocal clips, removed
            if waiting.files:
                added, left_out = self._add(waiting.files, collection, again=again)
                saved(added)
                clips, removed = clips + added, removed + left_out

        for path in features:
            try:
                stamp, found = _stamp(path), None
                if stamp not in known:
                    found = feature_files.read(path)
                    self._check_model(path, _weights(found), sha256)
            except VisxpError as error:
                failed += 1
                skipped(path, str(error).removeprefix(str(path)).lstrip(" :"))
                continue
            if found is None:
                unchanged += 1 + waiting.drop(set(known[stamp]))
                continue
            sha256 = _weights(found)
            waiting.drop(_videos(found))
            waiting.take(stamp, found)
            if waiting.clips >= CLIPS_PER_SEGMENT:
                save()
                waiting = _Waiting()
        save()
        return Added(clips, unchanged, removed, failed)

    def _check_model(self, path: Path, sha256: str, ours: str) -> None:
        if ours not in ("", sha256):
            raise VisxpError(
                f"{path} must be by the weights of {self.path} (sha256 {ours[:12]}), "
                f"got {sha256[:12]}: vectors of two models cannot be compared; make a "
                "new index."
            )

    def _stamps(self, segment: Segment) -> dict[str, list[str]]:
        """Of its feature files whose clips all count but those of removed videos.

        With all the videos in them.
        """
        path = self.path / "segments" / segment.name / ROWS
        try:
            stamps = json.loads((pq.read_schema(path).metadata or {})[STAMPS])
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise VisxpError(f"{path} is damaged: {error}.") from error
        gone = set(segment.deleted) - self.manifest.kept_out(segment.collection)
        return {s: x for s, x in stamps.items() if not gone & set(x)}

    def _known(self, collection: str, *, again: bool) -> dict[str, list[str]]:
        """The same, of a collection: those that need not be looked at."""
        known: dict[str, list[str]] = {}
        for segment in self.manifest.segments:
            if segment.collection == collection:
                known |= self._stamps(segment)
        out = self.manifest.kept_out(collection)
        if again:
            return {s: x for s, x in known.items() if not out & set(x)}
        return {s: x for s, x in known.items() if not out >= set(x)}

    def _add(
        self, files: dict[str, FeatureFile], collection: str, *, again: bool
    ) -> tuple[int, int]:
        """Number of clips, and of files left out as their videos were removed."""
        with self._writing():
            manifest = self.manifest
            out = set() if again else manifest.kept_out(collection)
            stamps, parts = {}, []
            for stamp, found in files.items():
                if part := _of_others(found, out):
                    stamps[stamp] = sorted(_videos(found))
                    parts.append(part)
            if not parts:
                return 0, len(files)
            sha256 = _weights(parts[0])
            self._check_model(self.path, sha256, manifest.model_sha256)
            table = pa.concat_tables([part.table for part in parts])
            vectors = {
                name: np.concatenate([part.vectors[name] for part in parts])
                for name in MODALITIES
            }
            number = self._free(manifest.next)
            name = f"{number:06d}"
            self._write_segment(name, table, vectors, stamps)
            videos = {video for part in parts for video in _videos(part)}
            segments, _ = self._without(videos, collection)
            segments.append(Segment(name, table.num_rows, collection))
            if again:
                manifest = manifest.letting_in(videos, collection)
            self._commit(
                replace(
                    manifest,
                    model_sha256=sha256,
                    next=number + 1,
                    segments=tuple(segments),
                )
            )
        return table.num_rows, len(files) - len(parts)

    def _free(self, number: int) -> int:
        """Of a segment to be written, from this one on: a stray may be in its place."""
        while os.path.lexists(self.path / "segments" / f"{number:06d}"):
            number += 1
        return number

    def _write_segment(
        self,
        name: str,
        table: pa.Table,
        vectors: dict[str, np.ndarray],
        stamps: dict[str, list[str]],
    ) -> None:
        folder = self.path / "segments" / name
        folder.mkdir()
        thumbnails = table.select(["thumbnail"])
        rows = table.select(COLUMNS).replace_schema_metadata(
            {STAMPS: json.dumps(stamps)}
        )
        pq.write_table(rows, folder / ROWS)
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

    def _without(
        self, files: set[str], collection: str | None
    ) -> tuple[list[Segment], Counter[str]]:
        """Segments in which these files no longer count, and clips of each that did."""
        segments, clips = [], Counter()
        for segment in self.manifest.segments:
            if collection in (None, segment.collection):
                table = self._segment(segment, vectors=False).table
                gone = Counter(x for x in table["path"].to_pylist() if x in files)
                if gone:
                    deleted = tuple(sorted({*segment.deleted, *gone}))
                    segment = replace(segment, deleted=deleted)
                    clips += gone
            segments.append(segment)
        return segments, clips

    def delete(self, files: Collection[str], collection: str | None = None) -> int:
        """Take files out, and keep them out until they are added `again`.

        Their vectors stay on the disk until `compact`.

        Args:
            files: As the column 'path' names them.
            collection: Of this one only; None for all, also those to come.

        Returns:
            Number of clips that no longer count.

        Raises:
            VisxpError: one of them is not there; nothing is taken out.
        """
        with self._writing():
            segments, clips = self._without(set(files), collection)
            if missing := sorted(set(files) - clips.keys()):
                where = (
                    "" if collection is None else f" in the collection {collection!r}"
                )
                raise VisxpError(
                    f"{self.path} must have every file that is to be removed, but has "
                    f"none called {', '.join(map(repr, missing))}{where}; nothing was "
                    "removed."
                )
            manifest = self.manifest.keeping_out(set(files), collection)
            self._commit(replace(manifest, segments=tuple(segments)))
            return clips.total()

    def compact(self) -> int:
        """Write small segments, and those with gaps, anew as few, and drop the old.

        Segments that are large enough, and those that no other would join, are left as
        they are, with their graphs, if all of their clips count.

        Returns:
            Number of segments without a graph, made of others that had one.

        Raises:
            VisxpError: another process writes to it or makes graphs, or it is damaged.
        """
        with locked(self.path, name=GRAPH_LOCK), self._writing():
            segments, number, lacking = [], self.manifest.next, 0
            for group in self._groups():
                if len(group) == 1 and not group[0].deleted:
                    segments += group
                    continue
                number = self._free(number)
                segments.append(self._merged(f"{number:06d}", group))
                number += 1
                folders = [self.path / "segments" / segment.name for segment in group]
                lacking += any(any(x.glob(GRAPH.format("*"))) for x in folders)
            old = self.manifest.segments
            self._commit(replace(self.manifest, next=number, segments=tuple(segments)))
            for segment in set(old) - set(segments):
                folder = self.path / "segments" / segment.name
                shutil.rmtree(folder, ignore_errors=True)  # see `_writing`
            return lacking

    def _groups(self) -> list[list[Segment]]:
        """Segments that are to be one; those without clips are in none."""
        groups: list[list[Segment]] = []
        last: dict[str, tuple[list[Segment], int]] = {}  # and its clips, by collection
        for segment in self.manifest.segments:
            clips = segment.rows
            if segment.deleted:
                clips = len(self._segment(segment, vectors=False).stored)
            if not clips:
                continue
            if clips >= CLIPS_PER_SEGMENT and not segment.deleted:
                groups.append([segment])
                continue
            group, before = last.get(segment.collection, ([], 0))
            if not group or before >= CLIPS_PER_SEGMENT:
                group, before = [], 0
                groups.append(group)
            group.append(segment)
            last[segment.collection] = group, before + clips
        return groups

    def _merged(self, name: str, group: list[Segment]) -> Segment:
        """Write one segment of what counts of several of a collection."""
        found = [self._segment(segment, vectors=True) for segment in group]
        table = pa.concat_tables([rows.table for rows in found])
        thumbnails = [_taken(rows.thumbnails, rows.stored) for rows in found]
        table = table.append_column(
            "thumbnail", pa.chunked_array(sum(thumbnails, []), pa.binary())
        )
        vectors = {
            modality: np.concatenate([rows.vectors_of(modality) for rows in found])
            for modality in MODALITIES
        }
        stamps: dict[str, list[str]] = {}
        for segment in group:
            stamps |= self._stamps(segment)
        videos = set(table["path"].to_pylist())
        stamps = {s: x for s, x in stamps.items() if videos & set(x)}
        self._write_segment(name, table, vectors, stamps)
        return Segment(name, len(table), group[0].collection)


def _videos(features: FeatureFile) -> set[str]:
    return set(features.table["path"].to_pylist())


def _of_others(features: FeatureFile, videos: set[str]) -> FeatureFile | None:
    """Clips of other videos than these; None if there are none."""
    if not videos & _videos(features):
        return features
    keep = np.array([x not in videos for x in features.table["path"].to_pylist()])
    if not keep.any():
        return None
    table = features.table.filter(pa.array(keep))
    vectors = {name: x[keep] for name, x in features.vectors.items()}
    return features._replace(table=table, vectors=vectors)


def _weights(features: FeatureFile) -> str:
    return str(features.about["model_sha256"])


def _taken(values: pa.ChunkedArray, where: np.ndarray) -> list[pa.Array]:
    """Some values, in their order, chunk by chunk: together they may be over 2 GiB."""
    chunks, first = [], 0
    for chunk in values.chunks:
        inside = (where >= first) & (where < first + len(chunk))
        chunks.append(chunk.take(pa.array(where[inside] - first)))
        first += len(chunk)
    return chunks


def _stamp(path: Path) -> str:
    """Changes when a feature file does.

    Raises:
        VisxpError: there is none.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise VisxpError(f"{path} cannot be read: {error.strerror}.") from error
    return f"{os.path.abspath(path)} {found.st_size} {found.st_mtime_ns}"


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
