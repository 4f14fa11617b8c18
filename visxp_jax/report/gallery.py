"""Clips to see and to hear: strips of frames by cluster and by similarity."""

import base64
from collections.abc import Sequence
from pathlib import PurePosixPath

from visxp_jax.report.content import Clip, Cluster, Neighbours
from visxp_jax.report.markup import none, text


class Media:
    """Pictures and sounds of the page, each embedded where it first comes."""

    def __init__(self) -> None:
        """Nothing is embedded yet."""
        self._frames: dict[bytes, int] = {}
        self._sounds: dict[bytes, int] = {}

    def frame(self, jpeg: bytes, alt: str) -> str:
        """An image element; a picture that came before refers to the first one."""
        if not jpeg:
            return '<span class="noframe">no picture</span>'
        known = jpeg in self._frames
        at = self._frames.setdefault(jpeg, len(self._frames))
        data = base64.b64encode(jpeg).decode("ascii")
        source = (
            f'data-same="f{at}"'
            if known
            else f'id="f{at}" src="data:image/jpeg;base64,{data}"'
        )
        return f'<img {source} alt="{alt}" decoding="async">'

    def sound(self, wav: bytes) -> int:
        """Number of a sound, under which the page finds it."""
        return self._sounds.setdefault(wav, len(self._sounds))

    def sounds_html(self) -> str:
        """All sounds as inert text, which costs nothing until one is played."""
        return "\n".join(
            f'<script type="text/plain" id="s{at}">'
            f"{base64.b64encode(wav).decode('ascii')}</script>"
            for wav, at in self._sounds.items()
        )


def clusters_html(clusters: Sequence[Cluster], media: Media, *, in_use: int) -> str:
    """Each cluster as a strip of clips, with tools to sort and find clusters.

    Args:
        clusters: To show.
        media: Pictures and sounds of the page.
        in_use: Number of clusters with a clip, of which `clusters` may be the largest.
    """
    if not clusters:
        return none("No clusters: this run ended before clips were clustered.")
    cards = "".join(_cluster(cluster, media) for cluster in clusters)
    rest = "" if in_use <= len(clusters) else f"<p>The largest of {in_use:,}.</p>"
    return (
        f"{rest}"
        '<div class="tools"><label>Sort by <select id="sort">'
        '<option value="size">size</option><option value="purity">purity</option>'
        '<option value="index">number</option></select></label>'
        '<label>Find <input id="filter" type="search" placeholder="label or file">'
        f'</label><output id="shown">{len(clusters)} of {len(clusters)} clusters'
        f'</output></div><div id="cards">{cards}</div>'
    )


def _cluster(cluster: Cluster, media: Media) -> str:
    words = {f"cluster {cluster.index}", cluster.top_label or ""}
    words |= {word for clip in cluster.clips for word in (clip.video, clip.label or "")}
    purity = "" if cluster.purity is None else f"{cluster.purity:.4f}"
    facts = [f"{cluster.size:,} clip{'' if cluster.size == 1 else 's'}"]
    if cluster.purity is not None:
        of = f" {cluster.top_label}" if cluster.top_label else " pure"
        facts.append(f"{cluster.purity:.0%}{of}")
    elif cluster.top_label:
        facts.append(f"mostly {cluster.top_label}")
    heard = any(clip.sound_wav for clip in cluster.clips)
    play = '<button class="all" type="button">play all</button>' if heard else ""
    clips = "".join(_clip(clip, media, top=cluster.top_label) for clip in cluster.clips)
    return (
        f'<article class="card" data-index="{cluster.index}" '
        f'data-size="{cluster.size}" data-purity="{purity}" '
        f'data-text="{text(" ".join(sorted(words)))}"><header>'
        f"<h3>Cluster {cluster.index}</h3><p>{text(' · '.join(facts))}</p>{play}"
        f'</header><div class="strip">{clips}</div></article>'
    )


def clock(start_s: float) -> str:
    """A position in a video as minutes:seconds, with hours where there are any."""
    minutes, tenths = divmod(round(start_s * 10), 600)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{whole}:{tenths / 10:04.1f}"


def _clip(
    clip: Clip, media: Media, *, top: str | None = None, near: float | None = None
) -> str:
    name = PurePosixPath(clip.video).name or clip.video
    at = clock(clip.start_s)
    label = text(clip.label) if clip.label else "no label"
    told = f"{label}, {text(clip.video)} at {at}"
    odd = top is not None and clip.label is not None and clip.label != top
    css = "label odd" if odd else "label" if clip.label else "label unlabelled"
    note = "" if near is None else f'<span class="near">{near:.2f}</span>'
    frame = media.frame(clip.frame_jpeg, told)
    if clip.sound_wav:
        opening = f'<button type="button" data-sound="{media.sound(clip.sound_wav)}"'
        frame = f'{opening} title="play: {told}">{frame}<i class="run"></i></button>'
    else:
        frame = f'<span class="silent" title="{told}; no sound">{frame}</span>'
    return (
        f'<div class="clip">{frame}{note}<span class="{css}">{label}</span>'
        f'<span class="where" title="{text(clip.video)}">{text(name)}</span>'
        f'<span class="time">{at}</span></div>'
    )


def neighbours_html(neighbours: Sequence[Neighbours], media: Media) -> str:
    """Each query beside its lists of most similar clips."""
    if not neighbours:
        return none("No neighbours: no clips were compared.")
    return "".join(_neighbour(each, media) for each in neighbours)


def _neighbour(each: Neighbours, media: Media) -> str:
    wanted = each.query.label
    lists = []
    for name, found in each.lists.items():
        clips = "".join(_clip(c, media, top=wanted, near=near) for c, near in found)
        same = sum(clip.label == wanted for clip, _ in found)
        told = f"{same} of {len(found)} share its label" if wanted and found else ""
        lists.append(
            f"<section><h4>{text(name.replace('->', '→'))}<small>{told}</small></h4>"
            f'<div class="strip">{clips or none("None.")}</div></section>'
        )
    return (
        f'<article class="query"><div class="asked"><h3>Query</h3>'
        f'{_clip(each.query, media)}</div><div class="lists">{"".join(lists)}</div>'
        "</article>"
    )
