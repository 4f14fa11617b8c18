"""Features of videos: gone on with, made anew, stopped, refused."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.small import small_config
from tests.videos import tones, write_video
from visxp_jax import extract
from visxp_jax.methods import all_heads
from visxp_jax.train.lock import locked
from visxp_jax.weights import make_model, save_weights

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """Workdir with a model: what a run leaves is extracted from in test_main.py."""
    workdir, config = tmp_path_factory.mktemp("untrained"), small_config()
    weights = jax.jit(make_model(config).init)(jax.random.key(0))
    what = (config.encoder, all_heads(config), *weights, {"step": 0})
    save_weights(workdir, *what, config=config)
    return workdir


def test_extract_goes_on_and_does_again_what_has_changed(untrained, tmp_path, capsys):
    folder, out = tmp_path / "videos", tmp_path / "features"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.mp4", "sub/a.mp4", "b.mp4", ".hidden.mp4"):
        write_video(folder / name, seconds=2)
    command = [f"--workdir={untrained}", f"--out={out}", str(folder)]

    def told(*more: str) -> str:
        capsys.readouterr()
        assert extract.main([*command, *more]) == 0
        found = capsys.readouterr()
        return found.out + "".join(x for x in found.err.splitlines() if "were sk" in x)

    halves = [told(f"--shard={i}/2") for i in range(2)]
    assert sum(int(half.split()[0]) for half in halves) == 6
    files = sorted(out.glob("*.parquet"))
    assert len(files) == 3  # two by one name are two
    assert told().startswith("0 clips of 0 videos")
    write_video(folder / "b.mp4", seconds=3, sound=tones(1, 24_000))
    (killed := out / f".{files[-1].stem}.1.tmp").touch()
    again = told()
    assert not killed.exists()
    flags = "2 without sound, 2 with sound for less than the whole second"
    assert again.startswith(f"3 clips of 1 videos ({flags}) -> ")
    (about,) = out.glob("_b-*.json")
    assert json.loads(about.read_text())["no_audio"] == 2
    (folder / "b.mp4").write_bytes(b"broken")
    assert told().endswith("1 of 3 were skipped.")
    assert extract.main([*command, "--strict"]) == 2
    assert "error: 1 of 3 were skipped." in capsys.readouterr().err
    assert len(list(out.glob("*.parquet"))) == 2  # no features of what is gone
    (folder / "a.mp4").rename(tmp_path / "away.mp4")
    command[-1:] = map(str, (folder / "a.mp4", folder / "sub" / "a.mp4"))
    assert told().endswith("1 done before\n1 of 2 were skipped.")
    assert len(list(out.glob("*.parquet"))) == 2  # it may be there again
    (tmp_path / "away.mp4").rename(folder / "a.mp4")
    assert "2 done before" in told()
    with locked(out, name=".lock-0-of-1"):
        assert extract.main(command) == 2
    assert "must not be in use" in capsys.readouterr().err


def test_extract_tells_of_each_second_which_shot_it_is_in(untrained, tmp_path, capsys):
    import pyarrow.parquet as pq

    def picture(time_s: float, height: int, width: int) -> np.ndarray:
        return np.full((height, width, 3), 40 if time_s < cut_s - 1e-6 else 220, "u1")

    # At the frame of the second second, at no whole number of microseconds.
    times_s = [i * 1001 / 24_000 for i in range(96)]
    cut_s = times_s[35]

    video, out = tmp_path / "two.mp4", tmp_path / "out"
    write_video(video, times_s=times_s, picture=picture)
    command = [f"--workdir={untrained}", f"--out={out}", str(video)]
    assert extract.main([*command, "--shots"]) == 0
    table = pq.read_table(out)
    starts, ends = (table[f"shot_{x}_s"].to_pylist() for x in ("start", "end"))
    assert starts == pytest.approx([0, *[cut_s] * 3], abs=1e-3)
    assert ends == pytest.approx([cut_s, *[4.004] * 3], abs=0.1)
    assert extract.main([*command, "--shots"]) == 0
    assert "1 done before" in capsys.readouterr().out
    assert extract.main(command) == 0  # other options: made anew
    assert set(pq.read_table(out)["shot_end_s"].to_pylist()) == {None}


def test_extract_that_is_stopped_leaves_what_is_done(untrained, demo_videos, tmp_path):
    command = [sys.executable, "-m", "visxp_jax.extract", f"--workdir={untrained}"]
    out = tmp_path / "out"
    child = subprocess.Popen(
        [*command, f"--out={out}", "--batch-size=8", str(demo_videos)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    until = time.monotonic() + 100
    while not list(out.glob("*.parquet")) and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    errors = child.communicate(timeout=60)[1]
    assert child.returncode == 130, errors
    assert (
        errors.strip().splitlines()[-1]
        == "stopped; the same command goes on from here."
    )
    assert not list(out.glob(".*.tmp"))
    found = [extract.about_of(path) for path in out.glob("*.parquet")]
    assert 0 < len(found) < 24
    assert all(about["status"] == "kept" for about in found)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--workdir=none"], "none must hold a trained model"),
        (["--shard=2/2"], "--shard must be like 0/4"),
        (["--batch-size=0"], "--batch-size must be at least 1"),
        (["--out=setup.py"], "--out must be a folder"),
        ([str(ROOT / "README.md")], "error: 2 of 2 were skipped"),
    ],
)
def test_mistakes_in_extraction_are_one_line(untrained, args, words, tmp_path, capsys):
    command = [f"--workdir={untrained}", f"--out={tmp_path / 'out'}", "none.mp4", *args]
    assert extract.main(command) == 2
    told = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert len(told) == 1
    assert words in told[0]
