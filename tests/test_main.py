"""The whole job by its command line, on a tiny network and a few demo videos."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from visxp_jax.train.lock import locked
from visxp_jax.train.log import read_jsonl

ROOT = Path(__file__).parent.parent
KEYS = [
    "avc_accuracy",
    "nmi",
    "ari",
    "cluster_accuracy",
    "linear_probe",
    "knn",
    "random_init_linear_probe",
    "random_init_nmi",
    "raw_nmi_visual",
    "raw_nmi_audio",
    "seconds",
]


def command(workdir: Path, data: Path, *extra: str) -> list[str]:
    return [
        *(sys.executable, "-m", "visxp_jax.main"),
        f"--config={ROOT / 'configs' / 'selflabel.py'}:debug",
        f"--workdir={workdir}",
        f"--config.data.dir={data}",
        "--config.run.log_every=1",
        "--config.selflabel.steps=30",
        "--notensorboard",
        *extra,
    ]


def run(*args, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*args), cwd=ROOT, capture_output=True, text=True, check=False, **kwargs
    )


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory) -> Path:
    """Workdir of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("finished")
    result = run(workdir, prepared["tfrecord"])
    assert result.returncode == 0, result.stderr
    assert "report:" in result.stdout
    return workdir


def test_run_leaves_figures_report_and_model(finished):
    results = json.loads((finished / "results.json").read_text())
    assert set(KEYS) <= set(results)
    for key in KEYS[:-1]:
        assert 0 <= results[key] <= 1, key
    page = (finished / "report.html").read_text()
    assert "modality_agreement" in page
    assert "data:image/jpeg" in page
    assert json.loads((finished / "config.json").read_text())["name"] == "selflabel"
    about = json.loads((finished / "model.json").read_text())
    assert about["step"] == 34
    names = set().union(*read_jsonl(finished / "metrics.jsonl"))
    assert {
        "loss/clustering",
        "loss/representation",
        "loss/regularisation",
        "relabel/column_error",
        "relabel/label_change",
        "validation/modality_agreement",
        "validation/feature_rank",
    } <= names


def losses(workdir: Path) -> dict[int, dict[str, float]]:
    rows: dict[int, dict[str, float]] = {}
    for row in read_jsonl(workdir / "metrics.jsonl"):
        kept = {k: v for k, v in row.items() if k != "clips_per_second"}
        rows.setdefault(row["step"], {}).update(kept)
    return rows


