"""The most similar clips, by comparing with all of them on the device."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.feature_files import MODALITIES
from visxp_jax.methods.avc import match_probability
from visxp_jax.methods.contrastive import in_common_space
from visxp_jax.models.bind import Model
from visxp_jax.search.catalogue import Catalogue, Hit
from visxp_jax.search.segments import Rows
from visxp_jax.search.store import Store

# Rows compared at once: arrays of one shape, and a last one of a power of two, so that
# little is compiled again when clips are added.
BLOCK = 2**16
LEAST = 2**10


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


def common_scores(
    model: Model, params: Any, modality: str
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Scores across modalities: how near a query is in the space they have in common.

    Args:
        model: With the heads of stage 'contrastive'.
        params: Its parameters.
        modality: Of what is found; the query is of the other.

    Returns:
        The function of unit rows [n, d], their lengths [n, 1] and queries [q, d] to
        cosines [q, n].
    """
    other = {"video": "audio", "audio": "video"}[modality]

    @jax.jit
    def scores(rows: jax.Array, lengths: jax.Array, queries: jax.Array) -> jax.Array:
        found = in_common_space(model, params, modality, rows * lengths)
        asked = in_common_space(model, params, other, queries)
        return jnp.matmul(asked, found.T, precision=jax.lax.Precision.HIGHEST)

    return scores


@jax.jit
def cosines(rows: jax.Array, lengths: jax.Array, queries: jax.Array) -> jax.Array:
    """Scores of unit rows [n, d] within a modality, [q, n]; lengths do not count."""
    del lengths
    unit = queries / jnp.linalg.norm(queries, axis=1, keepdims=True)
    return jnp.matmul(unit, rows.T, precision=jax.lax.Precision.HIGHEST)


class Searcher(Catalogue):
    """All clips of a store in the memory of a device, as they are now.

    Takes 4 bytes for each number of a vector, of both modalities.
    """

    def __init__(self, store: Store, before: "Searcher | None" = None) -> None:
        """Load it.

        Args:
            store: Of the clips.
            before: Of the same store, earlier: blocks from its beginning on in which
                nothing has changed are taken over. What is added comes at the end.

        Raises:
            VisxpError: the store is damaged.
        """
        found = store.rows()
        super().__init__(found)
        self._blocks: dict[str, list[jax.Array]] = {}
        self._lengths: dict[str, np.ndarray] = {}
        both = zip(found, before._found if before else (), strict=False)
        same = takewhile(lambda pair: _same(*pair), both)
        kept = sum(len(rows.stored) for rows, _ in same) // BLOCK
        for name in MODALITIES:
            self._blocks[name], self._lengths[name] = [], np.zeros((0, 1), np.float32)
            if before and kept:
                self._blocks[name] = before._blocks[name][:kept]
                self._lengths[name] = before._lengths[name][: kept * BLOCK]
            if found:
                self._load(name, found, kept * BLOCK)

    def _load(self, name: str, found: Sequence[Rows], loaded: int) -> None:
        """Load the rest of a modality, of which so many clips are there."""
        width = found[0].vectors[name].shape[1]
        lengths = [self._lengths[name]]
        block, filled = np.zeros((BLOCK, width), np.float32), 0

        def put(rows: int) -> None:
            self._blocks[name].append(jnp.asarray(block[:rows].copy()))
            block[:] = 0

        for rows_of in found:
            part = rows_of.vectors_of(name)[loaded:]
            loaded = max(0, loaded - len(rows_of.stored))
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
            scores: `cosines` within a modality, `common_scores` or `match_scores`
                across.

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


def _same(a: Rows, b: Rows) -> bool:
    """Whether these are the same clips; those of a segment stay, or are taken out."""
    return a.stamp == b.stamp and np.array_equal(a.stored, b.stored)


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    """Up to so many rows, with zeros or False."""
    return np.pad(values, ((0, size - len(values)), *[(0, 0)] * (values.ndim - 1)))
