"""Frames and sounds of single clips, from files that may have changed meanwhile."""

import io
import os
import wave
from types import SimpleNamespace
from typing import cast

import numpy as np

from tests.videos import pitch_hz, write_video
from visxp_jax.report.clips import TestClips
from visxp_jax.session import Session


def opened(folder, *names: str) -> TestClips:
    """Clip i is second 2 of the i-th file."""
    count = len(names)
    index = {
        "clip_id": np.arange(count),
        "video": np.array(names),
        "start_s": np.full(count, 2.0),
        "label": np.arange(count) - 1,
    }
    dataset = SimpleNamespace(
        index=lambda split: index, videos=folder, label_names=("cat", "dog", "owl")
    )
    reader = SimpleNamespace(frames=lambda split, ids: dict.fromkeys(ids, b"jpeg"))
    clips = TestClips(cast(Session, SimpleNamespace(dataset=dataset, reader=reader)))
    clips.load(set(range(count)))
    return clips


def test_sounds_come_from_files_that_can_still_be_read(tmp_path):
    odd = os.fsdecode(b"caf\xe9.mp4")  # not UTF-8
    for name in ("good.mp4", odd, "replaced.mp4", "gone.mp4"):
        write_video(tmp_path / name, seconds=3)
    (tmp_path / "replaced.mp4").write_bytes(b"no video any more")
    (tmp_path / "gone.mp4").unlink()
    clips = opened(tmp_path, "good.mp4", "caf\\xe9.mp4", "replaced.mp4", "gone.mp4")
    first, second, *lost = (clips.clip(i) for i in range(4))
    assert (first.video, first.label, first.frame_jpeg) == ("good.mp4", None, b"jpeg")
    assert second.label == "cat"
    for clip in (first, second):
        assert clip.sound_wav is not None
        with wave.open(io.BytesIO(clip.sound_wav)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            assert len(samples) == file.getframerate()
        assert abs(np.abs(np.fft.rfft(samples)).argmax() - pitch_hz(2)) <= 2
    assert [clip.sound_wav for clip in lost] == [None, None]
    (warning,) = clips.warnings
    assert warning.startswith("2 of 4 videos shown here can no longer be read in ")


def crash(task, beat):
    """Runs in a worker; here it would end the tests."""
    os._exit(3)


def test_file_that_crashes_its_reader_costs_its_own_sound_alone(tmp_path, monkeypatch):
    write_video(tmp_path / "bad.mp4", seconds=3)
    monkeypatch.setattr("visxp_jax.report.sounds.sounds_of", crash)
    clips = opened(tmp_path, "bad.mp4")
    assert clips.clip(0).sound_wav is None
    assert clips.warnings[0].startswith("1 of 1 videos shown here can no longer")
