"""The page of a run: what it holds, and how that becomes one HTML text.

Everything is inside the page: no address is ever asked for. Text from outside (file
names, labels) is escaped. Each sound is embedded once; so is each picture, and once
more for the hierarchy, which draws them.
"""

import io
import json
import math
import wave as riff
from collections.abc import Mapping, Sequence

import numpy as np

from visxp_jax.report import chart
from visxp_jax.report.content import (
    Curve,
    Figure,
    HealthRow,
    Hierarchy,
    Report,
)
from visxp_jax.report.gallery import Media, clusters_html, neighbours_html
from visxp_jax.report.hierarchy import hierarchy_html
from visxp_jax.report.markup import (
    HELD,
    filled,
    head,
    made_html,
    none,
    resource,
    text,
)


def render(report: Report) -> str:
    """The report as one HTML page that needs no other file and no network.

    Args:
        report: What to show. Empty parts say that there is nothing to show, and why.

    Returns:
        HTML text without lone surrogates, to be written as UTF-8.
    """
    media = Media()
    curves, readouts = _curves(report.curves, report.stages)
    parts = {
        "title": text(report.title),
        "summary": made_html(report.summary),
        "warnings": _warnings(report.warnings),
        "figures": _figures(report.figures),
        "curves": curves,
        "health": _health(report.health, report.cluster_sizes),
        "clusters": clusters_html(
            report.clusters,
            media,
            in_use=sum(size > 0 for size in report.cluster_sizes),
        ),
        "neighbours": neighbours_html(report.neighbours, media),
        "hierarchy": hierarchy_html(report.hierarchy, media),
        "data": _data(report.data_rows),
        "head": head(report.title),
        "player": resource("player.js"),
        # Numbers alone: nothing in them could close the script element.
        "readouts": json.dumps(readouts, separators=(",", ":"), allow_nan=False),
        "sounds": media.sounds_html(),
    }
    return filled("template.html", **parts)


def render_hierarchy(
    title: str, hierarchy: Hierarchy | None, summary: Mapping[str, str], above: str = ""
) -> str:
    """The hierarchy as a page of its own, which needs no other file and no network.

    Args:
        title: Of the page.
        hierarchy: What to show.
        summary: What made it.
        above: HTML that comes first.

    Returns:
        HTML text without lone surrogates, to be written as UTF-8.
    """
    media = Media()
    return filled(
        "hierarchy.html",
        held=HELD,
        title=text(title),
        above=above,
        summary=made_html(summary),
        hierarchy=hierarchy_html(hierarchy, media),
        sounds=media.sounds_html(),
        head=head(title),
        player=resource("player.js"),
    )


def wav_bytes(wave: np.ndarray, rate_hz: int) -> bytes:
    """A mono sound as a WAV file of 16-bit samples.

    Args:
        wave: [n]; int16, or floating point in [-1, 1] (what exceeds it is clipped).
        rate_hz: Samples per second.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: `wave` is not one-dimensional, of another type or not finite.
    """
    if wave.ndim != 1 or (wave.dtype != np.int16 and wave.dtype.kind != "f"):
        raise ValueError(
            "wave must be int16 or floating point of shape [n], "
            f"got {wave.dtype} of shape {list(wave.shape)}."
        )
    if wave.dtype.kind == "f":
        if not np.isfinite(wave).all():
            raise ValueError("wave must be finite, got NaN or infinite samples.")
        wave = np.round(np.clip(wave, -1.0, 1.0) * 32767.0)
    file = io.BytesIO()
    with riff.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(wave.astype("<i2").tobytes())
    return file.getvalue()


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    rows = "".join(f"<li>{text(warning)}</li>" for warning in warnings)
    return f'<aside class="warnings"><h2>To look into</h2><ul>{rows}</ul></aside>'


def _value(value: float | None) -> str:
    return "not measured" if value is None else chart.number(value)


def _figures(figures: Sequence[Figure]) -> str:
    if not figures:
        return none("No figures: nothing was measured on held-out videos.")
    return (
        '<table class="figures"><thead><tr><th scope="col">Figure</th>'
        '<th scope="col">Value</th><th scope="col">On a scale from 0 to 1</th>'
        '<th scope="col">To compare</th></tr></thead><tbody>'
        + "".join(map(_figure, figures))
        + '</tbody></table><p class="key" aria-hidden="true"><span class="swatch fill">'
        '</span>this run <span class="swatch ring"></span>baseline '
        '<span class="swatch dash"></span>chance</p>'
    )


