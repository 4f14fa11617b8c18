"""The hierarchy page of the clips around one."""

from pathlib import Path, PurePosixPath
from urllib.parse import urlencode

import numpy as np

from visxp_jax.evals.trees import sight_and_sound
from visxp_jax.feature_files import MODALITIES
from visxp_jax.hierarchy import build
from visxp_jax.media import printable
from visxp_jax.page.live import Now
from visxp_jax.report.content import Clip, Hierarchy
from visxp_jax.report.gallery import clock
from visxp_jax.report.markup import text
from visxp_jax.report.page import render_hierarchy
from visxp_jax.report.trees import tree_of_rows
from visxp_jax.search.catalogue import Hit
from visxp_jax.types import Features

CLIPS = 500


def hierarchy_page(now: Now, row: int) -> str:
    """The hierarchy over the clips that look most like one, which is its node 0.

    Args:
        now: The index.
        row: Of the one.
    """
    searcher = now.searcher
    query = searcher.vector(row, "video")
    rows = [row]
    if query is not None:
        (hits,) = searcher.search(query, "video", k=CLIPS)
        rows += sorted(hit.row for hit in hits if hit.row != row)[: CLIPS - 1]
    clips = [searcher.clip(i) for i in rows]
    hierarchy = None
    if len(rows) > 1:
        number = np.arange(len(rows))
        video, audio = (searcher.vectors(rows, name) for name in MODALITIES)
        features = Features(number, number, number, video, audio, fused=video)
        hierarchy = Hierarchy(
            clips=[
                Clip(
                    video=hit.path,
                    start_s=hit.start_s,
                    label=None,
                    frame_jpeg=searcher.thumbnail(hit.row),
                    sound_wav=None,
                    link=f"/#{urlencode(_asked(hit))}",
                )
                for hit in clips
            ],
            trees={
                name: tree_of_rows(build(x), x)
                for name, x in sight_and_sound(features).items()
            },
            apart=[None if x.agreement is None else 1 - x.agreement for x in clips],
        )
    of = f"{printable(Path(clips[0].path))} at {clock(clips[0].start_s)}"
    summary = {"around": of, "clips": f"{len(rows):,}, nearest by sight"}
    return render_hierarchy("Hierarchy", hierarchy, summary, _above(clips))


def _above(clips: list[Hit]) -> str:
    first = clips[0]
    back, name = f"/#{urlencode(_asked(first))}", PurePosixPath(first.path).name
    here = f"{text(name)} at {clock(first.start_s)}"
    others = f"{len(clips) - 1:,} seconds that look most like it"
    return (
        f'<nav class="back" aria-label="Search"><a href="{text(back)}">'
        f"← Search by this second</a> <span>{here}, and {others}</span></nav>\n"
    )


def _asked(hit: Hit) -> dict[str, str | float]:
    """The question what is like a clip, as the page's address has it."""
    return {"like": hit.path, "at": hit.start_s, "from": hit.collection}
