"""Line and bar charts as inline SVG, coloured by the style sheet of the page."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from visxp_jax.report import markup

# View box in user units, close to CSS pixels at the width of a phone.
WIDTH, HEIGHT = 350, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 20, 24
# A chart has about 300 pixels across: more points than this cannot be told apart.
MAX_POINTS = 400
# Values that span more than this factor are drawn on a logarithmic axis.
LOG_RATIO = 100.0

Point = tuple[float, float]


class Scale(NamedTuple):
    """Maps values to positions along one axis, linearly or by logarithm."""

    low: float
    high: float
    start: float  # position of `low`
    end: float  # position of `high`
    log: bool = False

    def __call__(self, value: float) -> float:
        """Position of a value, in user units."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


class LineChart(NamedTuple):
    """A drawn curve and what its hover read-out needs."""

    svg: str
    readout: list[tuple[float, float, float, float]]  # step, value, x, y
    log: bool


def number(value: float) -> str:
    """A number as short as it can be read: 0.912, 1,250, 3.2e-05."""
    if not math.isfinite(value):
        return "not finite"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:.3f}" if 0.1 <= abs(value) < 0.9995 else f"{value:.3g}"


def ticks(low: float, high: float, *, most: int) -> list[float]:
    """Round numbers within [low, high], at most `most` of them (at least one step)."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], thinned out to five."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    stride = max(1, math.ceil((last - first + 1) / 5))
    return [10.0**p for p in range(first, last + 1, stride)]


def thin(points: Sequence[Point], *, most: int = MAX_POINTS) -> list[Point]:
    """At most `most` points that keep every peak, trough and gap that can be seen.

    Args:
        points: (step, value), in the order of steps; values may be NaN.
        most: Upper bound on the points returned, at least 6.

    Returns:
        The points themselves if they are few enough; else, of each stretch, the
        lowest, the highest and the first that is not finite.
    """
    if len(points) <= most:
        return list(points)
    width = math.ceil(len(points) / ((most - 2) // 3))
    keep = {0, len(points) - 1}
    for start in range(0, len(points), width):
        stretch = range(start, min(start + width, len(points)))
        finite = [i for i in stretch if math.isfinite(points[i][1])]
        if finite:
            keep.add(min(finite, key=lambda i: points[i][1]))
            keep.add(max(finite, key=lambda i: points[i][1]))
        if len(finite) < len(stretch):
            keep.add(next(i for i in stretch if not math.isfinite(points[i][1])))
    return [points[i] for i in sorted(keep)]


def line_chart(
    points: Sequence[Point],
    *,
    chance: float | None,
    stages: Sequence[tuple[str, int]],
    described: str,
) -> LineChart:
    """One curve over steps, with its chance level and the borders of the stages.

    Args:
        points: (step, value) in any order. A value that is not finite is a gap.
        chance: Level of the dashed line, in the unit of the values, or None.
        stages: (name, first step) of each stage.
        described: What the chart shows, for readers who cannot see it.

    Returns:
        `LineChart(svg, readout, log)`. Without a finite point `svg` is empty.
    """
    # Logged values may be NumPy scalars, which JSON does not take.
    plain = [(float(step), float(value)) for step, value in points]
    points = thin(sorted((p for p in plain if math.isfinite(p[0])), key=lambda p: p[0]))
    finite = [p for p in points if math.isfinite(p[1])]
    if not finite:
        return LineChart("", [], False)
    values = [value for _, value in finite]
    levels = (
        values if chance is None or not math.isfinite(chance) else [*values, chance]
    )
    y = _value_scale(levels)
    x = _step_scale([step for step, _ in finite], stages)
    y_ticks = log_ticks(y.low, y.high) if y.log else ticks(y.low, y.high, most=5)
    parts = [_y_axis(y, y_ticks), _x_axis(x), _stage_marks(x, stages)]
    if chance is not None and math.isfinite(chance):
        parts.append(_across(y(chance), "chance"))
    parts.append(_curve(points, x, y))
    parts.append('<g class="cursor" visibility="hidden"><path/><circle r="4"/></g>')
    readout = [(s, v, round(x(s), 1), round(y(v), 1)) for s, v in finite]
    return LineChart(_svg(parts, described, focus=True), readout, y.log)


def size_chart(sizes: Sequence[int], *, described: str) -> str:
    """Bars of the cluster sizes, largest first, beside a line at the equal share."""
    ordered = sorted(sizes, reverse=True)
    if not ordered or ordered[0] <= 0:
        return ""
    y = Scale(0.0, ordered[0] * 1.08, HEIGHT - BOTTOM, TOP)
    pitch = (WIDTH - LEFT - RIGHT) / len(ordered)
    # Gaps between bars only where there is room for them.
    bar = pitch * 0.78 if pitch > 3 else pitch
    bars = "".join(
        f"M{LEFT + i * pitch + (pitch - bar) / 2:.2f} {HEIGHT - BOTTOM}"
        f"V{y(size):.1f}h{bar:.2f}V{HEIGHT - BOTTOM}z"
        for i, size in enumerate(ordered)
        if size > 0
    )
    parts = [
        _y_axis(y, [t for t in ticks(0, y.high, most=4) if t == int(t)]),
        f'<path class="bars" d="{bars}"/>',
        _across(y(sum(ordered) / len(ordered)), "chance"),
        _text(WIDTH - RIGHT, HEIGHT - 8, "clusters, largest first", "end"),
    ]
    return _svg(parts, described, focus=False)


def _value_scale(levels: Sequence[float]) -> Scale:
    low, high = min(levels), max(levels)
    ends = (HEIGHT - BOTTOM, TOP)
    if low > 0 and high / low >= LOG_RATIO:
        return Scale(low / 1.2, high * 1.2, *ends, log=True)
    # Start at zero where that costs little of the height; else pad both ends.
    base = 0.0 if 0 <= low <= 0.4 * high else None
    level = high - low <= 1e-6 * max(abs(low), abs(high))
    pad = (0.1 * abs(high) or 1.0) if level else 0.06 * (high - low)
    return Scale(low - pad if base is None else base, high + pad, *ends)


def _step_scale(steps: Sequence[float], stages: Sequence[tuple[str, int]]) -> Scale:
    low = min([steps[0], *(first for _, first in stages[:1])])
    high = max(steps[-1], low + 1)
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def _y_axis(y: Scale, values: Sequence[float]) -> str:
    lines = "".join(f"M{LEFT} {y(v):.1f}H{WIDTH - RIGHT}" for v in values)
    texts = (_text(LEFT - 6, y(v) + 3.5, _tick(v), "end") for v in values)
    return f'<path class="grid" d="{lines}"/>' + "".join(texts)


def _x_axis(x: Scale) -> str:
    values = [v for v in ticks(x.low, x.high, most=5) if v == int(v)]
    marks = "".join(f"M{x(v):.1f} {HEIGHT - BOTTOM}v4" for v in values)
    base = f"M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"
    texts = []
    for v in values:
        # A label under the right-hand end would stick out of the drawing.
        anchor = "end" if x(v) > WIDTH - RIGHT - 14 else "middle"
        texts.append(_text(x(v), HEIGHT - 8, _tick(v), anchor))
    return f'<path class="axis" d="{base}{marks}"/>' + "".join(texts)


def _stage_marks(x: Scale, stages: Sequence[tuple[str, int]]) -> str:
    parts = []
    inside = [(name, first) for name, first in stages if x.low <= first < x.high]
    for i, (name, first) in enumerate(inside):
        end = inside[i + 1][1] if i + 1 < len(inside) else x.high
        if first > x.low:
            bottom = HEIGHT - BOTTOM
            parts.append(f'<path class="stage" d="M{x(first):.1f} 6V{bottom}"/>')
        # A letter is about 6 units wide: leave out names that would overlap.
        if 6 * len(name) + 6 <= x(end) - x(first):
            parts.append(_text(x(first) + 4, 13, name, "start"))
    return "".join(parts)


def _curve(points: Sequence[Point], x: Scale, y: Scale) -> str:
    path, lone, pen_down = [], [], False
    for i, (step, value) in enumerate(points):
        if not math.isfinite(value):
            pen_down = False
            continue
        at = f"{x(step):.1f} {y(value):.1f}"
        path.append(("L" if pen_down else "M") + at)
        followed = i + 1 < len(points) and math.isfinite(points[i + 1][1])
        if not pen_down and not followed:
            cx, cy = at.split()
            lone.append(f'<circle class="dot" cx="{cx}" cy="{cy}" r="3"/>')
        pen_down = True
    return f'<path class="line" d="{"".join(path)}"/>' + "".join(lone)


def _across(y: float, css: str) -> str:
    return f'<path class="{css}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'


def _tick(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    return f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {at}>{markup.text(text)}</text>"


def _svg(parts: Sequence[str], described: str, *, focus: bool) -> str:
    stop = ' tabindex="0"' if focus else ""
    label = markup.text(described)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"{stop} aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )
