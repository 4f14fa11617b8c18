"""Clips to begin with: spread over a collection, by the names of files, of one file."""

from typing import Any

import numpy as np

from visxp_jax.search.exact import Searcher

GOLDEN = 0.6180339887  # its multiples fall everywhere between whole numbers


def named(searcher: Searcher, words: str) -> np.ndarray:
    """Which clips are of files whose names hold all these words, bool [n]."""
    wanted = words.casefold().split()
    found = [
        number
        for number in np.unique(searcher.file).tolist()
        if all(word in searcher.names[number].casefold() for word in wanted)
    ]
    return np.isin(searcher.file, found)


def file_of(searcher: Searcher, row: int) -> np.ndarray:
    """All clips of the file that a clip is of, in the order of time."""
    same = searcher.file == searcher.file[row]
    same &= searcher.collection == searcher.collection[row]
    rows = np.flatnonzero(same)
    return rows[np.argsort([searcher.clip(row).start_s for row in rows.tolist()])]


def spread(
    searcher: Searcher, allowed: np.ndarray, k: int, *, turn: int = 0
) -> np.ndarray:
    """Up to k of the clips that may be found, evenly of as many files as there are.

    Args:
        searcher: All clips.
        allowed: bool [n].
        k: Number of clips.
        turn: Another one gives other clips.
    """
    rows = np.flatnonzero(allowed)
    if len(rows) <= k:
        return rows
    phase = (0.5 + turn * GOLDEN) % 1
    pairs = np.stack([searcher.collection[rows], searcher.file[rows]], axis=1)
    files: dict[tuple[int, int], list[int]] = {}
    for pair, row in zip(map(tuple, pairs.tolist()), rows.tolist(), strict=True):
        files.setdefault(pair, []).append(row)
    chosen = _evenly(list(files.values()), k, phase)
    return np.array(
        [x for each in chosen for x in _evenly(each, k // len(chosen), phase)]
    )


def _evenly(items: list[Any], number: int, phase: float) -> list[Any]:
    size = len(items)
    if size <= number:
        return items
    return [items[int((i + phase) / number * size)] for i in range(number)]
