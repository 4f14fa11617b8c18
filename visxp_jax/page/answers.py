"""What the page asks, and the answers as JSON values."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.page.live import Now
from visxp_jax.report.gallery import clock
from visxp_jax.report.markup import shown
from visxp_jax.search import browse
from visxp_jax.search.catalogue import SENSES, Hit
from visxp_jax.search.exact import Searcher

RESULTS = 60
OF_FILE = 240  # of longer files every other second, or fewer
MAX_TEXT = 4096  # of a file name
AFTER_S = 4.0  # of a clip, that are played as well
MAX_SHOT_S = 20.0  # of longer shots only the clip and what comes after it


class Upload(NamedTuple):
    """A file from elsewhere to search by."""

    name: str
    at_s: float
    vectors: dict[str, np.ndarray]


class Missing(VisxpError):
    """There is no such thing (any more)."""


def played(hit: Hit) -> tuple[float, float]:
    """From when to when its file is played: its shot, or it and some after it."""
    first, last = hit.shot_start_s, hit.shot_end_s
    if first is not None and last is not None and 0 < last - first <= MAX_SHOT_S:
        return first, last
    return hit.start_s, hit.end_s + AFTER_S


def clip_json(searcher: Searcher, hit: Hit) -> dict[str, Any]:
    """A clip as the page knows it; `name`, `folder` and `in` are to be shown."""
    shot = None
    if hit.shot_start_s is not None and hit.shot_end_s is not None:
        shot = f"{clock(hit.shot_start_s)} – {clock(hit.shot_end_s)}"
    path = PurePosixPath(hit.path)
    return {
        "row": hit.row,
        "path": hit.path,
        "name": shown(path.name or hit.path),
        "folder": shown(str(path.parent)),
        "start_s": hit.start_s,
        "at": clock(hit.start_s),
        "end": clock(hit.end_s),
        "end_s": hit.end_s,
        "key": hit.collection,
        "in": shown(hit.collection),
        "plays_from_s": played(hit)[0],
        "shot": shot,
        "shot_start_s": hit.shot_start_s,
        "shot_end_s": hit.shot_end_s,
        "agreement": hit.agreement,
        "heard": searcher.has(hit.row, "audio"),
        "score": None,
    }


def about(now: Now, *, model: bool, across: str | None) -> dict[str, Any]:
    """What the page begins with.

    Args:
        now: The index.
        model: Whether there is one.
        across: What scores across are, of `finder.ACROSS`; None if there are none.
    """
    searcher = now.searcher
    clips = np.bincount(searcher.collection)
    _, first = np.unique(browse.files(searcher), return_index=True)
    files = np.bincount(searcher.collection[first])
    ways = [["sight", "sight"], ["sound", "sound"]]
    ways += [["sight", "sound"], ["sound", "sight"]] if across else []
    return {
        "index": now.stamp,
        "clips": len(searcher),
        "files": len(first),
        "collections": [
            {
                "key": searcher.names[i],
                "name": shown(searcher.names[i]) or "(no collection)",
                "clips": int(clips[i]),
                "files": int(files[i]),
            }
            for i in np.flatnonzero(clips).tolist()
        ],
        "model": model,
        "ways": ways,
        "across": across,
    }


def answer(
    now: Now, asked: Mapping[str, Sequence[str]], uploads: Mapping[str, Upload]
) -> dict[str, Any]:
    """What the page shows for what its address says.

    Args:
        now: The index.
        asked: `like` (a file of the index) and `at` (its second), or `upload`, each
            with `by` and `find`; or `file`, or `name`, or nothing, for a spread, which
            `others` makes another. `from` is the collection of `like` or `file`. `in`
            names collections, `every` asks for more than the best second of each file.
        uploads: By their keys.

    Raises:
        Missing: the clip or the upload is not there.
        VisxpError: it makes no sense, or something is missing that is needed.
    """
    searcher = now.searcher
    one = {name: values[-1] for name, values in asked.items() if values}
    if any(len(value) > MAX_TEXT for value in one.values()):
        raise VisxpError(f"a question must have at most {MAX_TEXT} characters.")
    collections = list(asked.get("in", ())) or None
    allowed = searcher.allowed(collections)
    query, hits, total = None, [], None
    if "like" in one or "upload" in one:
        row = None
        if "like" in one:
            row = _row(searcher, one, "like", number(one.get("at", "0")))
            query, vectors = searcher.clip(row), now.finder.vectors(row)
            query = clip_json(searcher, query)
        else:
            upload = uploads.get(one["upload"])
            if upload is None:
                raise Missing("the file is no longer held here; choose it again.")
            query, vectors = upload_json(one["upload"], upload), upload.vectors
        hits = now.finder.find(
            vectors,
            by=_side(one, "by"),
            find=_side(one, "find"),
            row=row,
            k=RESULTS,
            collections=collections,
            once="every" not in one,
        )
    elif "file" in one:
        row = _row(searcher, one, "file", None)
        rows = browse.file_of(searcher, row)
        query = clip_json(searcher, searcher.clip(int(rows[0])))
        total = len(rows)
        even = np.linspace(0, total - 1, min(total, OF_FILE)).astype(int)
        hits = _plain(searcher, rows[even])
    else:
        if "name" in one:
            allowed = allowed & browse.named(searcher, one["name"])
        turn = int(number(one.get("others", "0")))
        rows = browse.spread(searcher, allowed, RESULTS, turn=turn)
        hits = _plain(searcher, rows)
    searched = "like" in one or "upload" in one
    return {
        "index": now.stamp,
        "query": query,
        "total": int(allowed.sum()) if total is None else total,
        "hits": [
            clip_json(searcher, hit) | ({"score": hit.score} if searched else {})
            for hit in hits
        ],
    }


def upload_json(key: str, upload: Upload) -> dict[str, Any]:
    """A file from elsewhere as the page knows it."""
    return {
        "upload": key,
        "name": shown(upload.name),
        "at": clock(upload.at_s),
        "start_s": upload.at_s,
        "seen": "video" in upload.vectors,
        "heard": "audio" in upload.vectors,
    }


def _plain(searcher: Searcher, rows: np.ndarray) -> list[Hit]:
    return [searcher.clip(row) for row in rows.tolist()]


def _row(
    searcher: Searcher, one: Mapping[str, str], name: str, at_s: float | None
) -> int:
    """The clip of a file, by the name and collection that the index has for it."""
    row = searcher.row(one[name], at_s, one.get("from"))
    if row is None:
        raise Missing(
            "the index has no such file, or not that second of it (any more)."
        )
    return row


def number(text: str) -> float:
    """A time in seconds, or a count.

    Raises:
        VisxpError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise VisxpError(f"a time or number must be 0 or more, got {text[:20]!r}.")
    return value


def _side(one: Mapping[str, str], name: str) -> str | None:
    value = one.get(name)
    if value is not None and value not in SENSES:
        raise VisxpError(f"{name} must be sight or sound, got {value[:20]!r}.")
    return value
