"""Files whose timestamps leap: joined recordings, and damage."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.test_media import assert_same_second, clips_of
from tests.videos import shift_timestamp, write_video
from visxp_jax.clock import Clock
from visxp_jax.media import ReadReport, read_sounds

PICTURES, SOUND = 0xE0, 0xC0  # ids of MPEG's streams


def straightened(*packets: tuple[int, float], format_name: str = "mpegts"):
    """Times that (stream, time) get, one tenth of a second each, and the leaps."""
    clock, found = Clock(format_name), []
    for stream, time_s in packets:
        ticks = round(1000 * time_s)
        packet: Any = SimpleNamespace(
            stream_index=stream,
            pts=ticks + 40,
            dts=ticks,
            duration=100,
            time_base=Fraction(1, 1000),
        )
        clock.straighten(cast(Any, packet))
        assert packet.pts == packet.dts + 40
        found.append(packet.dts / 1000)
    return found, clock.num_leaps


def test_pieces_joined_end_to_end_follow_each_other():
    times = [(0, 5.0), (1, 5.0), (0, 5.1), (1, 5.1), (0, 0.0), (1, 0.0), (0, 0.1)]
    assert straightened(*times) == ([5, 5, 5.1, 5.1, 5.2, 5.2, 5.3], 1)
    times = [(0, 5.0), (1, 5.0), (0, 905.0), (1, 905.0), (0, 905.1)]
    assert straightened(*times) == ([5, 5, 5.1, 5.1, 5.2], 1)


@pytest.mark.parametrize("wrong", [700.0, 2.0])
@pytest.mark.parametrize("stream", [0, 1])
def test_one_damaged_time_costs_nothing(stream, wrong):
    times = [(i % 2, 100 + (i // 2) / 10) for i in range(20)]
    expected = [time_s for _, time_s in times]
    times[8 + stream] = (stream, wrong)
    found, leaps = straightened(*times)
    assert found == pytest.approx(expected)
    assert leaps == 2


def test_stream_that_pauses_is_no_leap():
    pictures = [(0, i / 10) for i in range(300)]
    sound = [(1, i / 10) for i in range(300) if not 5 <= i / 10 < 25]
    times = sorted(pictures + sound, key=lambda packet: packet[1])
    assert straightened(*times) == ([time_s for _, time_s in times], 0)


def test_short_hole_stays_and_other_formats_are_left_alone():
    times = [(0, 0.0), (0, 8.0), (0, 8.1)]
    assert straightened(*times) == ([0, 8, 8.1], 0)
    times = [(0, 0.0), (0, 80.0), (0, 0.1)]
    assert straightened(*times, format_name="matroska,webm") == ([0, 80, 0.1], 0)


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_joined_files_give_the_clips_of_all(tmp_path, suffix):
    codecs = {} if suffix == ".ts" else {"video_codec": "mpeg2video", "fps": 25}
    codecs |= {"audio_codec": "mp2", "rate_hz": 48_000}
    path = write_video(tmp_path / f"x{suffix}", seconds=6, **codecs)
    path.write_bytes(2 * path.read_bytes())
    report = ReadReport()
    clips = clips_of(path, report=report)
    assert [clip.start_s for clip in clips] == list(range(12))
    for clip in clips:
        assert_same_second(clip)  # pictures and pitches repeat every 6 s
        assert clip.has_audio
    assert report.leaps >= 1
    assert report.dropped == 0
    sounds = read_sounds(path, {1, 8}, rate_hz=8_000)
    assert sorted(sounds) == [1, 8]


@pytest.mark.parametrize("stream_id", [PICTURES, SOUND])
def test_damaged_timestamp_in_a_file_costs_no_clip(tmp_path, stream_id):
    path = write_video(tmp_path / "x.ts", seconds=6, audio_codec="mp2", rate_hz=48_000)
    shift_timestamp(path, stream_id=stream_id, number=12)
    report = ReadReport()
    clips = clips_of(path, report=report)
    assert len(clips) == 6
    for clip in clips:
        assert_same_second(clip)
        assert clip.has_audio
    assert report.leaps == 2
