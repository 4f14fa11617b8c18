"""Parts of videos of every kind, to play in any browser."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import level, pitch_hz, rotate, write_video
from visxp_jax.container import MediaError
from visxp_jax.page.cut import write_cut


def opened(path: Path) -> tuple[list[tuple[float, np.ndarray]], np.ndarray]:
    """(times and pictures, grey; samples) of a cut."""
    pictures, samples = [], []
    with av.open(io.BytesIO(path.read_bytes())) as file:
        for frame in file.decode():
            if isinstance(frame, av.VideoFrame):
                pictures.append((frame.time, frame.to_ndarray(format="gray")))
            else:
                samples.append(frame.to_ndarray()[0])
    return pictures, np.concatenate(samples) if samples else np.zeros(0)


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("mp4", {}),
        ("mkv", {"start_s": 7.25}),
        ("avi", {"video_codec": "mpeg4", "audio_codec": "libmp3lame"}),
        ("mpg", {"video_codec": "mpeg2video", "fps": 25, "audio_codec": "mp2"}),
        ("ts", {"start_s": 40.0}),
        ("webm", {"video_codec": "libvpx", "audio_codec": "libopus"}),
    ],
)
def test_it_shows_and_sounds_as_the_seconds_that_it_is_of(ending, how, tmp_path):
    rate = 24_000 if ending in ("mp4", "mkv") else 48_000
    video = write_video(
        tmp_path / f"a.{ending}", seconds=6, rate_hz=rate, keyframe_every=25, **how
    )
    write_cut(video, tmp_path / "cut.mp4", 3.0, 5.0)
    pictures, samples = opened(tmp_path / "cut.mp4")
    fps = how.get("fps", 10)
    assert abs(len(pictures) - 2 * fps) <= 1
    for at_s, image in pictures[1:-1]:
        if 0.15 < at_s % 1 < 0.85:
            assert abs(image.mean() - level(3 + int(at_s))) < 9
    for second in (0, 1):
        heard = samples[second * 48_000 + 12_000 : second * 48_000 + 36_000]
        peak = np.abs(np.fft.rfft(heard)).argmax() * 2
        assert abs(peak - pitch_hz(3 + second)) < 10


def test_large_ones_become_small_and_turned_ones_upright(tmp_path):
    video = write_video(tmp_path / "a.mp4", seconds=1, width=1280, height=720)
    write_cut(video, tmp_path / "cut.mp4", 0.0, 5.0)
    assert opened(tmp_path / "cut.mp4")[0][0][1].shape == (360, 640)
    rotate(video)
    write_cut(video, tmp_path / "cut.mp4", 0.0, 5.0)
    assert opened(tmp_path / "cut.mp4")[0][0][1].shape == (360, 202)


def test_without_sound_or_pictures_there(tmp_path):
    video = write_video(tmp_path / "a.mp4", sound=None)
    write_cut(video, tmp_path / "cut.mp4", 2.0, 7.0)
    pictures, samples = opened(tmp_path / "cut.mp4")
    assert (len(pictures), len(samples)) == (10, 0)
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    with pytest.raises(MediaError, match="not a readable media file"):
        write_cut(tmp_path / "none.mp4", tmp_path / "cut.mp4", 0.0, 1.0)
