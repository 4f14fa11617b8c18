"""The page of agreement: videos and seconds whose sound fits their picture least."""

import base64
import html
import string
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from visxp_jax.report.gallery import clock
from visxp_jax.report.markup import (
    filled,
    head,
    made_html,
    none,
    resource,
    text,
)

# The course of a video is drawn from a letter for each second, or for each of so many
# equal parts of a longer one.
MAX_PARTS = 400
LETTERS = string.digits + string.ascii_lowercase
NOTHING = "-"  # to hear


class Second(NamedTuple):
    """One second of a video."""

    video: str
    start_s: float
    agreement: float
    thumbnail: bytes
    address: str = ""  # URL of the video; none if it is not there


class Video(NamedTuple):
    """One video."""

    path: str
    seconds: int
    agreement: float | None  # mean; None if there is nothing to hear
    mute: float  # share of seconds without sound
    silent: float  # share of seconds that are silent
    course: np.ndarray  # agreement of each second; NaN where there is nothing to hear
    lowest: Sequence[Second]


def course_text(course: np.ndarray) -> str:
    """A letter for each part of a video: from 0, none, to z, sure agreement."""
    parts = np.array_split(course, min(len(course), MAX_PARTS))
    letters = []
    for part in parts:
        heard = part[~np.isnan(part)]
        at = round(float(heard.mean()) * (len(LETTERS) - 1)) if len(heard) else None
        letters.append(NOTHING if at is None else LETTERS[at])
    return "".join(letters)


def agreement_html(
    title: str,
    videos: Sequence[Video],
    seconds: Sequence[Second],
    *,
    of: int,
    made: Mapping[str, str],
) -> str:
    """The whole page, which asks no network for anything.

    Args:
        title: Of the page.
        videos: Those to show.
        seconds: Those to show, the one with the least agreement first.
        of: Number of videos that there are.
        made: What made it.
    """
    some = f" {len(videos):,} are shown, of the least agreement or the most silence."
    shown = "" if of <= len(videos) else some
    lead = f"{of:,} videos.{shown}"
    return filled(
        "agreement.html",
        head=head(title, style=resource("agreement.css")),
        made=made_html(made),
        title=text(title),
        lead=lead,
        videos="".join(_video(video) for video in videos) or none("No videos."),
        seconds="".join(_second(second, named=True) for second in seconds)
        or none("No second has both picture and sound."),
        script=resource("lists.js") + resource("agreement.js"),
    )


def _video(video: Video) -> str:
    name = PurePosixPath(video.path).name
    strip = "".join(map(_second, video.lowest))
    value = "" if video.agreement is None else f"{video.agreement:.4f}"
    told = "<b>nothing to hear</b>"
    if video.agreement is not None:
        told = f"agreement <b>{video.agreement:.0%}</b>"
    notes = [f"{clock(video.seconds)} long"]
    notes += [f"{video.mute:.0%} without sound"] if video.mute else []
    notes += [f"{video.silent:.0%} silent"] if video.silent else []
    return (
        f'<article class="video" data-agreement="{value}" '
        f'data-seconds="{video.seconds}" '
        f'data-mute="{video.mute:.4f}" data-silent="{video.silent:.4f}" '
        f'data-name="{html.escape(video.path)}">'
        f'<h3 title="{text(video.path)}">{text(name)}</h3>'
        f"<p>{told} <small>{', '.join(notes)}</small></p>"
        f'<canvas data-course="{course_text(video.course)}" role="img" '
        f'aria-label="Agreement over {clock(video.seconds)}"></canvas>'
        f'<div class="strip">{strip}</div></article>'
    )


def _second(second: Second, *, named: bool = False) -> str:
    at, name = clock(second.start_s), PurePosixPath(second.video).name
    picture = '<span class="noframe">no picture</span>'
    if second.thumbnail:
        data = base64.b64encode(second.thumbnail).decode("ascii")
        picture = (
            f'<img src="data:image/jpeg;base64,{data}" alt="{text(name)} at {at}" '
            'loading="lazy" decoding="async">'
        )
    if second.address:
        picture = (
            f'<a href="{text(second.address)}#t={second.start_s:g}" target="_blank" '
            f'rel="noopener" aria-label="Open {text(name)} at {at}">{picture}</a>'
        )
    label = f"<span>{text(name)}</span> " if named else ""
    return (
        f'<figure title="{text(second.video)} at {at}" '
        f'data-file="{html.escape(second.video)}" '
        f'data-start="{second.start_s}" data-agreement="{second.agreement:.4f}">'
        f"{picture}"
        f"<figcaption>{label}{at} <b>{second.agreement:.0%}</b></figcaption></figure>"
    )
