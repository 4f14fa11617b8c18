"""The pictures of the demo videos: one moving form per kind, amid nuisance.

A form is a signed distance function of object coordinates `u` (right) and `v` (down),
in which the object has radius 1; negative is inside. Scaled by the radius in pixels it
gives coverage with edges one pixel soft. All functions take arrays of any one shape.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Plane = np.ndarray
Form = Callable[[Plane, Plane], Plane]


class Look(NamedTuple):
    """How a kind looks and moves.

    Attributes:
        form: Signed distance of the form.
        turn_rad: Largest random turn; small where the direction tells kinds apart.
        path: Shift (right, down; in frame widths) and tilt (rad) at a phase (rad).
        path_hz: Rounds of the path per second.
    """

    form: Form
    turn_rad: float
    path: Callable[[Plane], tuple[Plane, Plane, Plane]]
    path_hz: float


def _fold(u: Plane, v: Plane, sectors: int) -> tuple[Plane, Plane]:
    """Turn every point into the sector about the u axis: n-fold symmetry."""
    sector_rad = 2 * np.pi / sectors
    angle = np.arctan2(v, u)
    angle -= sector_rad * np.round(angle / sector_rad)
    radius = np.hypot(u, v)
    return radius * np.cos(angle), radius * np.sin(angle)


def _bars(x: Plane, period: float) -> Plane:
    """Distance to bars across x, half of each period filled; a bar at x = 0."""
    return np.abs(x - period * np.round(x / period)) - period / 4


def _disc(u: Plane, v: Plane) -> Plane:
    return np.hypot(u, v) - 0.95


def _ring(u: Plane, v: Plane) -> Plane:
    return np.abs(np.hypot(u, v) - 0.75) - 0.19


def _target(u: Plane, v: Plane) -> Plane:
    radius = np.hypot(u, v)
    return np.minimum(radius - 0.42, np.abs(radius - 0.83) - 0.13)


def _beads(u: Plane, v: Plane) -> Plane:
    x, y = _fold(u, v, 6)
    return np.hypot(x - 0.72, y) - 0.24


def _triangle(u: Plane, v: Plane) -> Plane:
    half_width = math.sqrt(3) / 2 * np.abs(u)
    return np.maximum(v, half_width - v / 2) - 0.55


def _triangle_outline(u: Plane, v: Plane) -> Plane:
    return np.abs(_triangle(u, v) + 0.13) - 0.13


def _chevrons(u: Plane, v: Plane) -> Plane:
    side = np.abs(u)
    roof = v - 0.9 * side + 0.4
    inside = np.maximum(side - 0.85, np.abs(roof) - 0.75)
    return np.maximum(inside, 0.74 * _bars(roof, 0.6))


def _hourglass(u: Plane, v: Plane) -> Plane:
    return np.maximum(0.74 * (np.abs(u) - 0.9 * np.abs(v)), np.abs(v) - 0.9)


def _square(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u), np.abs(v)) - 0.8


def _window(u: Plane, v: Plane) -> Plane:
    x, y = np.abs(u), np.abs(v)
    edge = np.abs(np.maximum(x, y) - 0.75) - 0.12
    cross = np.maximum(np.minimum(x, y) - 0.12, np.maximum(x, y) - 0.8)
    return np.minimum(edge, cross)


def _checkers(u: Plane, v: Plane) -> Plane:
    cell = 0.46
    squares = np.sin(np.pi * u / cell) * np.sin(np.pi * v / cell) * cell / np.pi
    return np.maximum(squares, np.maximum(np.abs(u), np.abs(v)) - 2 * cell)


def _plus(u: Plane, v: Plane) -> Plane:
    x, y = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(x, y) - 0.3, np.maximum(x, y) - 0.92)


def _level_bars(u: Plane, v: Plane) -> Plane:
    return np.maximum(_bars(v, 0.56), np.maximum(np.abs(u) - 0.95, np.abs(v) - 0.75))


def _upright_bars(u: Plane, v: Plane) -> Plane:
    return _level_bars(v, u)


def _waves(u: Plane, v: Plane) -> Plane:
    height = v - 0.26 * np.sin(2 * math.pi * u)
    inside = np.maximum(np.abs(u) - 0.95, np.abs(height) - 0.75)
    return np.maximum(0.6 * _bars(height, 0.6), inside)


def _lattice(u: Plane, v: Plane) -> Plane:
    a, b = (u + v) / math.sqrt(2), (u - v) / math.sqrt(2)
    threads = np.minimum(_bars(a, 0.5), _bars(b, 0.5)) + 0.035
    return np.maximum(threads, np.hypot(u, v) - 0.95)


def _star(u: Plane, v: Plane) -> Plane:
    x, y = _fold(u, v, 5)
    notch_u, notch_v = 0.4 * math.cos(math.pi / 5), 0.4 * math.sin(math.pi / 5)
    edge = math.hypot(1 - notch_u, notch_v)
    return ((x - 1) * notch_v + np.abs(y) * (1 - notch_u)) / edge


def _blades(u: Plane, v: Plane) -> Plane:
    x, y = _fold(u, v, 3)
    return np.maximum(np.abs(y) - 0.22, x - 1)


def _rays(u: Plane, v: Plane) -> Plane:
    x, y = _fold(u, v, 8)
    return np.maximum(np.abs(y) - 0.095, x - 1)


def _crescent(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.hypot(u, v) - 0.95, 0.78 - np.hypot(u - 0.5, v))


def _swing(phase: Plane) -> tuple[Plane, Plane, Plane]:
    return 0.07 * np.sin(phase), 0.02 * np.cos(2 * phase), -0.2 * np.sin(phase)


def _rise(phase: Plane) -> tuple[Plane, Plane, Plane]:
    return 0 * phase, 0.08 * np.sin(phase), 0 * phase


def _shake(phase: Plane) -> tuple[Plane, Plane, Plane]:
    return 0.03 * np.cos(3 * phase), 0.03 * np.sin(3 * phase), 0 * phase


def _drift(phase: Plane) -> tuple[Plane, Plane, Plane]:
    return 0.09 * np.arcsin(np.sin(phase)) / 1.6, 0 * phase, 0.06 * np.sin(phase)


def _hop(phase: Plane) -> tuple[Plane, Plane, Plane]:
    return 0.04 * np.sin(phase), -0.09 * np.abs(np.sin(phase)), 0 * phase


LOOKS: dict[str, Look] = {
    "bell/toll": Look(_disc, 3.14, _swing, 0.5),
    "bell/peal": Look(_ring, 3.14, _swing, 0.9),
    "bell/roll": Look(_beads, 3.14, _swing, 2.0),
    "bell/chime": Look(_target, 3.14, _swing, 1.4),
    "siren/rise": Look(_triangle, 0.3, _rise, 0.5),
    "siren/fall": Look(_triangle_outline, 0.3, _rise, 0.9),
    "siren/wail": Look(_chevrons, 0.3, _rise, 1.4),
    "siren/yelp": Look(_hourglass, 0.3, _rise, 2.0),
    "motor/hum": Look(_square, 0.3, _shake, 0.9),
    "motor/putter": Look(_checkers, 0.3, _shake, 1.4),
    "motor/rev": Look(_plus, 0.3, _shake, 2.0),
    "motor/brake": Look(_window, 0.3, _shake, 0.5),
    "wind/hiss": Look(_level_bars, 0.2, _drift, 0.5),
    "wind/gust": Look(_waves, 0.2, _drift, 0.9),
    "wind/scrub": Look(_lattice, 0.2, _drift, 2.0),
    "wind/spray": Look(_upright_bars, 0.2, _drift, 1.4),
    "bird/tweet": Look(_star, 0.6, _hop, 1.4),
    "bird/coo": Look(_crescent, 0.8, _hop, 0.5),
    "bird/trill": Look(_rays, 3.14, _hop, 2.0),
    "bird/warble": Look(_blades, 3.14, _hop, 0.9),
}


def cut_times(seconds: float, *, rng: np.random.Generator) -> np.ndarray:
    """Start times of the stretches between which the nuisance changes.

    Args:
        seconds: Length of the whole, s.
        rng: Source of chance.

    Returns:
        float64, ascending, the first 0.0; steps of 1 to 2 s.
    """
    steps = rng.uniform(1.0, 2.0, int(seconds) + 1)
    starts = np.concatenate([[0.0], np.cumsum(steps)])
    return starts[starts < seconds - 0.5]


def _colours(count: int, luminance: float, rng: np.random.Generator) -> np.ndarray:
    """[count, 3] colours of random hue whose channels average about `luminance`."""
    tint = rng.uniform(-0.35, 0.35, (count, 3))
    tint -= tint.mean(axis=1, keepdims=True)
    return np.clip(luminance + tint, 0.0, 1.0).astype(np.float32)


def _background(luminance: float, size_px: int, rng: np.random.Generator) -> np.ndarray:
    """[h, w, 3] in [0, 1]: a gradient, some coloured waves, small clutter."""
    y, x = np.mgrid[:size_px, :size_px].astype(np.float32) / size_px - 0.5
    first, second = _colours(2, luminance, rng)
    angle = rng.uniform(0, 2 * np.pi)
    mix = (0.5 + 0.7 * (x * np.cos(angle) + y * np.sin(angle)))[..., None]
    image = first * mix + second * (1 - mix)
    for _ in range(4):
        cycles = rng.uniform(-3, 3, 2)
        wave = np.sin(
            2 * np.pi * (cycles[0] * x + cycles[1] * y) + rng.uniform(0, 2 * np.pi)
        )
        image = image + wave[..., None] * rng.uniform(-0.06, 0.06, 3)
    for _ in range(rng.integers(2, 6)):
        spot = rng.uniform(-0.5, 0.5, 2)
        radius = rng.uniform(0.03, 0.07)
        form = (_disc, _square, _triangle)[rng.integers(3)]
        distance = form((x - spot[0]) / radius, (y - spot[1]) / radius)
        cover = np.clip(0.5 - distance * radius * size_px, 0, 1)[..., None]
        image = image + cover * (rng.uniform(0, 1, 3) - image)
    return image.astype(np.float32)


def _stretch(
    look: Look, times_s: np.ndarray, size_px: int, rng: np.random.Generator
) -> np.ndarray:
    """[t, h, w, 3] uint8: the frames between two cuts, one draw of the nuisance."""
    luminance = rng.uniform(0.15, 0.85)
    # Dark on light or light on dark; either where the middle grey leaves room for both.
    lighter = luminance + rng.uniform(-0.1, 0.1) < 0.5
    contrast = rng.uniform(0.4, 0.6) * (1 if lighter else -1)
    background = _background(luminance, size_px, rng)
    colours = _colours(2, float(np.clip(luminance + contrast, 0.05, 0.95)), rng)
    radius = rng.uniform(0.28, 0.40)
    centre = rng.uniform(-1, 1, 2) * (0.53 - radius)
    turn = rng.uniform(-look.turn_rad, look.turn_rad)
    stretch = np.exp(rng.uniform(-0.1, 0.1))

    phase = 2 * np.pi * look.path_hz * times_s + rng.uniform(0, 2 * np.pi)
    right, down, tilt = (part[:, None, None] for part in look.path(phase))
    y, x = np.mgrid[:size_px, :size_px].astype(np.float32) / size_px - 0.5
    x, y = x - np.float32(centre[0] + right), y - np.float32(centre[1] + down)
    angle = np.float32(turn + tilt)
    across, up = np.float32(stretch / radius), np.float32(1 / stretch / radius)
    u = across * (np.cos(angle) * x + np.sin(angle) * y)
    v = up * (np.cos(angle) * y - np.sin(angle) * x)
    distance = look.form(u, v)
    cover = np.clip(0.5 - distance * np.float32(radius * size_px), 0, 1)[..., None]
    shade = np.clip(0.5 + 0.5 * v, 0, 1)[..., None]
    paint = colours[0] + shade * (0.4 * (colours[1] - colours[0]))
    frames = background + cover * (paint - background)
    return (255 * np.clip(frames, 0, 1) + 0.5).astype(np.uint8)


def render_frames(
    kind: str, times_s: np.ndarray, *, size_px: int, rng: np.random.Generator
) -> np.ndarray:
    """The frames of one demo video.

    Form and motion follow the kind; background, colours, size, place, turn and clutter
    are drawn anew at every cut.

    Args:
        kind: A key of `LOOKS`.
        times_s: Time of each frame, s, ascending from 0, [t].
        size_px: Width and height.
        rng: Source of chance.

    Returns:
        uint8 RGB, [t, size_px, size_px, 3].
    """
    seconds = float(times_s[-1]) + 1e-6
    cuts = np.append(cut_times(seconds, rng=rng), np.inf)
    return np.concatenate(
        [
            _stretch(
                LOOKS[kind],
                times_s[(times_s >= start) & (times_s < end)],
                size_px,
                rng,
            )
            for start, end in zip(cuts[:-1], cuts[1:], strict=True)
        ]
    )
