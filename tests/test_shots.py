"""Shots are those that PySceneDetect finds by itself, at the times frames have."""

import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from scenedetect import (
    ContentDetector,
    FrameTimecode,
    SceneManager,
    open_video,
)

from tests.videos import write_video
from visxp_jax.decode import decoding
from visxp_jax.errors import VisxpError
from visxp_jax.shots import ShotDetector, load_detector

COLOURS = [(200, 30, 30), (30, 30, 200), (30, 180, 60), (220, 220, 40)]


def shots_at(*cuts_s):
    """A picture for `write_video` that changes at these times."""

    def picture(time_s, height, width):
        shot = sum(time_s >= cut_s - 1e-6 for cut_s in cuts_s)
        rng = np.random.default_rng(shot)
        grain = rng.integers(-20, 20, (height, width, 3))
        return (np.array(COLOURS[shot % 4]) + grain).clip(0, 255).astype(np.uint8)

    return picture


def watched(path):
    """Shots as we find them, and for each cut the times it was told between."""
    told = []

    def see(frame, time_s):
        times_s.append(time_s)
        for cut_s in detector.add(frame, time_s):
            told.append((cut_s, times_s[-2]))

    times_s: list[float] = []
    with decoding(path, made_of=lambda *_: None, rates_hz=[], on_frame=see) as tracks:
        detector = ShotDetector(tracks.rate)
        for _ in tracks.advance():
            pass
    for cut_s, before_s in told:
        assert cut_s >= before_s - detector.behind_s
    return detector.shots(tracks.pictures.position_s)


def theirs(path):
    manager = SceneManager()
    manager.add_detector(ContentDetector())
    manager.detect_scenes(open_video(str(path)))
    return [
        (float(start.seconds), float(end.seconds))
        for start, end in manager.get_scene_list(start_in_scene=True)
    ]


FLASHES = [2.0, 2.1, 2.2, 2.3, 3.0, 3.2, 5.5]
UNEVEN = [*np.arange(0, 2, 0.04), *np.arange(2, 5, 0.2), *np.arange(5, 7, 0.02)]


@pytest.mark.parametrize(
    ("suffix", "cuts_s", "times_s"),
    [
        (".mp4", [1.6, 4.0], None),
        (".mp4", FLASHES, None),
        (".mp4", [], None),
        (".mkv", [1.2, 3.4, 5.8], [round(t, 3) for t in UNEVEN]),
        (".ts", [2.0], None),
    ],
    ids=["cuts", "flashes", "none", "uneven", "ts"],
)
def test_shots_are_those_of_pyscenedetect(suffix, cuts_s, times_s, tmp_path):
    path = write_video(
        tmp_path / f"x{suffix}",
        seconds=7,
        fps=25,
        width=320,
        height=180,
        picture=shots_at(*cuts_s),
        times_s=times_s,
    )
    found, wanted = watched(path), theirs(path)
    assert len(found) == len(wanted)
    starts_s = [start for start, _ in found]
    np.testing.assert_allclose(starts_s[1:], [s for s, _ in wanted][1:], atol=2e-3)
    if cuts_s is not FLASHES:
        np.testing.assert_allclose(starts_s, [0.0, *cuts_s], atol=1e-3)
    assert [end for _, end in found] == [*starts_s[1:], found[-1][1]]
    assert found[-1][1] == pytest.approx(7, abs=0.05)


def test_scores_are_those_of_pyscenedetect_to_the_last_digit():
    theirs, (ours, _) = ContentDetector(), load_detector()
    rng = np.random.default_rng(0)
    for i in range(20):
        image = rng.integers(0, rng.integers(1, 256), (37, 64, 3), np.uint8)
        for detector in (theirs, ours):
            detector.process_frame(FrameTimecode(i, 25.0), image)
        assert ours._frame_score == theirs._frame_score
    assert ours._last_frame is None  # it does not do their work as well


def test_frames_of_any_size_and_format_are_looked_at_small():
    detector = ShotDetector(Fraction(25))
    for i, form in enumerate([(1920, 800, "yuv420p10le"), (64, 48, "gray")]):
        frame = av.VideoFrame(*form)
        for plane in frame.planes:
            plane.update(bytes([200 * i]) * plane.buffer_size)
        assert detector.add(frame, float(i)) == [1.0] * i
    assert detector.shots(3.0) == [(0.0, 1.0), (1.0, 3.0)]


def test_workers_do_not_share_out_their_frames_to_more_threads():
    cv2.setNumThreads(4)
    ShotDetector(None)
    assert cv2.getNumThreads() == 1


def test_without_pyscenedetect_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(VisxpError, match=r"pip install '.\[shots\]'"):
        ShotDetector(Fraction(25))
