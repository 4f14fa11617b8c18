"""A late second, read without what lies before it: the same, and little is decoded."""

import numpy as np
import pytest

from tests.videos import damage, moving, write_video
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.container import MediaError
from visxp_jax.media import ReadReport, read_clips
from visxp_jax.search.reading import read_example

HOW = {"size_px": 16, "spectrogram": PRESETS["mel"]}
MPEG2 = {"video_codec": "mpeg2video", "fps": 25, "audio_codec": "mp2"}
FORMATS = [
    ("mp4", {"rate_hz": 24_000}),
    ("mkv", {"start_s": 7.25}),
    ("avi", {"video_codec": "mpeg4", "audio_codec": "libmp3lame"}),
    ("mpg", MPEG2),
    ("ts", {"start_s": 40.0}),
    ("webm", {"video_codec": "libvpx", "audio_codec": "libopus"}),
    ("mov", {"video_codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ("m2v", MPEG2 | {"sound": None}),
]


@pytest.mark.parametrize(("ending", "how"), FORMATS)
def test_a_late_second_is_that_of_the_whole(ending, how, tmp_path):
    how = {"rate_hz": 48_000, "keyframe_every": 25, "seconds": 20} | how
    video = write_video(tmp_path / f"a.{ending}", **how)
    report = ReadReport()
    found = list(read_clips(video, **HOW, report=report, from_s=17))
    # From the key frame on, whose pictures may be 2.5 s apart.
    assert report.frames <= 6 * how.get("fps", 10)
    whole = {clip.start_s: clip for clip in read_clips(video, **HOW)}
    assert [clip.start_s for clip in found] == [x for x in whole if x >= 17]
    clip, wanted = found[1], whole[18.0]
    assert clip.frame_s == wanted.frame_s
    np.testing.assert_array_equal(clip.frame, wanted.frame)
    assert (clip.has_audio, clip.partial) == (wanted.has_audio, wanted.partial)
    assert np.abs(clip.log_mel - wanted.log_mel).mean() < 0.02


@pytest.mark.parametrize("ending", ["mkv", "ts"])
def test_around_damage_nothing_is_lost_that_the_whole_has(ending, tmp_path):
    video = write_video(tmp_path / f"a.{ending}", seconds=12, picture=moving)
    damage(video, at=0.5)
    whole = {clip.start_s: clip for clip in read_clips(video, **HOW)}
    assert 8 <= len(whole) < 12
    for second in range(12):
        if second not in whole:
            with pytest.raises(MediaError, match="no whole second"):
                read_example(video, second, **HOW)
            continue
        example, clip = read_example(video, second, **HOW), whole[second]
        np.testing.assert_array_equal(example.frame, clip.frame)
        assert (example.log_mel is not None) == clip.has_audio
