"""Clips to begin with: spread over a collection, by the names of files, of one file."""

import numpy as np

from visxp_jax.search.exact import Searcher

GOLDEN = 0.6180339887  # its multiples fall everywhere between whole numbers


def files(searcher: Searcher) -> np.ndarray:
    """A number for each clip, the same for those of one file in one collection."""
    collection = searcher.collection.astype(np.int64)
    return collection * len(searcher.names) + searcher.file


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
    number = files(searcher)
    rows = np.flatnonzero(number == number[row])
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
    _, first, place, counts = np.unique(
        files(searcher)[rows], True, return_inverse=True, return_counts=True
    )
    by_file = np.split(rows[np.argsort(place, kind="stable")], np.cumsum(counts)[:-1])
    chosen = _evenly(np.argsort(first), k, phase)
    share = k // len(chosen)
    return np.concatenate([_evenly(by_file[file], share, phase) for file in chosen])


def _evenly(items: np.ndarray, number: int, phase: float) -> np.ndarray:
    if len(items) <= number:
        return items
    return items[((np.arange(number) + phase) / number * len(items)).astype(int)]
