"""The whole job by its command line, on a tiny network and a few demo videos."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.parts import JPEG_QUALITY
from visxp_jax import extract
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.data.dataset import open_dataset, read_prepared
from visxp_jax.media import probe, read_clips, read_sounds
from visxp_jax.train.lock import locked
from visxp_jax.train.log import read_jsonl
from visxp_jax.weights import load_weights

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
        "--config.run.log_every=4",
        "--config.run.eval_every=12",
        "--config.selflabel.steps=18",
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
    assert about["step"] == 22
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


def test_run_that_was_stopped_goes_on_to_the_same_losses_and_weights(
    finished, prepared, tmp_path
):
    """Before the first step, and again killed in the middle.

    SIGTERM in the middle of a run: see test_relabel.py and test_two_hosts.py.
    """
    often = "--config.run.save_every=3"

    def stopped(number: signal.Signals, stop_after: int) -> tuple[int, str]:
        child = subprocess.Popen(
            command(tmp_path, prepared["tfrecord"], often),
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
        child.send_signal(number)
        out, _ = child.communicate(timeout=120)
        assert not (tmp_path / "results.json").exists()
        return child.returncode, out

    code, out = stopped(signal.SIGTERM, 0)
    assert code == 0
    assert "the same command goes on from there" in out
    code, out = stopped(signal.SIGKILL, 12)
    assert code == -signal.SIGKILL
    again = run(tmp_path, prepared["tfrecord"], often)
    assert again.returncode == 0, again.stderr
    for told in (out, again.stdout):
        assert "going on from step" in told
    assert losses(tmp_path) == losses(finished)
    with (
        np.load(finished / "model.npz") as a,
        np.load(tmp_path / "model.npz") as b,
    ):
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


NO_TENSORFLOW = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec


def without(name, *args):
    return None if name.partition(".")[0] == "tensorflow" else find(name, *args)


PathFinder.find_spec = without
"""