def _figure(figure: Figure) -> str:
    beside = [*figure.baselines.items()]
    if figure.chance is not None:
        beside.append(("chance", figure.chance))
    notes = "".join(
        f"<li>{text(name)} <b>{_value(value)}</b></li>" for name, value in beside
    )
    known = figure.value is not None and math.isfinite(figure.value)
    css = "" if known else ' class="unknown"'
    return (
        f'<tr><th scope="row">{text(figure.name)}<small>{text(figure.meaning)}</small>'
        f"</th><td{css}>{_value(figure.value)}</td><td>{_bar(figure)}</td>"
        f"<td>{f'<ul>{notes}</ul>' if notes else ''}</td></tr>"
    )


def _bar(figure: Figure) -> str:
    if not figure.is_share or figure.value is None or not 0 <= figure.value <= 1:
        return ""
    marks = [("ring", name, value) for name, value in figure.baselines.items()]
    marks.append(("dash", "chance", figure.chance))
    shown = "".join(
        f'<i class="{css}" style="left:{100 * value:.1f}%" '
        f'title="{text(name)} {_value(value)}"></i>'
        for css, name, value in marks
        if value is not None and 0 <= value <= 1
    )
    return (
        f'<div class="bar" aria-hidden="true"><i class="fill" '
        f'style="width:{100 * figure.value:.1f}%"></i>{shown}</div>'
    )


def _curves(
    curves: Sequence[Curve], stages: Sequence[tuple[str, int]]
) -> tuple[str, list[list[tuple[float, float, float, float]]]]:
    if not curves:
        return none("No curves: nothing was logged while training."), []
    groups: dict[str, list[str]] = {}
    readouts = []
    for curve in curves:
        drawn = chart.line_chart(
            curve.points,
            chance=curve.chance,
            stages=stages,
            described=_described(curve),
        )
        groups.setdefault(curve.group, []).append(_curve(curve, drawn, len(readouts)))
        readouts.append(drawn.readout)
    parts = [
        f"<h3>{text(group)}</h3><div class=charts>{''.join(charts)}</div>"
        for group, charts in groups.items()
    ]
    return "".join(parts), readouts


def _curve(curve: Curve, drawn: chart.LineChart, at: int) -> str:
    lost = sum(not math.isfinite(value) for _, value in curve.points)
    notes = ["log scale"] if drawn.log else []
    notes += (
        [f"chance {chart.number(curve.chance)}"] if curve.chance is not None else []
    )
    notes += [f"{lost} not finite"] if lost else []
    latest = f"{chart.number(drawn.readout[-1][1])}" if drawn.readout else "no value"
    body = drawn.svg or none("No finite value was logged.")
    return (
        f'<figure class="chart" data-curve="{at}"><figcaption><b>{text(curve.name)}</b>'
        f"<output>{latest}</output></figcaption>{body}"
        f"<small>{text(' · '.join(notes))}</small></figure>"
    )


def _described(curve: Curve) -> str:
    finite = [p for p in curve.points if all(map(math.isfinite, p))]
    if not finite:
        return f"{curve.name}: no finite value"
    (first, start), (last, end) = min(finite), max(finite)
    chance = "" if curve.chance is None else f"; chance {chart.number(curve.chance)}"
    return (
        f"{curve.name}: {chart.number(start)} at step {first:g}, "
        f"{chart.number(end)} at step {last:g}{chance}"
    )


def _health(rows: Sequence[HealthRow], sizes: Sequence[int]) -> str:
    if not rows and not sizes:
        return none("No cluster health: this run made no clusters.")
    table = ""
    if rows:
        body = "".join(
            f'<tr><th scope="row">{text(row.name)}</th><td>{_value(row.value)}</td>'
            f"<td>{text(row.good)}</td></tr>"
            for row in rows
        )
        table = (
            '<table class="health"><thead><tr><th scope="col">Sign</th>'
            '<th scope="col">Latest</th><th scope="col">Healthy</th></tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )
    return f'<div class="pair">{table}{_sizes(sizes)}</div>'


def _sizes(sizes: Sequence[int]) -> str:
    total = sum(sizes)
    if not total:
        return ""
    used = sum(size > 0 for size in sizes)
    told = (
        f"{used} of {len(sizes)} clusters in use; the largest holds "
        f"{max(sizes) / total:.1%} of {total:,} clips, an equal share is "
        f"{1 / len(sizes):.1%}."
    )
    return (
        f'<figure class="chart"><figcaption><b>Cluster sizes</b></figcaption>'
        f"{chart.size_chart(sizes, described='Cluster sizes. ' + told)}"
        f"<small>{told}</small></figure>"
    )


def _data(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return none("Nothing is known of the preparation of the data.")
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>'
        for name, value in rows
    )
    return f'<table class="data"><tbody>{body}</tbody></table>'
