"""Curves and bars: positions, gaps, ticks and scales."""

import math
import re

import pytest

from visxp_jax.report import chart

NAN = float("nan")


def draw(points, *, chance=None, stages=()):
    return chart.line_chart(points, chance=chance, stages=stages, described="loss")


def curve_path(svg: str) -> str:
    found = re.search(r'class="line" d="([^"]*)"', svg)
    assert found is not None
    return found[1]


def test_line_chart_spans_the_drawing_left_to_right_and_larger_is_higher():
    readout = draw([(0, 1.0), (50, 2.0), (100, 3.0)]).readout
    xs, ys = [row[2] for row in readout], [row[3] for row in readout]
    middle = (chart.LEFT + chart.WIDTH - chart.RIGHT) / 2
    assert xs == [chart.LEFT, middle, chart.WIDTH - chart.RIGHT]
    assert chart.HEIGHT - chart.BOTTOM >= ys[0] > ys[1] > ys[2] >= chart.TOP
    assert ys[1] == pytest.approx((ys[0] + ys[2]) / 2, abs=0.1)


def test_line_chart_value_not_finite_breaks_the_line():
    drawn = draw([(0, 1.0), (1, 2.0), (2, NAN), (3, 3.0), (4, math.inf), (5, 1.0)])
    assert curve_path(drawn.svg).count("M") == 3
    assert drawn.svg.count('class="dot"') == 2
    assert "nan" not in drawn.svg
    assert "inf" not in drawn.svg


@pytest.mark.parametrize("points", [[], [(0, NAN)], [(NAN, 1.0)]])
def test_line_chart_without_finite_points_is_empty(points):
    assert draw(points, chance=0.5) == chart.LineChart("", [], False)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 1e30])
def test_line_chart_single_or_constant_value_is_drawn(value):
    for points in ([(7, value)], [(0, value), (9, value)]):
        drawn = draw(points)
        assert len(drawn.readout) == len(points)
        assert "nan" not in drawn.svg


def test_line_chart_chance_level_is_inside_the_drawing():
    drawn = draw([(0, 0.1), (10, 0.2)], chance=0.693)
    level = re.search(r'class="chance" d="M46 ([\d.]+)H', drawn.svg)
    assert level is not None
    assert chart.TOP <= float(level[1]) < min(row[3] for row in drawn.readout)


def test_line_chart_wide_span_is_logarithmic():
    drawn = draw([(0, 1.0), (1, 0.1), (2, 0.01), (3, 0.001)])
    ys = [row[3] for row in drawn.readout]
    gaps = [b - a for a, b in zip(ys, ys[1:], strict=False)]
    assert drawn.log
    assert max(gaps) - min(gaps) < 0.3
    assert not draw([(0, 1.0), (1, 0.0)]).log


def test_line_chart_marks_the_border_between_stages():
    points = [(step, 1.0) for step in range(0, 101, 10)]
    svg = draw(points, stages=[("avc", 0), ("selflabel", 50)]).svg
    assert svg.count('class="stage"') == 1
    assert re.search(r'class="stage" d="M193.0 ', svg)
    assert ">avc<" in svg
    assert ">selflabel<" in svg
    assert ">selflabel<" not in draw(points, stages=[("avc", 0), ("selflabel", 95)]).svg


def test_line_chart_draws_points_in_the_order_of_steps():
    assert [row[0] for row in draw([(2, 1.0), (0, 2.0), (1, 3.0)]).readout] == [0, 1, 2]


def test_thin_keeps_peaks_ends_and_gaps():
    points = [(float(i), math.sin(i)) for i in range(10_000)]
    points[4321] = (4321.0, 50.0)
    points[8765] = (8765.0, -50.0)
    points[5555] = (5555.0, NAN)
    kept = chart.thin(points)
    assert len(kept) <= chart.MAX_POINTS
    for index in (0, 4321, 5555, 8765, 9999):
        assert points[index] in kept
    assert kept == sorted(kept, key=lambda point: point[0])
    assert chart.thin(points[:400]) == points[:400]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 1200.0, [0, 500, 1000]),
        (-0.3, 0.3, [-0.2, 0.0, 0.2]),
        (0.69, 0.70, [0.69, 0.692, 0.694, 0.696, 0.698, 0.7]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert chart.ticks(low, high, most=5) == pytest.approx(expected)


def test_size_chart_has_one_bar_for_each_cluster_in_use():
    svg = chart.size_chart([1, 0, 4, 2], described="sizes")
    bars = re.search(r'class="bars" d="([^"]*)"', svg)
    assert bars is not None
    tops = [float(y) for y in re.findall(r"M[\d.]+ \d+V([\d.]+)h", bars[1])]
    heights = [chart.HEIGHT - chart.BOTTOM - top for top in tops]
    assert [h / heights[-1] for h in heights] == pytest.approx([4, 2, 1], rel=0.01)


@pytest.mark.parametrize("sizes", [[], [0, 0]])
def test_size_chart_without_clips_is_empty(sizes):
    assert chart.size_chart(sizes, described="sizes") == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.91234, "0.912"), (0.0625, "0.0625"), (1250, "1,250"), (41.63, "41.6"),
     (0.0, "0"), (1.0, "1"), (3.2e-5, "3.2e-05"), (NAN, "not finite"),
     (0.99999, "1"), (12345.6, "12,346"), (-0.1, "-0.100")],
)  # fmt: skip
def test_number_is_short(value, shown):
    assert chart.number(value) == shown