@pytest.mark.parametrize("stop_after", [2, 6])
def test_run_stopped_by_sigterm_goes_on_to_the_same_losses_and_weights(
    finished, prepared, tmp_path, stop_after
):
    child = subprocess.Popen(
        command(tmp_path, prepared["tfrecord"], "--config.run.save_every=3"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        rows = read_jsonl(tmp_path / "metrics.jsonl")
        if rows and rows[-1]["step"] >= stop_after:
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    assert "the same command goes on from there" in out
    assert not (tmp_path / "results.json").exists()
    again = run(tmp_path, prepared["tfrecord"], "--config.run.save_every=3")
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stdout
    assert losses(tmp_path) == losses(finished)
    with (
        np.load(finished / "model.npz") as a,
        np.load(tmp_path / "model.npz") as b,
    ):
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_run_without_tensorflow(prepared, tmp_path):
    """The array_record path on a machine where TensorFlow cannot be imported."""
    blocker = tmp_path / "site"
    (blocker / "tensorflow").mkdir(parents=True)
    (blocker / "tensorflow" / "__init__.py").write_text("raise ImportError('absent')")
    result = subprocess.run(
        command(
            tmp_path / "run",
            prepared["array_record"],
            "--config.data.reader=array_record",
        ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(blocker)},
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "report.html").exists()


def refused(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 2
    lines = [x for x in result.stderr.splitlines() if x.startswith("error:")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def test_unknown_config_key_says_did_you_mean(prepared, tmp_path):
    result = run(tmp_path, prepared["tfrecord"], "--config.avc.optim.lerning_rate=1")
    meant = "did you mean 'avc.optim.learning_rate'?"
    refused(result, f"unknown config key 'avc.optim.lerning_rate'; {meant}")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config=configs/selflabel.py:foo", "empty or 'debug', got 'foo'"),
        ("--config=configs", "Is a directory"),
        ("--config.model.width=abc", "'abc'"),
        ("--config.foo=3", "unknown config key 'foo'; known: avc, data"),
        ("--nonsense", "nonsense"),
        ("--workdir=", "--workdir must name a folder"),
    ],
)
def test_mistake_in_the_command_line_is_one_line(tmp_path, flag, words):
    result = run(tmp_path, tmp_path, flag)
    refused(result, words)


def test_file_that_is_no_configuration_is_refused(tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "visxp_jax.main"),
            *("--config", "visxp_jax/errors.py", f"--workdir={tmp_path}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    refused(result, "visxp_jax/errors.py must define get_config(), got none")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_preparing_is_one_line_and_leaves_no_child(tmp_path, number):
    child = subprocess.Popen(
        [*command(tmp_path, Path()), "--config.data.dir="],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert child.stderr is not None
    until = time.monotonic() + 100
    while not list(tmp_path.rglob("*.mp4")) and time.monotonic() < until:
        time.sleep(0.1)
    child.send_signal(number)
    errors = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("stopped; the same command")
    assert "Traceback" not in errors


def test_checkpoint_of_another_architecture_is_refused(finished, prepared):
    result = run(finished, prepared["tfrecord"], "--config.model.width=4")
    refused(result, "model.width=2", "4", "another --workdir")
    config = json.loads((finished / "config.json").read_text())
    assert config["model"]["width"] == 2
    assert len(losses(finished)) == 35


def test_workdir_in_use_is_refused(prepared, tmp_path):
    with locked(tmp_path):
        refused(run(tmp_path, prepared["tfrecord"]), "in use", str(os.getpid()))


def test_batch_that_8_devices_cannot_share_is_refused(prepared, tmp_path):
    result = run(tmp_path, prepared["tfrecord"], "--config.data.batch_size=12")
    refused(result, "multiple of the 8 devices", "12", "use 8 or 16")


def test_data_smaller_than_the_batch_are_refused(prepared, tmp_path):
    result = run(tmp_path, prepared["tfrecord"], "--config.data.batch_size=4096")
    refused(result, "data.batch_size must not exceed the", "4096")


def test_extract_gives_vectors_with_times_and_provenance(
    finished, demo_videos, tmp_path
):
    import pyarrow.parquet as pq

    files = sorted(demo_videos.rglob("*.mp4"))[:3]
    broken = tmp_path / "-broken $(x).mp4"
    broken.write_bytes(b"no video")
    from visxp_jax.extract import main

    for name in ("out.npz", "out.parquet"):
        code = main(
            [
                f"--workdir={finished}",
                f"--out={tmp_path / name}",
                "--batch-size=7",
                *map(str, files),
                "--",
                str(broken),
            ]
        )
        assert code == 0
    with np.load(tmp_path / "out.npz") as out:
        about = json.loads(str(out["about"]))
        table = pq.read_table(tmp_path / "out.parquet")
        assert set(out["path"].tolist()) == set(map(str, files))
        n = len(out["path"])
        assert out["audio"].shape == out["video"].shape == (n, 16)
        np.testing.assert_array_equal(out["end_s"], out["start_s"] + 1)
        assert ((out["frame_s"] - out["start_s"]) <= 0.5).all()
        np.testing.assert_allclose(
            np.stack(table["video"].to_numpy()), out["video"], rtol=1e-6
        )
        silent = ~out["has_audio"]
        assert not out["audio"][silent].any()
        assert out["video"].any()
    assert (
        about["model_sha256"]
        == json.loads((finished / "model.json").read_text())["sha256"]
    )


def test_extract_without_a_model_is_refused(tmp_path, capsys):
    from visxp_jax.extract import main

    assert main([f"--workdir={tmp_path}", f"--out={tmp_path / 'x.npz'}", "a.mp4"]) == 2
    assert "must hold a trained model" in capsys.readouterr().err
