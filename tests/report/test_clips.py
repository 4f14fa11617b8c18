"""Frames and sounds of single clips, from files that may have changed meanwhile."""

import io
import wave
from types import SimpleNamespace
from typing import cast

import numpy as np

from tests.videos import pitch_hz, write_video
from visxp_jax.report.clips import TestClips
from visxp_jax.session import Session


def test_sounds_come_from_files_that_can_still_be_read(tmp_path):
    for name in ("good.mp4", "replaced.mp4", "gone.mp4"):
        write_video(tmp_path / name, seconds=3)
    (tmp_path / "replaced.mp4").write_bytes(b"no video any more")
    (tmp_path / "gone.mp4").unlink()
    index = {
        "clip_id": np.arange(3),
        "video": np.array(["good.mp4", "replaced.mp4", "gone.mp4"]),
        "start_s": np.array([2.0, 1.0, 0.0]),
        "label": np.array([1, -1, 0]),
    }
    dataset = SimpleNamespace(
        index=lambda split: index, videos=tmp_path, label_names=("cat", "dog")
    )
    reader = SimpleNamespace(frames=lambda split, ids: {i: b"jpeg" for i in ids})
    clips = TestClips(cast(Session, SimpleNamespace(dataset=dataset, reader=reader)))
    clips.load({0, 1, 2})
    good, *lost = (clips.clip(i) for i in range(3))
    assert (good.video, good.label, good.frame_jpeg) == ("good.mp4", "dog", b"jpeg")
    assert good.sound_wav is not None
    with wave.open(io.BytesIO(good.sound_wav)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert len(samples) == file.getframerate()
    assert abs(np.abs(np.fft.rfft(samples)).argmax() - pitch_hz(2)) <= 2
    assert [clip.sound_wav for clip in lost] == [None, None]
    (warning,) = clips.warnings
    assert warning.startswith("2 of 3 videos shown here can no longer be read in ")
