"""All clips of a store by number: where they are, what of, and what they look like."""

from collections.abc import Collection, Sequence
from math import isnan
from typing import NamedTuple

import numpy as np

from visxp_jax.search.segments import Rows

SENSES = {"sight": "video", "sound": "audio"}  # what people call the modalities
NUMBERS = ("start_s", "end_s", "shot_start_s", "shot_end_s", "agreement")


class Hit(NamedTuple):
    """A clip that was found."""

    score: float  # cosine; across sight and sound perhaps a probability, see finder.py
    row: int  # of the searcher
    path: str
    start_s: float
    end_s: float
    collection: str
    shot_start_s: float | None  # of the shot that it is in, where they were looked for
    shot_end_s: float | None
    agreement: float | None  # probability that its own sound belongs to its picture


class Catalogue:
    """What is known of clips beside their vectors.

    Attributes:
        names: Of files and collections, each once.
        file: Number of each clip's file among the names, int32 [n].
        collection: Number of each clip's collection, int32 [n].
        first: Number of the first clip of each segment, and one for the end.
    """

    def __init__(self, found: Sequence[Rows]) -> None:
        """Of these segments, one after the other."""
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
        self._found = found
        self.first = np.cumsum([0, *(len(rows.table) for rows in found)])

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.file)

    def row(
        self, path: str, at_s: float | None, collection: str | None = None
    ) -> int | None:
        """A clip of a file.

        Args:
            path: Of the file.
            at_s: A time that is in the clip; None for the first.
            collection: That it belongs to; None for any, the one first added.

        Returns:
            Its number; None if there is none.
        """
        if path not in self.names:
            return None
        here = self.file == self.names.index(path)
        if collection is not None:
            here &= self.allowed([collection])
        if at_s is not None:
            here &= (self._numbers["start_s"] <= at_s) & (at_s < self._numbers["end_s"])
        return int(np.argmax(here)) if here.any() else None

    def copies(self, row: int) -> np.ndarray:
        """Clips of the same second of the same file, in any collection, bool [n]."""
        start_s = self._numbers["start_s"]
        return (self.file == self.file[row]) & (start_s == start_s[row])

    def thumbnail(self, row: int) -> bytes:
        """JPEG of a clip; none if there is no picture."""
        part = int(np.searchsorted(self.first, row, side="right")) - 1
        rows = self._found[part]
        return rows.thumbnails[int(rows.stored[row - int(self.first[part])])].as_py()

    def allowed(self, collections: Collection[str] | None) -> np.ndarray:
        """Which clips are in one of these collections, bool [n]; None for all."""
        if collections is None:
            return np.ones(len(self), bool)
        wanted = [i for i, name in enumerate(self.names) if name in collections]
        return np.isin(self.collection, wanted)

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
