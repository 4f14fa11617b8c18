"""The doctor names what differs, and what is missing."""

import dataclasses

import numpy as np
import pytest

from tests.videos import write_video
from visxp_jax import doctor
from visxp_jax.audio.spectrogram import VISXP_RATES_HZ, visxp_at
from visxp_jax.production.arrays import pickled_dict

MIDDLE_MS = 1500
OFFSETS_MS = (0, doctor.STEP_MS, doctor.FURTHEST_MS)
SETTINGS = [s for s in doctor.settings(24_000) if abs(s.offset_ms) in OFFSETS_MS]


@pytest.fixture
def video(tmp_path):
    """Noise, so that no two seconds and no two settings are alike."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(4 * 24_000)
    return write_video(
        tmp_path / "noise.mkv",
        seconds=4,
        sound=noise.astype(np.float32),
        audio_codec="pcm_s16le",
    )


def reference(video, setting: doctor.Setting, rate_hz: int = 24_000):
    """As a pipeline with that setting would write it."""
    sound = doctor.Sound(video, MIDDLE_MS)
    recipe = setting.spectrogram
    wave = sound.second(setting.offset_ms, setting.rate_hz or rate_hz, recipe.rate_hz)
    path = video.with_name(f"{MIDDLE_MS}_{rate_hz}.npz")
    path.write_bytes(pickled_dict({"audio": recipe.log_mel(wave)[None]}))
    return path


@pytest.mark.parametrize("rate_hz", [24_000, 48_000])
def test_visxps_own_spectrogram_is_equal(rate_hz, video, capsys):
    path = reference(video, doctor.Setting("", visxp_at(rate_hz)), rate_hz)
    assert doctor.main([f"--video={video}", f"--reference={path}"]) == 0
    assert capsys.readouterr().out.startswith("equal: largest difference 0.0e+00")


@pytest.mark.parametrize("rate_hz", [VISXP_RATES_HZ[0], VISXP_RATES_HZ[-1]])
def test_lowest_and_highest_rates_are_compared(rate_hz, video):
    changed = dataclasses.replace(visxp_at(rate_hz), window="hann")
    path = reference(video, doctor.Setting("", changed), rate_hz)
    assert "a Hann window" in doctor.compare(video, path)[1]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_every_other_setting_is_named(setting, video, capsys):
    path = reference(video, setting)
    assert doctor.main([f"--video={video}", f"--reference={path}"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("differs")
    assert said[1].startswith(f"because: {setting.name} (then ")


def test_what_no_single_setting_explains_is_said(video):
    recipe = dataclasses.replace(visxp_at(24_000), window="hann", mean=0.0)
    lines = doctor.compare(video, reference(video, doctor.Setting("", recipe)))
    assert lines[1].startswith("no single setting explains it; nearest: ")


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((1, 257, 66), "over the end of the sound"),
        ((1, 257, 101), "padded at both ends"),
        ((1, 80, 99), "another number of bands"),
    ],
)
def test_other_shapes_are_explained(shape, why, video):
    path = video.with_name(f"{MIDDLE_MS}_24000.npz")
    path.write_bytes(pickled_dict({"audio": np.zeros(shape, np.float32)}))
    told = doctor.compare(video, path)
    assert why in told[-1]
    assert any("nearest" in line for line in told) == (shape[1] == 257)


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        ("1500_0", np.zeros((1, 257, 99)), "multiple of 100 from 8000 to 51200, got 0"),
        ("1500_7", np.zeros((1, 257, 99)), "8000 to 51200, got 7"),
        ("1500_999999999999", np.zeros((1, 257, 99)), "got 999999999999"),
        (
            "99999999_24000",
            np.zeros((1, 257, 99)),
            "must have sound at 100000.0 s",
        ),
        ("1500_24000", np.zeros((1, 257, 0)), "named 'audio', got [1, 257, 0]"),
        ("1500_24000", np.zeros((257, 99)), "named 'audio', got [257, 99]"),
        ("1500_24000", np.full((1, 257, 99), np.nan), "must be finite"),
        ("1500_24000", np.full((1, 257, 99), -np.inf), "must be finite"),
    ],
)
def test_references_that_nothing_can_be_said_of_are_one_line(
    name, values, line, video, capsys
):
    path = video.with_name(f"{name}.npz")
    path.write_bytes(pickled_dict({"audio": values.astype(np.float32)}))
    assert doctor.main([f"--video={video}", f"--reference={path}"]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_mistakes_are_one_line(tmp_path, video, capsys):
    silent = write_video(tmp_path / "silent.mp4", sound=None)
    path = reference(video, doctor.Setting("", visxp_at(24_000)))
    other = tmp_path / "other.npz"
    other.write_bytes(path.read_bytes())
    for one, two, line in (
        (silent, path, "must have sound at 1.5 s"),
        (video, other, "must be named by its time"),
        (tmp_path / "none", path, "no such file"),
    ):
        assert doctor.main([f"--video={one}", f"--reference={two}"]) == 2
        told = capsys.readouterr().err
        assert line in told
        assert told.count("\n") == 1
    with pytest.raises(SystemExit):
        doctor.main([f"--video={video}"])


def test_installation_is_listed_and_what_is_missing_named(monkeypatch, capsys):
    assert doctor.main([]) == 0
    told = capsys.readouterr().out
    assert told.startswith("ok   visxp_jax ")
    assert "ok   jax " in told
    assert "(cpu)" in told
    monkeypatch.setattr(doctor, "NEEDED", ("jax", "no_such_module"))
    monkeypatch.setattr(doctor, "OPTIONAL", (("nor_this", "tea", "pip install tea"),))
    assert doctor.main([]) == 1
    told = capsys.readouterr().out
    assert "BAD  no_such_module does not work: No module named" in told
    assert "ok   nor_this is missing; for tea: pip install tea" in told
