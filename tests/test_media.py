import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import (
    damage,
    level,
    moving,
    pitch_hz,
    rotate,
    tones,
    write_video,
)
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.media import MediaError, ReadReport, read_clips, read_sounds

MEL = PRESETS["mel"]


def clips_of(path, **settings):
    settings = {"size_px": 16, "spectrogram": MEL, **settings}
    return list(read_clips(path, **settings))


def heard_hz(clip) -> float:
    """Pitch of the loudest band."""
    centres = np.array([MEL.log_mel(_tone(hz)).mean(1) for hz in _PITCHES])
    return _PITCHES[np.abs(centres - clip.log_mel.mean(1)).mean(1).argmin()]


def _tone(hz):
    time_s = np.arange(MEL.rate_hz) / MEL.rate_hz
    return (0.5 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


_PITCHES = [pitch_hz(second) for second in range(6)]


def assert_same_second(clip):
    second = int(clip.start_s)
    assert abs(float(clip.frame.mean()) - level(second)) < 6
    assert heard_hz(clip) == pitch_hz(second)


@pytest.mark.parametrize(
    ("suffix", "codecs"),
    [
        (".mp4", {}),
        (".mkv", {"audio_codec": "pcm_s16le", "rate_hz": 44_100}),
        (
            ".webm",
            {"video_codec": "libvpx", "audio_codec": "libopus", "rate_hz": 48_000},
        ),
        (".avi", {"video_codec": "mpeg4", "audio_codec": "mp3"}),
        (".ts", {}),
        (".mov", {"video_codec": "prores", "pix_fmt": "yuv422p10le"}),
        (".avi", {"video_codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_codec": "mp3"}),
    ],
)
def test_frame_and_sound_are_of_the_same_second(tmp_path, suffix, codecs):
    path = write_video(tmp_path / f"x{suffix}", seconds=4.4, **codecs)
    clips = clips_of(path)
    assert [clip.start_s for clip in clips] == [0, 1, 2, 3]
    for clip in clips:
        assert clip.end_s == clip.start_s + 1
        assert clip.start_s + 0.39 < clip.frame_s <= clip.start_s + 0.501
        assert_same_second(clip)
        assert clip.has_audio
        assert (clip.silent, clip.still) == (False, False)
        assert clip.frame.shape == (16, 16, 3)
        assert clip.frame.dtype == np.uint8
        assert clip.log_mel.shape == MEL.shape
        assert clip.log_mel.dtype == np.float32


def test_sound_is_the_wave_of_its_second(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    path = write_video(
        tmp_path / "x.mkv",
        seconds=3,
        sound=wave,
        rate_hz=16_000,
        audio_codec="pcm_s16le",
    )
    for i, clip in enumerate(clips_of(path)):
        expected = MEL.log_mel(wave[16_000 * i : 16_000 * (i + 1)])
        np.testing.assert_allclose(clip.log_mel, expected, atol=5e-3)
        assert not clip.partial


def test_times_count_from_the_first_picture(tmp_path):
    path = write_video(tmp_path / "x.ts", start_s=7.3)
    clips = clips_of(path)
    assert [clip.start_s for clip in clips] == [0, 1, 2]
    for clip in clips:
        assert_same_second(clip)


@pytest.mark.parametrize("from_s", [-0.8, 1.25])
def test_sound_that_starts_elsewhere_stays_with_its_pictures(tmp_path, from_s):
    path = write_video(
        tmp_path / "x.mkv",
        seconds=4,
        start_s=2,
        sound=tones(4 - from_s, 24_000, from_s=from_s),
        sound_from_s=from_s,
        audio_codec="pcm_s16le",
    )
    clips = clips_of(path)
    expected = [False, False] if from_s < 0 else [True, True]
    assert [clip.partial for clip in clips] == [*expected, False, False]
    assert [clip.has_audio for clip in clips] == [from_s < 0, True, True, True]
    assert not clips[0].log_mel.any() or from_s < 0
    for clip in clips[2:]:
        assert_same_second(clip)


def test_variable_frame_rate_takes_the_frame_on_show(tmp_path):
    times = [0.0, 0.1, 0.45, 0.55, 1.2, 1.5, 1.51, 2.9, 3.0, 3.3, 3.9]
    path = write_video(tmp_path / "x.mkv", seconds=4, times_s=times, keyframe_every=1)
    clips = clips_of(path)
    # The frame of 1.51 s stays until 2.9 s: more than a second without a picture.
    assert [clip.start_s for clip in clips] == [0, 3]
    assert [clip.frame_s for clip in clips] == pytest.approx([0.45, 3.3])
    # An mp4 stores how long a frame is shown, so this is no gap.
    path = write_video(tmp_path / "y.mp4", times_s=[0, 0.2, 0.5, 2.2, 2.8, 3.1])
    frames_s = [clip.frame_s for clip in clips_of(path)]
    assert frames_s == pytest.approx([0.5, 0.5, 2.2])


def test_rotation_is_applied(tmp_path):
    def corner(_, height, width):
        image = np.zeros((height, width, 3), np.uint8)
        image[: height // 2, : width // 2] = 250  # top left
        return image

    path = write_video(tmp_path / "x.mp4", picture=corner, width=64, height=64)
    upright = clips_of(path)[0].frame
    assert upright[:6, :6].min() > 200
    assert upright[:6, 10:].max() < 50
    rotate(path)
    turned = clips_of(path)[0].frame
    assert turned[:6, 10:].min() > 200
    assert turned[:6, :6].max() < 50


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [
        (
            ".mkv",
            {"width": 63, "height": 47, "video_codec": "ffv1", "pix_fmt": "yuv444p"},
        ),
        (".mkv", {"video_codec": "ffv1", "pix_fmt": "gray"}),
        (".mp4", {"pix_fmt": "yuv420p10le"}),
        (".mov", {"video_codec": "qtrle", "pix_fmt": "argb"}),
        (".mp4", {"layout": "5.1", "rate_hz": 48_000}),
        (".mp4", {"layout": "7.1", "rate_hz": 48_000}),
        (".mp4", {"layout": "stereo", "rate_hz": 44_100}),
        (".mp4", {"rate_hz": 8_000}),
    ],
    ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else x,
)
def test_unusual_picture_and_sound_formats_are_normalised(tmp_path, suffix, settings):
    for clip in clips_of(write_video(tmp_path / f"x{suffix}", **settings)):
        assert clip.frame.shape == (16, 16, 3)
        assert_same_second(clip)


def test_video_without_sound_gives_clips_without(tmp_path):
    for clip in clips_of(write_video(tmp_path / "x.mp4", sound=None)):
        assert (clip.has_audio, clip.silent, clip.partial) == (False,) * 3
        assert not clip.log_mel.any()


def test_sound_shorter_than_pictures_is_flagged_never_made_up(tmp_path):
    path = write_video(
        tmp_path / "x.mkv",
        seconds=4,
        sound=tones(1.7, 24_000),
        audio_codec="pcm_s16le",
    )
    clips = clips_of(path)
    assert [clip.has_audio for clip in clips] == [True, True, False, False]
    assert [clip.partial for clip in clips] == [False, True, True, True]
    assert not clips[2].log_mel.any()
    # Zeros fill up the second that is there for the most part.
    np.testing.assert_allclose(clips[1].log_mel[:, 70:], MEL.silence, rtol=1e-4)


def test_silence_is_flagged(tmp_path):
    quiet = tones(3, 24_000)
    quiet[24_000:48_000] *= 1e-4
    clips = clips_of(write_video(tmp_path / "x.mp4", sound=quiet))
    assert [clip.silent for clip in clips] == [False, True, False]
    assert clips[1].has_audio


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_sound_that_is_no_numbers_is_no_sound(tmp_path, value):
    broken = tones(3, 24_000)
    broken[24_000:48_000] = value
    path = write_video(tmp_path / "x.mkv", sound=broken, audio_codec="pcm_f32le")
    report = ReadReport()
    clips = list(read_clips(path, size_px=16, spectrogram=MEL, report=report))
    assert [clip.has_audio for clip in clips] == [True, False, True]
    assert report.faults


def test_still_pictures_are_flagged(tmp_path):
    def half_still(time_s, height, width):
        return np.full((height, width, 3), 100 if time_s < 2 else 160, np.uint8)

    clips = clips_of(write_video(tmp_path / "x.mp4", seconds=4, picture=half_still))
    assert [clip.still for clip in clips] == [False, True, False, True]


def test_clips_come_while_the_file_is_being_read(tmp_path):
    path = write_video(tmp_path / "x.mp4", seconds=20)
    report = ReadReport()
    reader = read_clips(path, size_px=16, spectrogram=MEL, report=report)
    next(reader)
    next(reader)
    assert report.frames < 60
    assert len(list(reader)) == 18
    assert report.sound_seconds == pytest.approx(20, abs=0.05)
    report.sound_seconds = 0.0
    expected = ReadReport(seconds=20, clips=20, frames=200)
    expected.video_stream, expected.audio_stream = 0, 1
    assert report == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    """Held in full, the longer one's pictures take 100 MB more than the shorter's."""
    peaks = {}
    for seconds in (5, 65):
        size = {"width": 320, "height": 240, "fps": 15}
        path = write_video(tmp_path / f"{seconds}.mp4", seconds=seconds, **size)
        script = f"""
            from pathlib import Path
            from visxp_jax.audio.spectrogram import PRESETS
            from visxp_jax.media import read_clips
            mel = PRESETS["mel"]
            clips = read_clips(Path({str(path)!r}), size_px=16, spectrogram=mel)
            assert sum(1 for _ in clips) == {seconds}
            # getrusage would tell of the parent, too.
            status = Path("/proc/self/status").read_text()
            print(status.partition("VmHWM:")[2].split()[0])
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[seconds] = int(done.stdout) / 1024
    assert peaks[65] - peaks[5] < 25, peaks


def test_damage_costs_the_seconds_it_touches_and_no_others(tmp_path):
    whole = write_video(tmp_path / "x.mp4", seconds=8, picture=moving)
    clips = {clip.start_s: clip for clip in clips_of(whole)}
    damage(whole, at=0.45)
    report = ReadReport()
    left = clips_of(whole, report=report)
    assert 4 <= len(left) < 8
    assert report.dropped == 8 - len(left)
    assert report.faults > 0
    for clip in left:
        np.testing.assert_array_equal(clip.frame, clips[clip.start_s].frame)
        assert clip.frame_s == clips[clip.start_s].frame_s


def test_of_pictures_that_stand_alone_only_those_needed_are_decoded(tmp_path):
    mjpeg = {"video_codec": "mjpeg", "pix_fmt": "yuvj420p", "picture": moving}
    path = write_video(tmp_path / "x.mkv", seconds=5, **mjpeg)
    report = ReadReport()
    whole = clips_of(path, report=report)
    assert [clip.frame_s for clip in whole] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert (report.frames, report.faults, report.dropped) == (50, 0, 0)

    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for number in (12, 25):  # the first is not needed, the second is that of 2.5 s
        data = data.replace(packets[number], bytes(len(packets[number])))
    path.write_bytes(data)
    left = clips_of(path, report=(report := ReadReport()))
    assert [clip.start_s for clip in left] == [0, 1, 3, 4]
    assert (report.frames, report.faults, report.dropped) == (49, 1, 1)
    for clip in left:
        np.testing.assert_array_equal(clip.frame, whole[int(clip.start_s)].frame)


def test_truncated_transport_stream_gives_what_is_there(tmp_path):
    path = write_video(tmp_path / "x.ts", seconds=6, picture=moving)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    assert [clip.start_s for clip in clips_of(path)] == [0, 1, 2]


def test_less_than_a_second_is_refused(tmp_path):
    with pytest.raises(MediaError, match=r"shorter than one second \(0.80 s\)"):
        clips_of(write_video(tmp_path / "x.mp4", seconds=0.8))


def test_exactly_a_second_is_a_clip(tmp_path):
    for suffix in (".mp4", ".mkv"):
        path = write_video(tmp_path / f"x{suffix}", seconds=1, fps=24)
        assert len(clips_of(path)) == 1


def test_sounds_of_some_seconds(tmp_path):
    path = write_video(tmp_path / "x.mp4", seconds=5)
    sounds = read_sounds(path, {1, 3}, rate_hz=16_000)
    assert sorted(sounds) == [1, 3]
    for second, wave in sounds.items():
        assert wave.shape == (16_000,)
        pitch = np.abs(np.fft.rfft(wave)).argmax()
        assert pitch == pytest.approx(pitch_hz(second), abs=2)


def test_seconds_long_after_the_end_are_not_passed_one_by_one(tmp_path):
    path, passed = write_video(tmp_path / "x.mp4", seconds=3), []
    wanted = {2, 100_000}
    sounds = read_sounds(
        path, wanted, rate_hz=8_000, on_second=lambda: passed.append(1)
    )
    assert list(sounds) == [2]
    assert len(passed) <= 4
