"""The most similar clips, by comparing with all of them on the device."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from math import isnan
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.feature_files import MODALITIES
from visxp_jax.methods.avc import match_probability
from visxp_jax.models.bind import Model
from visxp_jax.search.store import Store

# Rows compared at once: arrays of one shape, and a last one of a power of two, so that
# little is compiled again when clips are added.
BLOCK = 2**16
LEAST = 2**10
NUMBERS = ("start_s", "end_s", "shot_start_s", "shot_end_s", "agreement")


class Hit(NamedTuple):
    """A clip that was found."""

    score: float  # cosine, or the probability that picture and sound belong together
    row: int  # of the searcher
    path: str
    start_s: float
    end_s: float
    collection: str
    shot_start_s: float | None  # of the shot that it is in, where they were looked for
    shot_end_s: float | None
    agreement: float | None  # probability that its own sound belongs to its picture


@partial(jax.jit, static_argnames="k")
def _best(
    scores: jax.Array, allowed: jax.Array, *, k: int
) -> tuple[jax.Array, jax.Array]:
    """The highest scores of one block [q, BLOCK], and their places, [q, k]."""
    return jax.lax.top_k(jnp.where(allowed[None], scores, -jnp.inf), k)


def match_scores(
    model: Model, params: Any, modality: str
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Scores across modalities: whether a query belongs to what is found.

    Args:
        model: With a head 'avc'.
        params: Its parameters.
        modality: Of what is found; the query is of the other.

    Returns:
        The function of unit rows [n, d], their lengths [n, 1] and queries [q, d] to
        probabilities [q, n].
    """

    @jax.jit
    def scores(rows: jax.Array, lengths: jax.Array, queries: jax.Array) -> jax.Array:
        vectors = rows * lengths

        def of_query(query: jax.Array) -> jax.Array:
            other = jnp.broadcast_to(query[None], (len(vectors), len(query)))
            pair = (vectors, other) if modality == "video" else (other, vectors)
            return match_probability(model, params, *pair)

        return jax.lax.map(of_query, queries)

    return scores


@jax.jit
def cosines(rows: jax.Array, lengths: jax.Array, queries: jax.Array) -> jax.Array:
    """Scores of unit rows [n, d] within a modality, [q, n]; lengths do not count."""
    del lengths
    unit = queries / jnp.linalg.norm(queries, axis=1, keepdims=True)
    return jnp.matmul(unit, rows.T, precision=jax.lax.Precision.HIGHEST)


