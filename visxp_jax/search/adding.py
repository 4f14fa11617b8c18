"""Adding feature files to an index, many to a segment."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from visxp_jax import feature_files
from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import MODALITIES, FeatureFile
from visxp_jax.search import segments
from visxp_jax.search.manifest import Segment
from visxp_jax.search.store import Store


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


def add(
    store: Store,
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
        store: The index.
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
    known = store.current(lambda: _known(store, collection, again=again))
    clips = unchanged = removed = failed = 0
    waiting, sha256 = _Waiting(), store.manifest.model_sha256

    def save() -> None:
        nonlocal clips, removed
        if waiting.files:
            added, left_out = _write(store, waiting.files, collection, again=again)
            saved(added)
            clips, removed = clips + added, removed + left_out

    for path in features:
        try:
            stamp, found = _stamp(path), None
            if stamp not in known:
                found = feature_files.read(path)
                _check_model(store, path, _weights(found), sha256)
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
        if waiting.clips >= segments.CLIPS_PER_SEGMENT:
            save()
            waiting = _Waiting()
    save()
    return Added(clips, unchanged, removed, failed)


def _check_model(store: Store, path: Path, sha256: str, ours: str) -> None:
    if ours not in ("", sha256):
        raise VisxpError(
            f"{path} must be by the weights of {store.path} (sha256 {ours[:12]}), "
            f"got {sha256[:12]}: vectors of two models cannot be compared; make a "
            "new index."
        )


def _known(store: Store, collection: str, *, again: bool) -> dict[str, list[str]]:
    """Stamps of a collection's files that need not be looked at; see `Store.stamps`."""
    known: dict[str, list[str]] = {}
    for segment in store.manifest.segments:
        if segment.collection == collection:
            known |= store.stamps(segment)
    out = store.manifest.kept_out(collection)
    if again:
        return {s: x for s, x in known.items() if not out & set(x)}
    return {s: x for s, x in known.items() if not out >= set(x)}


def _write(
    store: Store, files: dict[str, FeatureFile], collection: str, *, again: bool
) -> tuple[int, int]:
    """Number of clips, and of files left out as their videos were removed."""
    with store.writing():
        manifest = store.manifest
        out = set() if again else manifest.kept_out(collection)
        stamps, parts = {}, []
        for stamp, found in files.items():
            if part := _of_others(found, out):
                stamps[stamp] = sorted(_videos(found))
                parts.append(part)
        if not parts:
            return 0, len(files)
        sha256 = _weights(parts[0])
        _check_model(store, store.path, sha256, manifest.model_sha256)
        table = pa.concat_tables([part.table for part in parts])
        vectors = {
            name: np.concatenate([part.vectors[name] for part in parts])
            for name in MODALITIES
        }
        number = store.free(manifest.next)
        name = f"{number:06d}"
        segments.write(store.folder(name), table, vectors, stamps)
        videos = {video for part in parts for video in _videos(part)}
        kept, _ = store.without_files(videos, collection)
        kept.append(Segment(name, table.num_rows, collection))
        if again:
            manifest = manifest.letting_in(videos, collection)
        store.commit(
            replace(
                manifest,
                model_sha256=sha256,
                next=number + 1,
                segments=tuple(kept),
            )
        )
    return table.num_rows, len(files) - len(parts)


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
