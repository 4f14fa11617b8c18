"""The page as one file, which finds what is alike by itself."""

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.sources import address_of, path_of
from visxp_jax.atomic import write_whole
from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import MODALITIES
from visxp_jax.media import printable
from visxp_jax.page.answers import RESULTS, about, clip_json
from visxp_jax.page.live import LiveIndex
from visxp_jax.page.markup import offline_page
from visxp_jax.report.gallery import Media
from visxp_jax.report.page import wav_bytes
from visxp_jax.report.sounds import SOUND_RATE_HZ, read_all
from visxp_jax.search.browse import spread
from visxp_jax.search.exact import Searcher

MAX_CLIPS = 2_000
MAX_HEARD = 400  # a sound is 43 kB


def write_page(index: Path, out: Path) -> None:
    """Write the page of a small index.

    Args:
        index: From `visxp search add`.
        out: The HTML file.

    Raises:
        VisxpError: it holds too much or nothing, or the page cannot be written.
    """
    now = LiveIndex(index, None).now()
    searcher = now.searcher
    n = len(searcher)
    if n > MAX_CLIPS:
        raise VisxpError(
            f"--out is for up to {MAX_CLIPS:,} clips, got {n:,} in {printable(index)}; "
            "without it the page is served."
        )
    rows = range(n)
    clips = [clip_json(searcher, searcher.clip(row)) for row in rows]
    paths = {clip["path"] for clip in clips}
    addresses = {path: address_of(Path.cwd(), path) for path in paths}
    clips = [clip | {"address": addresses[clip["path"]]} for clip in clips]
    media = Media()
    sounds, missing = _sounds(searcher, media)
    data = {
        "about": about(now, model=False, across=None)
        | {"ways": [["sight", "sight"], ["sound", "sound"], ["both", "both"]]},
        "clips": clips,
        "thumbnails": [_text(searcher.thumbnail(row)) for row in rows],
        "vectors": {x: _vectors(searcher.vectors(rows, x)) for x in MODALITIES},
        "sounds": sounds,
        "results": RESULTS,
    }
    name = os.path.basename(os.path.abspath(index))
    page = offline_page(f"Search in {name}", data, media.sounds_html())
    try:
        write_whole(out, page)
    except OSError as error:
        raise VisxpError(f"cannot write {printable(out)}: {error.strerror}.") from error
    heard = sum(sound is not None for sound in sounds)
    told = f"{n} clips, sounds of {heard} -> {printable(out)}"
    told += f", {out.stat().st_size / 1e6:.1f} MB"
    print(told + f"; {missing} files can no longer be read" * bool(missing))


def _sounds(searcher: Searcher, media: Media) -> tuple[list[int | None], int]:
    """Numbers of the sounds of clips, None without, and how many files lack theirs."""
    heard = np.array([searcher.has(row, "audio") for row in range(len(searcher))])
    where: dict[int, tuple[Path, int]] = {}
    wanted: dict[Path, set[int]] = {}
    for row in spread(searcher, heard, MAX_HEARD).tolist():
        hit = searcher.clip(row)
        where[row] = path_of(Path.cwd(), hit.path), int(hit.start_s)
        wanted.setdefault(where[row][0], set()).add(where[row][1])
    waves, missing = read_all(wanted)
    found: list[int | None] = [None] * len(searcher)
    for row, key in where.items():
        if key in waves:
            found[row] = media.sound(wav_bytes(waves[key], SOUND_RATE_HZ))
    return found, missing


def _vectors(x: np.ndarray) -> dict[str, Any]:
    """Directions of rows [n, d] in whole numbers of one byte."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    whole = np.round(127 * x / np.where(largest > 0, largest, 1)).astype(np.int8)
    return {"width": x.shape[1], "data": _text(whole.tobytes())}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
