"""Making few segments of many in an index, without what was taken out."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa

from visxp_jax.feature_files import MODALITIES
from visxp_jax.search import segments
from visxp_jax.search.manifest import Segment
from visxp_jax.search.store import GRAPH_LOCK, Store
from visxp_jax.train.lock import locked


def compact(store: Store) -> int:
    """Write small segments, and those with gaps, anew as few, and drop the old.

    Segments that are large enough, and those that no other would join, are left as
    they are, with their graphs, if all of their clips count.

    Returns:
        Number of segments without a graph, made of others that had one.

    Raises:
        VisxpError: another process writes to it or makes graphs, or it is damaged.
    """
    with locked(store.path, name=GRAPH_LOCK), store.writing():
        kept, number, lacking = [], store.manifest.next, 0
        for group in _groups(store):
            if len(group) == 1 and not group[0].deleted:
                kept += group
                continue
            number = store.free(number)
            kept.append(_merged(store, f"{number:06d}", group))
            number += 1
            folders = [store.folder(segment.name) for segment in group]
            lacking += any(any(x.glob(segments.GRAPH.format("*"))) for x in folders)
        old = store.manifest.segments
        store.commit(replace(store.manifest, next=number, segments=tuple(kept)))
        for segment in set(old) - set(kept):
            folder = store.folder(segment.name)
            shutil.rmtree(folder, ignore_errors=True)  # see `Store.writing`
        return lacking


def _groups(store: Store) -> list[list[Segment]]:
    """Segments that are to be one; those without clips are in none."""
    groups: list[list[Segment]] = []
    last: dict[str, tuple[list[Segment], int]] = {}  # and its clips, by collection
    for segment in store.manifest.segments:
        clips = segment.rows
        if segment.deleted:
            clips = len(store.segment(segment, vectors=False).stored)
        if not clips:
            continue
        if clips >= segments.CLIPS_PER_SEGMENT and not segment.deleted:
            groups.append([segment])
            continue
        group, before = last.get(segment.collection, ([], 0))
        if not group or before >= segments.CLIPS_PER_SEGMENT:
            group, before = [], 0
            groups.append(group)
        group.append(segment)
        last[segment.collection] = group, before + clips
    return groups


def _merged(store: Store, name: str, group: list[Segment]) -> Segment:
    """Write one segment of what counts of several of a collection."""
    found = [store.segment(segment, vectors=True) for segment in group]
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
        stamps |= store.stamps(segment)
    videos = set(table["path"].to_pylist())
    stamps = {s: x for s, x in stamps.items() if videos & set(x)}
    segments.write(store.folder(name), table, vectors, stamps)
    return Segment(name, len(table), group[0].collection)


def _taken(values: pa.ChunkedArray, where: np.ndarray) -> list[pa.Array]:
    """Some values, in their order, chunk by chunk: together they may be over 2 GiB."""
    chunks, first = [], 0
    for chunk in values.chunks:
        inside = (where >= first) & (where < first + len(chunk))
        chunks.append(chunk.take(pa.array(where[inside] - first)))
        first += len(chunk)
    return chunks