@pytest.mark.slow
def test_prepare_run_and_extract_without_tensorflow(demo_videos, tmp_path):
    """The array_record path on a machine that has no TensorFlow."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_TENSORFLOW)
    workdir = tmp_path / "run"

    def call(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, *args],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    look = "from importlib.util import find_spec; print(find_spec('tensorflow'))"
    assert call("-c", look) == "None\n"
    train = [
        *("-m", "visxp_jax.main", f"--workdir={workdir}"),
        f"--config={ROOT / 'configs' / 'avc'}.py:debug",
        f"--config.data.videos={demo_videos}",
        "--config.data.reader=array_record",
    ]
    assert "TensorFlow is not installed: metrics.jsonl only" in call(*train)
    assert (workdir / "report.html").exists()
    before = json.loads((workdir / "results.json").read_text())
    (workdir / "report.html").unlink()
    assert "is prepared already" in call(*train)  # of what is finished: figures, page
    assert (workdir / "report.html").exists()
    after = json.loads((workdir / "results.json").read_text())
    assert after | {"seconds": 0} == before | {"seconds": 0}
    video, out = next(demo_videos.rglob("*.mp4")), tmp_path / "out"
    call("-m", "visxp_jax.extract", f"--workdir={workdir}", f"--out={out}", str(video))
    assert len(list(out.glob("*.parquet"))) == 1


def refused(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 2
    lines = [x for x in result.stderr.splitlines() if x.startswith("error:")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def test_a_mistake_in_the_configuration_is_found_before_any_device(prepared, tmp_path):
    refused(
        run(
            tmp_path,
            prepared["tfrecord"],
            "--config.avc.optim.learning_rate=-1",
            env={**os.environ, "JAX_PLATFORMS": "nonsense"},
        ),
        "learning_rate",
    )


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
    before = (finished / "metrics.jsonl").read_bytes()
    result = run(finished, prepared["tfrecord"], "--config.model.width=4")
    refused(result, "model.width=2", "4", "another --workdir")
    config = json.loads((finished / "config.json").read_text())
    assert config["model"]["width"] == 2
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_workdir_in_use_is_refused(prepared, tmp_path):
    with locked(tmp_path):
        refused(run(tmp_path, prepared["tfrecord"]), "in use", str(os.getpid()))


def test_report_shows_clips_with_the_sound_of_their_own_second(finished, demo_videos):
    page = (finished / "report.html").read_text()
    played = re.findall(
        r'data-sound="(\d+)" title="play: [^,]+, (\S+) at 0:(\d\d)\.0"', page
    )
    sounds = dict(re.findall(r'id="s(\d+)">([^<]+)<', page))
    assert len({video for _, video, _ in played}) > 2
    for number, video, second in sorted(set(played)):
        with wave.open(io.BytesIO(base64.b64decode(sounds[number]))) as file:
            rate_hz, told = file.getframerate(), file.readframes(file.getnframes())
        own = read_sounds(demo_videos / video, {int(second)}, rate_hz=rate_hz)
        np.testing.assert_array_equal(np.frombuffer(told, "<i2"), own[int(second)])


def test_report_shows_each_cluster_and_neighbours_from_other_videos(finished, prepared):
    page = (finished / "report.html").read_text()
    sizes = [
        int(size) for size in re.findall(r'class="card"[^>]* data-size="(\d+)"', page)
    ]
    usable = open_dataset(prepared["tfrecord"]).counts["test"]["usable"]
    assert len(sizes) == len(set(re.findall(r'class="card" data-index="(\d+)"', page)))
    assert sum(sizes) == usable
    queries = page.split('<article class="query">')[1:]
    assert queries
    for query in queries:
        asked, *found = re.findall(
            r'class="where" title="([^"]+)"', query.split("</article>")[0]
        )
        assert found
        assert asked not in found


def through_jpeg(frame: np.ndarray) -> np.ndarray:
    """As frames are kept on their way into the network, in training and after."""
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(data))


def vectors_of(trained, files) -> list[np.ndarray]:
    """Video and audio vectors of all clips, from the network itself."""
    data = trained.config.data
    clips = [
        clip
        for file in files
        for clip in read_clips(
            file, size_px=data.size_px, spectrogram=PRESETS[data.spectrogram]
        )
    ]
    (video, audio), _ = trained.model.embed(
        trained.params,
        trained.model_state,
        np.stack([through_jpeg(clip.frame) for clip in clips]),
        np.stack([clip.log_mel.astype(np.float16) for clip in clips]),
        train=False,
    )
    return [np.asarray(video), np.asarray(audio)]


def test_extract_gives_vectors_with_times_and_provenance(
    finished, demo_videos, tmp_path, capsys
):
    import pyarrow.parquet as pq

    every = sorted(demo_videos.rglob("*.mp4"))
    files = [next(f for f in every if "siren-fall" in f.name), every[0], every[5]]
    assert not probe(files[0]).has_audio
    broken = tmp_path / "-broken $(x).mp4"
    broken.write_bytes(b"no video")
    out = tmp_path / "features"
    command = [f"--workdir={finished}", f"--out={out}", "--batch-size=7"]
    command += [*map(str, files), "--", str(broken)]
    capsys.readouterr()
    assert extract.main(command) == 0
    told = capsys.readouterr()
    assert f"skipped: {broken}: not a readable media file" in told.err
    assert "of 3 videos" in told.out
    assert "1 of 4 were skipped." in told.err
    video, audio = vectors_of(load_weights(finished), files)
    at = 0
    for file in files:
        (found,) = out.glob(f"{file.stem}-*.parquet")
        table = pq.read_table(found)
        n = len(table)
        here, at = slice(at, at + n), at + n
        assert set(table["path"].to_pylist()) == {str(file)}
        assert table["start_s"].to_pylist() == list(range(n))
        assert table["end_s"].to_pylist() == list(range(1, n + 1))
        apart = table["frame_s"].to_numpy() - table["start_s"].to_numpy()
        assert (apart <= 0.5).all()
        rows = np.stack(table["video"].to_numpy())
        np.testing.assert_allclose(rows, video[here], rtol=2e-3, atol=2e-3)
        rows = np.stack(table["audio"].to_numpy())
        agreement = table["agreement"].to_pylist()
        if file == files[0]:  # no sound
            assert not any(table["has_audio"].to_pylist())
            assert not rows.any()
            assert set(agreement) == {None}
        else:
            np.testing.assert_allclose(rows, audio[here], rtol=2e-3, atol=2e-3)
            assert all(0 <= x <= 1 for x in agreement)
        image = Image.open(io.BytesIO(table["thumbnail"][0].as_py()))
        assert max(image.size) == extract.THUMBNAIL_PX
        about = json.loads((out / f"_{found.stem}.json").read_text())
        assert about == json.loads(pq.read_metadata(found).metadata[b"about"])
        weights = json.loads((finished / "model.json").read_text())["sha256"]
        assert about["model_sha256"] == weights
        assert (about["video"], about["clips"]) == (str(file), n)
        expected = (0, -1 if file == files[0] else 1)
        assert (about["video_stream"], about["audio_stream"]) == expected
    assert len(pq.read_table(out)) == at  # the folder is one table, for any reader
    assert not list(out.glob(".*.tmp"))
    (told,) = out.glob("_*broken*.json")
    assert json.loads(told.read_text())["reason"] == "not a readable media file"


@pytest.mark.slow
def test_from_a_folder_of_unlabelled_videos_to_a_report(demo_videos, tmp_path):
    """As in the README: videos in one folder, nothing prepared, TensorBoard on.

    At first with a batch that is larger than they are, which is found once they are
    prepared.
    """
    videos = tmp_path / "videos"
    videos.mkdir()
    for file in sorted(demo_videos.rglob("*.mp4"))[:12]:
        (videos / file.name).write_bytes(file.read_bytes())
    # Within the videos: what a run writes there is none of them.
    workdir = videos / "runs" / "x"
    call = [
        *(sys.executable, "-m", "visxp_jax.main", f"--workdir={workdir}"),
        f"--config={ROOT / 'configs' / 'shhc.py'}:debug",
        f"--config.data.videos={videos}",
        "--config.avc.regularisation=0.1",
    ]

    def called(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*call, *more], cwd=ROOT, capture_output=True, text=True, check=False
        )

    few = called("--config.data.batch_size=4096")
    refused(few, "data.batch_size must not exceed the", "4096")
    assert "12 of 12 files kept" in few.stdout
    done = called()
    assert done.returncode == 0, done.stderr
    assert "is prepared already" in done.stdout
    results = json.loads((workdir / "results.json").read_text())
    assert 0 <= results["avc_accuracy"] <= 1
    assert results["nmi"] is results["linear_probe"] is results["raw_nmi_audio"] is None
    assert len(read_prepared(workdir / "data")["label_names"]) == 0
    events = [file.read_bytes() for file in workdir.glob("events.out.tfevents.*")]
    assert b"loss/representation" in b"".join(events)
    page = (workdir / "report.html").read_text()
    assert "data:image/jpeg" in page
    assert "No clusters" not in page
    page = (workdir / "hierarchy.html").read_text()
    assert '"name":"learnt"' in page
    assert '"name":"sight and sound"' in page
