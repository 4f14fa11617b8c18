"""The doctor says how spectrograms compare, and what is missing."""

import numpy as np
import pytest

from tests.videos import write_video
from visxp_jax import doctor
from visxp_jax.audio.spectrogram import visxp_at
from visxp_jax.production.arrays import pickled_dict

NOISE = 0.2 * np.random.default_rng(0).standard_normal(4 * 24_000)


@pytest.fixture
def video(tmp_path):
    return write_video(
        tmp_path / "noise.mkv",
        seconds=4,
        sound=NOISE.astype(np.float32),
        audio_codec="pcm_s16le",
    )


@pytest.fixture
def path(video):
    """As VisXP would write it of second 1."""
    recipe = visxp_at(24_000)
    path = video.with_name("1500_24000.npz")
    log_mel = recipe.log_mel(NOISE[24_000:48_000].astype(np.float32))
    path.write_bytes(pickled_dict({"audio": log_mel[None]}))
    return path


def test_what_is_equal_is_well_and_what_differs_is_not(video, path, capsys):
    assert doctor.main([f"--video={video}", f"--reference={path}"]) == 0
    assert capsys.readouterr().out.startswith("equal: largest ")
    later = path.rename(path.with_name("1487_24000.npz"))
    assert doctor.main([f"--video={video}", f"--reference={later}"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("differs: largest ")
    assert "; because the second begins 13 ms later (then " in said
    assert said.count("\n") == 1


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


def test_mistakes_are_one_line(tmp_path, video, path, capsys):
    silent = write_video(tmp_path / "silent.mp4", sound=None)
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
