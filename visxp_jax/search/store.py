"""An index on disk: features of files, added and taken out at any time.

    INDEX/index.json          what is in it; what is not named there does not count
    INDEX/segments/000001/    see `segments`

Each change writes what it needs beside what is there, waits until that is on the disk,
and then replaces index.json in one step: whoever is stopped in between, by a signal or
a power cut, leaves the index as it was before, and what `adding.add` has returned from
stays. A reader that finds its segments gone reads index.json again, and goes on with
what it names now.

What was removed stays out: index.json keeps the paths, and features of them are left
out, unchanged or made anew, until they are added with `again`.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from visxp_jax.atomic import write_whole
from visxp_jax.errors import VisxpError
from visxp_jax.search import segments
from visxp_jax.search.manifest import MANIFEST, Manifest, Segment
from visxp_jax.search.segments import Rows
from visxp_jax.train.lock import LOCK, locked

GRAPH_LOCK = "GRAPH_LOCK"  # see `approximate`

T = TypeVar("T")


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
                self.segment(segment, vectors=vectors)
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

    def folder(self, name: str) -> Path:
        """Of a segment."""
        return self.path / "segments" / name

    def segment(self, segment: Segment, *, vectors: bool) -> Rows:
        """The clips of one that count; see `segments.read`."""
        return segments.read(self.folder(segment.name), segment, vectors=vectors)

    def stamps(self, segment: Segment) -> dict[str, list[str]]:
        """Of its feature files whose clips all count but those of removed videos.

        With all the videos in them.
        """
        stamps = segments.stamps_of(self.folder(segment.name))
        gone = set(segment.deleted) - self.manifest.kept_out(segment.collection)
        return {s: x for s, x in stamps.items() if not gone & set(x)}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone, and with what others have written meanwhile."""
        with locked(self.path):
            self.manifest = self._read()
            known = {segment.name for segment in self.manifest.segments}
            folder = self.path / "segments"
            try:
                folder.mkdir(exist_ok=True)
                for name in os.listdir(folder):
                    if name not in known:  # of someone who was stopped
                        # What stays does not count: a file, or what is still open
                        # elsewhere on a network's disk.
                        shutil.rmtree(folder / name, ignore_errors=True)
                for unfinished in self.path.glob(f"{MANIFEST}.*"):
                    unfinished.unlink()
                yield
            except OSError as error:
                raise VisxpError(
                    f"cannot write to {self.path}: {error}; what was added before is "
                    "safe."
                ) from error

    def commit(self, manifest: Manifest) -> None:
        """Make this the index, in one step; while `writing`."""
        write_whole(self.path / MANIFEST, manifest.text())
        segments.sync(self.path)
        self.manifest = manifest

    def free(self, number: int) -> int:
        """Of a segment to be written, from this one on: a stray may be in its place."""
        while os.path.lexists(self.folder(f"{number:06d}")):
            number += 1
        return number

    def without_files(
        self, files: set[str], collection: str | None
    ) -> tuple[list[Segment], Counter[str]]:
        """Segments in which these files no longer count, and clips of each that did."""
        found, clips = [], Counter()
        for segment in self.manifest.segments:
            if collection in (None, segment.collection):
                table = self.segment(segment, vectors=False).table
                gone = Counter(x for x in table["path"].to_pylist() if x in files)
                if gone:
                    deleted = tuple(sorted({*segment.deleted, *gone}))
                    segment = replace(segment, deleted=deleted)
                    clips += gone
            found.append(segment)
        return found, clips

    def delete(self, files: Collection[str], collection: str | None = None) -> int:
        """Take files out, and keep them out until they are added `again`.

        Their vectors stay on the disk until `compacting.compact`.

        Args:
            files: As the column 'path' names them.
            collection: Of this one only; None for all, also those to come.

        Returns:
            Number of clips that no longer count.

        Raises:
            VisxpError: one of them is not there; nothing is taken out.
        """
        with self.writing():
            found, clips = self.without_files(set(files), collection)
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
            self.commit(replace(manifest, segments=tuple(found)))
            return clips.total()
