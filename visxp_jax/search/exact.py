"""The most similar clips, by comparing with all of them on the device."""

from collections.abc import Collection
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from visxp_jax.search.store import MODALITIES, Store

# Rows compared at once: arrays of one shape, so that nothing is compiled again when
# clips are added.
BLOCK = 2**16


class Hit(NamedTuple):
    """A clip that was found."""

    score: float  # cosine
    row: int  # of the searcher
    path: str
    start_s: float
    end_s: float
    collection: str


@partial(jax.jit, static_argnames="k")
def _best(
    block: jax.Array, allowed: jax.Array, queries: jax.Array, *, k: int
) -> tuple[jax.Array, jax.Array]:
    """Scores and places [q, k] of one block [BLOCK, d] of unit rows."""
    scores = jnp.matmul(queries, block.T, precision=jax.lax.Precision.HIGHEST)
    return jax.lax.top_k(jnp.where(allowed[None], scores, -jnp.inf), k)


class Searcher:
    """All clips of a store in the memory of a device, as they are now.

    Takes 4 bytes for each number of a vector, of both modalities.
    """

    def __init__(self, store: Store) -> None:
        """Load it.

        Raises:
            VisxpError: the store is damaged.
        """
        tables, names, parts = [], [], {name: [] for name in MODALITIES}
        for rows in store.rows():
            tables.append(rows.table)
            names += [rows.collection] * rows.table.num_rows
            for name in MODALITIES:
                parts[name].append(rows.vectors[name])
        self.collection = np.array(names, object)
        self.table = pa.concat_tables(tables) if tables else None
        self._blocks: dict[str, list[jax.Array]] = {}
        self._known: dict[str, np.ndarray] = {}
        for name in MODALITIES:
            self._blocks[name], self._known[name] = [], np.zeros(0, bool)
            if tables:
                self._load(name, parts[name])

    def _load(self, name: str, parts: list[np.ndarray]) -> None:
        width = parts[0].shape[1]
        known, block, filled = [], np.zeros((BLOCK, width), np.float32), 0

        def put() -> None:
            self._blocks[name].append(jnp.asarray(block.copy()))
            block[:] = 0

        for part in parts:
            for first in range(0, len(part), BLOCK):
                rows = part[first : first + BLOCK].astype(np.float32)
                length = np.linalg.norm(rows, axis=1, keepdims=True)
                known.append(length[:, 0] > 0)  # zeros stand for what is not there
                rows /= np.where(length > 0, length, 1)
                while len(rows):
                    fit = rows[: BLOCK - filled]
                    block[filled : filled + len(fit)] = fit
                    filled += len(fit)
                    rows = rows[len(fit) :]
                    if filled == BLOCK:
                        put()
                        filled = 0
        if filled:
            put()
        self._known[name] = np.concatenate(known)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.collection)

    def vector(self, row: int, modality: str) -> np.ndarray:
        """The unit vector float32 [d] of a clip."""
        return np.asarray(self._blocks[modality][row // BLOCK][row % BLOCK])

    def allowed(self, collections: Collection[str] | None) -> np.ndarray:
        """Which clips are in one of these collections, bool [n]; None for all."""
        if collections is None:
            return np.ones(len(self), bool)
        return np.isin(self.collection, list(collections))

    def search(
        self,
        queries: np.ndarray,
        modality: str,
        *,
        k: int = 10,
        allowed: np.ndarray | None = None,
    ) -> list[list[Hit]]:
        """The clips whose vectors point most nearly where each query's does.

        Args:
            queries: [q, d], not 0.
            modality: 'video' or 'audio', of the queries and of what is found.
            k: Number of clips, fewer if there are not so many.
            allowed: bool [n], which may be found; None for all.

        Returns:
            For each query hits from the best on. Clips without that modality are none.
        """
        queries = np.atleast_2d(np.asarray(queries, np.float32))
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        mask = self._known[modality]
        if allowed is not None:
            mask = mask & allowed
        k = min(k, int(mask.sum()))
        if not k:
            return [[] for _ in queries]
        found = []
        for number, block in enumerate(self._blocks[modality]):
            part = np.zeros(BLOCK, bool)
            here = mask[number * BLOCK : (number + 1) * BLOCK]
            part[: len(here)] = here
            scores, places = _best(block, part, queries, k=min(k, BLOCK))
            found.append((scores, places + number * BLOCK))
        scores, places = (
            np.concatenate([np.asarray(x) for x in part], axis=1)
            for part in zip(*found, strict=True)
        )
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [
            [self._hit(float(scores[q, i]), int(places[q, i])) for i in order[q]]
            for q in range(len(queries))
        ]

    def _hit(self, score: float, row: int) -> Hit:
        assert self.table is not None
        path, start_s, end_s = (
            self.table[name][row].as_py() for name in ("path", "start_s", "end_s")
        )
        return Hit(score, row, path, start_s, end_s, self.collection[row])