class Searcher:
    """All clips of a store in the memory of a device, as they are now.

    Takes 4 bytes for each number of a vector, of both modalities.

    Attributes:
        names: Of files and collections, each once.
        file: Number of each clip's file among the names, int32 [n].
        collection: Number of each clip's collection, int32 [n].
    """

    def __init__(self, store: Store) -> None:
        """Load it.

        Raises:
            VisxpError: the store is damaged.
        """
        found = list(store.rows())
        self.names: list[str] = []
        number: dict[str, int] = {}

        def numbers(names: list[str]) -> np.ndarray:
            for name in set(names) - number.keys():
                number[name] = len(self.names)
                self.names.append(name)
            return np.array([number[name] for name in names], np.int32)

        files = [numbers(rows.table["path"].to_pylist()) for rows in found]
        groups = [numbers([rows.collection]).repeat(len(rows.table)) for rows in found]
        self.file = np.concatenate([np.zeros(0, np.int32), *files])
        self.collection = np.concatenate([np.zeros(0, np.int32), *groups])
        self._numbers = {
            name: np.concatenate(
                [np.zeros(0), *(rows.table[name].to_numpy() for rows in found)]
            )
            for name in NUMBERS
        }
        self._thumbnails = [rows.thumbnails for rows in found]
        self._first = np.cumsum([0, *(len(rows.table) for rows in found)])
        self._blocks: dict[str, list[jax.Array]] = {}
        self._lengths: dict[str, np.ndarray] = {}
        for name in MODALITIES:
            self._blocks[name], self._lengths[name] = [], np.zeros((0, 1), np.float32)
            if found:
                self._load(name, [rows.vectors[name] for rows in found])

    def _load(self, name: str, parts: list[np.ndarray]) -> None:
        width = parts[0].shape[1]
        lengths, block, filled = [], np.zeros((BLOCK, width), np.float32), 0

        def put(rows: int) -> None:
            self._blocks[name].append(jnp.asarray(block[:rows].copy()))
            block[:] = 0

        for part in parts:
            for first in range(0, len(part), BLOCK):
                rows = part[first : first + BLOCK].astype(np.float32)
                length = np.linalg.norm(rows, axis=1, keepdims=True)
                lengths.append(length)
                rows /= np.where(length > 0, length, 1)
                while len(rows):
                    fit = rows[: BLOCK - filled]
                    block[filled : filled + len(fit)] = fit
                    filled += len(fit)
                    rows = rows[len(fit) :]
                    if filled == BLOCK:
                        put(BLOCK)
                        filled = 0
        if filled:
            put(min(BLOCK, max(LEAST, 1 << (filled - 1).bit_length())))
        self._lengths[name] = np.concatenate(lengths)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.file)

    def has(self, row: int, modality: str) -> bool:
        """Whether a clip can be seen ('video') or heard ('audio')."""
        return bool(self._lengths[modality][row] > 0)

    def vector(self, row: int, modality: str) -> np.ndarray | None:
        """The vector float32 [d] of a clip; None if it lacks that modality."""
        if not self.has(row, modality):
            return None
        length = self._lengths[modality][row]
        return length * np.asarray(self._blocks[modality][row // BLOCK][row % BLOCK])

    def vectors(self, rows: Sequence[int], modality: str) -> np.ndarray:
        """The vectors float32 [n, d] of clips; zeros where they lack that modality."""
        length = self._lengths[modality][np.asarray(rows)]
        blocks = self._blocks[modality]
        return length * np.stack([blocks[i // BLOCK][i % BLOCK] for i in rows])

    def row(self, path: str, at_s: float | None) -> int | None:
        """The clip of a file that a time is in, None for its first; None if none is."""
        if path not in self.names:
            return None
        here = self.file == self.names.index(path)
        if at_s is not None:
            here &= (self._numbers["start_s"] <= at_s) & (at_s < self._numbers["end_s"])
        return int(np.argmax(here)) if here.any() else None

    def thumbnail(self, row: int) -> bytes:
        """JPEG of a clip; none if there is no picture."""
        part = int(np.searchsorted(self._first, row, side="right")) - 1
        return self._thumbnails[part][row - int(self._first[part])].as_py()

    def allowed(self, collections: Collection[str] | None) -> np.ndarray:
        """Which clips are in one of these collections, bool [n]; None for all."""
        if collections is None:
            return np.ones(len(self), bool)
        wanted = [i for i, name in enumerate(self.names) if name in collections]
        return np.isin(self.collection, wanted)

    def search(
        self,
        queries: np.ndarray,
        modality: str,
        *,
        k: int = 10,
        allowed: np.ndarray | None = None,
        scores: Callable[..., jax.Array] = cosines,
    ) -> list[list[Hit]]:
        """The clips that score highest with each query.

        Args:
            queries: [q, d], not 0.
            modality: 'video' or 'audio', of what is found.
            k: Number of clips, fewer if there are not so many.
            allowed: bool [n], which may be found; None for all.
            scores: `cosines` within a modality, `match_scores` across.

        Returns:
            For each query hits from the best on. Clips without that modality are none.
        """
        queries = np.atleast_2d(np.asarray(queries, np.float32))
        lengths = self._lengths[modality]
        mask = lengths[:, 0] > 0  # zeros stand for what is not there
        if allowed is not None:
            mask = mask & allowed
        k = min(k, int(mask.sum()))
        if not k:
            return [[] for _ in queries]
        found = []
        for number, block in enumerate(self._blocks[modality]):
            here = slice(number * BLOCK, (number + 1) * BLOCK)
            size = len(block)
            score = scores(block, _filled(lengths[here], size), queries)
            best, places = _best(score, _filled(mask[here], size), k=min(k, size))
            found.append((best, places + number * BLOCK))
        best, places = (
            np.concatenate([np.asarray(x) for x in part], axis=1)
            for part in zip(*found, strict=True)
        )
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        return [
            [self.clip(int(places[q, i]), float(best[q, i])) for i in order[q]]
            for q in range(len(queries))
        ]

    def clip(self, row: int, score: float = 1.0) -> Hit:
        """A clip by its number."""
        numbers = {name: float(values[row]) for name, values in self._numbers.items()}
        known = {name: None if isnan(x) else x for name, x in numbers.items()}
        return Hit(
            score=score,
            row=row,
            path=self.names[self.file[row]],
            start_s=numbers["start_s"],
            end_s=numbers["end_s"],
            collection=self.names[self.collection[row]],
            shot_start_s=known["shot_start_s"],
            shot_end_s=known["shot_end_s"],
            agreement=known["agreement"],
        )


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    """Up to so many rows, with zeros or False."""
    return np.pad(values, ((0, size - len(values)), *[(0, 0)] * (values.ndim - 1)))
