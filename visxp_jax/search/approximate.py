"""The most similar clips of millions, nearly: by a graph for each segment of an index.

    visxp search graph INDEX
    visxp search find INDEX --like=talk.mp4 --at=12 --approximate

Needs usearch: pip install '.[search]'. A graph stays on the disk and is looked
at where it is: nothing is loaded. It lies beside the vectors that it is of, which never
change; what was taken out since is left out of the answers, and what was added since
has no graph yet and is compared clip by clip.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import MODALITIES
from visxp_jax.progress import progress_bar
from visxp_jax.search.catalogue import Catalogue, Hit
from visxp_jax.search.exact import cosines
from visxp_jax.search.segments import GRAPH, Rows, sync
from visxp_jax.search.store import GRAPH_LOCK, Store
from visxp_jax.train.lock import locked

BLOCK = 2**12  # vectors that are added or compared at once
# Where so few clips may be found, or so small a share, all of them are compared.
FEW, RARE = 4096, 1 / 16


def load_usearch() -> Any:
    """The library's class.

    Raises:
        VisxpError: it is not installed.
    """
    try:
        from usearch.index import Index
    except ImportError as error:
        raise VisxpError(
            f"approximate search needs usearch, which is not installed ({error}): "
            "pip install '.[search]' in the folder of visxp_jax."
        ) from error
    return Index


def build(store: Store) -> int:
    """Make the graphs that an index lacks.

    Returns:
        Number of segments that got one.

    Raises:
        VisxpError: usearch is not installed, the store is damaged, or another process
            makes graphs of it.
    """
    make = load_usearch()
    with locked(store.path, name=GRAPH_LOCK):  # clips may be added meanwhile
        lacking = [
            (rows, name)
            for rows in store.rows()
            for name in MODALITIES
            if not _graph(rows, name).exists()
        ]
        total = sum(len(rows.stored) for rows, _ in lacking)
        with progress_bar(desc="graph", unit="vector", total=total) as bar:
            for rows, name in lacking:
                _build(make, rows, name, bar.update)
    return len({rows.folder for rows, _ in lacking})


def _graph(rows: Rows, name: str) -> Path:
    return rows.folder / GRAPH.format(name)


def _build(make: Any, rows: Rows, name: str, done: Callable[[int], object]) -> None:
    x = rows.vectors[name]
    graph = make(ndim=x.shape[1], metric="cos", dtype="f16")
    for first in range(0, len(rows.stored), BLOCK):
        keys = rows.stored[first : first + BLOCK]
        part = x[keys]
        there = part.any(axis=1)  # zeros stand for what is not there
        graph.add(keys[there], part[there])
        done(len(part))
    path = _graph(rows, name)
    unfinished = path.with_name(f"{path.name}.tmp")  # or that of who was stopped
    try:
        graph.save(os.fspath(unfinished))
        sync(unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:
        raise VisxpError(f"cannot write {path}: {error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


class _Part(NamedTuple):
    """One segment.

    Attributes:
        rows: Its clips.
        graphs: By modality; none if it has none yet.
        place: Of each clip that it was written with among `rows`; -1 if it is gone.
    """

    rows: Rows
    graphs: dict[str, Any]
    place: np.ndarray


class Approximate(Catalogue):
    """All clips of a store, whose vectors stay on the disk."""

    def __init__(self, store: Store) -> None:
        """Open the graphs.

        Raises:
            VisxpError: usearch is not installed, no graph is there, or one is damaged.
        """
        make = load_usearch()
        self._parts = store.current(lambda: [_part(make, x) for x in store.rows()])
        super().__init__([part.rows for part in self._parts])
        if self._parts and not any(part.graphs for part in self._parts):
            raise VisxpError(
                f"{store.path} must have graphs for approximate search, but has none: "
                f"run `visxp search graph {store.path}`."
            )

    def _at(self, row: int) -> tuple[_Part, int]:
        number = int(np.searchsorted(self.first, row, side="right")) - 1
        return self._parts[number], row - int(self.first[number])

    def has(self, row: int, modality: str) -> bool:
        """Whether a clip can be seen ('video') or heard ('audio')."""
        part, at = self._at(row)
        return bool(part.rows.vectors[modality][part.rows.stored[at]].any())

    def vector(self, row: int, modality: str) -> np.ndarray | None:
        """The vector float32 [d] of a clip; None if it lacks that modality."""
        part, at = self._at(row)
        stored = part.rows.stored[at]
        vector = part.rows.vectors[modality][stored].astype(np.float32)
        return vector if vector.any() else None

    def search(
        self,
        queries: np.ndarray,
        modality: str,
        *,
        k: int = 10,
        allowed: np.ndarray | None = None,
        scores: Callable[..., Any] = cosines,
    ) -> list[list[Hit]]:
        """Clips that are, nearly, those most like each query; see `Searcher.search`.

        Raises:
            VisxpError: across modalities, where there is no way around comparing all.
        """
        if scores is not cosines:
            raise VisxpError(
                "search across sight and sound compares all clips: leave out "
                "--approximate."
            )
        queries = np.atleast_2d(np.asarray(queries, np.float32))
        may = np.ones(len(self), bool) if allowed is None else allowed
        answers = []
        for query in queries / np.linalg.norm(queries, axis=1, keepdims=True):
            places, values = [np.zeros(0, int)], [np.zeros(0)]
            for part, first in zip(self._parts, self.first, strict=False):
                own = may[first : first + len(part.rows.stored)]
                at, score = _nearest(part, modality, query, own, k)
                places.append(at + first)
                values.append(score)
            place, value = np.concatenate(places), np.concatenate(values)
            order = np.argsort(-value, kind="stable")[:k]
            answers.append([self.clip(int(place[i]), float(value[i])) for i in order])
        return answers


def _part(make: Any, rows: Rows) -> _Part:
    graphs = {}
    for name in MODALITIES:
        path = _graph(rows, name)
        if path.exists():
            graphs[name] = _opened(make, path, rows.vectors[name].shape[1])
    written = int(rows.stored.max(initial=-1)) + 1
    place = np.full(written, -1)
    place[rows.stored] = np.arange(len(rows.stored))
    return _Part(rows, graphs, place)


def _opened(make: Any, path: Path, width: int) -> Any:
    graph = make(ndim=width, metric="cos", dtype="f16")
    try:
        graph.view(os.fspath(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise VisxpError(f"{path} is damaged: {error}; remove it.") from error
    return graph


def _nearest(
    part: _Part, modality: str, query: np.ndarray, allowed: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places in the segment of up to k clips, and their cosines."""
    count = int(allowed.sum())
    graph = part.graphs.get(modality)
    if graph is None or count <= max(FEW, RARE * len(part.place)):
        return _compared(part.rows, modality, query, np.flatnonzero(allowed), k)
    wanted = k
    if not len(graph):
        return np.zeros(0, int), np.zeros(0)
    while True:
        found = graph.search(query, min(wanted, len(graph)))
        keys = found.keys.astype(np.int64)
        place = np.where(keys < len(part.place), part.place[keys % len(part.place)], -1)
        good = place >= 0
        good[good] = allowed[place[good]]
        if good.sum() >= k or wanted >= len(graph):
            return place[good][:k], 1 - found.distances[good][:k]
        wanted *= 4


def _compared(
    rows: Rows, modality: str, query: np.ndarray, places: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same, of these places, each of them compared."""
    scores = np.full(len(places), -np.inf)
    for first in range(0, len(places), BLOCK):
        stored = rows.stored[places[first : first + BLOCK]]
        x = rows.vectors[modality][stored].astype(np.float32)
        length = np.linalg.norm(x, axis=1)
        cosine = x @ query / np.where(length > 0, length, 1)
        scores[first : first + BLOCK] = np.where(length > 0, cosine, -np.inf)
    best = np.argsort(-scores, kind="stable")[:k]
    best = best[np.isfinite(scores[best])]
    return places[best], scores[best]
