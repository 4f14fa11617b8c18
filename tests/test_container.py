"""Files are opened within limits; of their streams one programme is taken."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from tests.test_media import assert_same_second, clips_of
from tests.videos import (
    pitch_hz,
    tones,
    write_programmes,
    write_video,
)
from visxp_jax import container
from visxp_jax.media import MediaError, ReadReport, probe, read_sounds


@pytest.mark.parametrize(("mode", "taken"), [("infer", 1), ("passthrough", 2)])
def test_of_several_sounds_that_of_ffmpegs_command_is_taken(mode, taken, tmp_path):
    """The one by default, else of the most channels; not that of the most bits."""
    path = tmp_path / "x.mkv"
    sounds = (96_000, "mono"), (32_000, "stereo"), (24_000, "stereo")
    with av.open(str(path), "w", options={"default_mode": mode}) as file:
        pictures = file.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 16, 16, "yuv420p"
        streams = [
            file.add_stream("pcm_s16le", rate=rate, layout=layout)
            for rate, layout in sounds
        ]
        for _ in range(10):
            file.mux(pictures.encode(av.VideoFrame(16, 16, "yuv420p")))
        file.mux(pictures.encode(None))
        for stream, (rate, layout) in zip(streams, sounds, strict=True):
            silence = np.zeros((1, rate * len(av.AudioLayout(layout).channels)), "i2")
            frame = av.AudioFrame.from_ndarray(silence, "s16", layout)
            frame.rate = rate
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    assert probe(path).audio_rate_hz == sounds[taken - 1][0]


# With sound of a higher bit rate, which FFmpeg takes for the best of the file.
OTHER = {
    "sound": tones(3, 48_000, from_s=1),
    "rate_hz": 48_000,
    "audio_codec": "mp2",
    "width": 80,
}


def test_picture_and_sound_are_of_one_programme(tmp_path):
    path = write_programmes(tmp_path / "x.ts", {}, OTHER)
    info, report = probe(path), ReadReport()
    assert (info.width, info.audio_codec) == (64, "aac")
    clips = clips_of(path, report=report)
    assert len(clips) == 3
    for clip in clips:
        assert_same_second(clip)
    assert (report.video_stream, report.audio_stream) == (0, 1)
    (wave,) = read_sounds(path, {1}, rate_hz=16_000).values()
    assert np.abs(np.fft.rfft(wave)).argmax() == pytest.approx(pitch_hz(1), abs=2)


def test_programme_without_sound_is_not_given_that_of_another(tmp_path):
    path = write_programmes(tmp_path / "x.ts", {"sound": None}, OTHER)
    report = ReadReport()
    for clip in clips_of(path, report=report):
        assert (clip.has_audio, clip.partial) == (False, False)
    assert (report.video_stream, report.audio_stream) == (0, -1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (np.random.default_rng(0).bytes(5000), "not a readable media file"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "not a readable media file"),
        (b"ffconcat version 1.0\nfile x.mp4\n", "not a readable media file"),
        (b"file,label\na.mp4,b\n", "not a readable media file"),
    ],
    ids=["empty", "noise", "playlist", "concat", "csv"],
)
def test_what_is_no_video_is_refused(tmp_path, content, reason):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=f"x.mp4: {reason}") as refusal:
        clips_of(path)
    assert refusal.value.reason == reason


def test_truncated_mp4_is_refused(tmp_path):
    path = write_video(tmp_path / "x.mp4")
    path.write_bytes(path.read_bytes()[:3000])  # the index at the end is gone
    with pytest.raises(MediaError, match="not a readable media file"):
        clips_of(path)


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "x.wav"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        piece = av.AudioFrame.from_ndarray(
            np.zeros((1, 16_000), np.int16), format="s16", layout="mono"
        )
        piece.rate = 8000
        out.mux(stream.encode(piece))
    with pytest.raises(MediaError, match="no video stream"):
        clips_of(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_titles_that_are_not_utf8_do_no_harm(tmp_path, suffix):
    codecs = {"video_codec": "mpeg4", "audio_codec": "mp3"} if suffix == ".avi" else {}
    path = write_video(tmp_path / f"x{suffix}", title="Cafe", **codecs)
    count = len(clips_of(path))
    assert b"Cafe" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"Cafe", b"Caf\xe9"))
    assert len(clips_of(path)) == count > 1


def test_file_in_a_folder_that_may_not_be_entered_is_refused(tmp_path, monkeypatch):
    def closed(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(MediaError, match="may not be read"):
        probe(tmp_path / "x.mp4")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(MediaError, match="no such file"):
        clips_of(tmp_path / "x.mp4")
    with pytest.raises(MediaError, match="not a file"):
        clips_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "limit", "reason"),
    [
        ("MAX_PIXELS", 64 * 48 - 1, "over the limit of 3071 pixels: 64 x 48"),
        ("MAX_DURATION_S", 2.0, "over the limit of 2 s"),
        ("MAX_STREAMS", 1, "over the limit of 1 streams"),
    ],
)
def test_limits_are_kept(tmp_path, monkeypatch, name, limit, reason):
    path = write_video(tmp_path / "x.mp4")
    monkeypatch.setattr(container, name, limit)
    with pytest.raises(MediaError, match=reason):
        clips_of(path)


def test_limits_are_kept_whatever_the_container_promises(tmp_path, monkeypatch):
    """Pictures may grow, and times jump, once the file has been opened."""
    path = write_video(tmp_path / "x.mkv", times_s=[0, 0.5, 1, 1.5, 2e5], sound=None)
    monkeypatch.setattr("visxp_jax.container.MAX_DURATION_S", 1e9)
    with pytest.raises(MediaError, match="longer than 86400 s"):
        clips_of(path)
    path = write_video(tmp_path / "y.mkv")
    monkeypatch.setattr("visxp_jax.decode.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(MediaError, match="no picture in it could be decoded"):
        clips_of(path)


@pytest.mark.parametrize(
    "name",
    [
        b"a b.mp4",
        b'it\'s "x".mp4',
        b"$(touch owned).mp4",
        b"line\nbreak.mp4",
        b"-i.mp4",
        b"%03d.mp4",
        b"http:x.mp4",
        b"bad\xffbyte.mp4",
    ],
)
def test_odd_names_are_just_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "x.mp4")
    path = Path(os.fsdecode(name))
    os.rename(tmp_path / "x.mp4", path)
    assert len(clips_of(path)) == 3
    assert [os.fsencode(entry) for entry in os.listdir(tmp_path)] == [name]
    path.write_bytes(b"")
    with pytest.raises(MediaError) as refusal:
        clips_of(path)
    str(refusal.value).encode()
    assert "\n" not in str(refusal.value)


def test_probe_tells_what_the_container_says(tmp_path):
    path = write_video(tmp_path / "x.mp4", layout="stereo", rate_hz=44_100)
    info = probe(path)
    assert (info.width, info.height, info.fps) == (64, 48, 10)
    assert info.seconds == pytest.approx(3, abs=0.1)
    assert (info.has_audio, info.audio_rate_hz, info.audio_channels) == (True, 44100, 2)
    assert (info.video_codec, info.audio_codec) == ("h264", "aac")
