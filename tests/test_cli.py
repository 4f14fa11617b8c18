"""The command visxp: its verbs are the modules, and mistakes are one line."""

import subprocess
import sys

import pytest

from tests.videos import write_video
from visxp_jax.cli import VERBS

COMMAND = [sys.executable, "-m", "visxp_jax.cli"]


def visxp(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, check=False
    )


def test_help_lists_every_verb():
    done = visxp("--help")
    assert done.returncode == 0
    for verb, (_, what) in VERBS.items():
        assert f"  {verb}" in done.stdout
        assert what in done.stdout


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ((), "visxp has no verb ''; known: prepare, train"),
        (("extrct",), "no verb 'extrct'; did you mean 'extract'?"),
        (("export", "--workdir=none", "--out=x"), "none must hold a trained model"),
        (("train", "--workdir=x"), "Flag --config must have a value"),
        (("segment", "-a.mp4", "--out=x"), "-a.mp4; a file of that name is written ./"),
        (("prepare", "x"), "required: --out; see visxp prepare --help"),
    ],
)
def test_mistakes_are_one_line(args, line):
    done = visxp(*args)
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_verb_with_worker_processes_runs(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a", "b", "c"):
        write_video(tmp_path / "videos" / f"{name}.mp4")
    out = tmp_path / "out"
    done = visxp(
        *("prepare", str(tmp_path / "videos"), f"--out={out}"),
        *("--spectrogram=mel", "--size-px=16", "--format=array_record"),
    )
    assert done.returncode == 0, done.stderr
    assert (out / "prepared.json").exists()
