"""On Beam's runner in this process; where Beam is missing, that this is said."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from array_record.python import array_record_module

from data_prep.beam import main, pipeline_options
from data_prep.parts import PartTask
from data_prep.prepare import prepare
from data_prep.sources import source_of
from tests.videos import damage, moving, write_video
from visxp_jax.data.dataset import open_dataset
from visxp_jax.errors import VisxpError

REPO = Path(__file__).resolve().parents[2]
OPTIONS = {"spectrogram": "mel", "size_px": 32, "progress": False}
# TFDS with protobuf 6, which Beam wants.
pytestmark = pytest.mark.filterwarnings("ignore:label.. is deprecated")
# DirectRunner would first try to download another runner.
RUNNER = "--runner=FnApiRunner"


@pytest.fixture(scope="module")
def beam_options():
    pytest.importorskip("apache_beam")
    return pipeline_options([RUNNER])


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(8):
        label = "bell" if i % 2 else "drum"
        write_video(folder / label / f"it's {i}.mp4", seconds=2 + i % 3)
    damage(write_video(folder / "hurt.mp4", seconds=6, picture=moving), at=0.4)
    write_video(folder / "line\nbreak.mp4", seconds=2, sound=None)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    (folder / ".hidden.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare(videos, out, workers=1, **OPTIONS)
    return out


def data_files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != "LOCK"
    }


def test_beam_writes_the_bytes_that_processes_write(
    beam_options, videos, whole, tmp_path
):
    prepare(videos, tmp_path / "out", beam_options=beam_options, **OPTIONS)
    assert data_files(tmp_path / "out") == data_files(whole)


def test_of_several_shards_only_the_borders_differ(
    beam_options, videos, tmp_path, monkeypatch
):
    shards = "tensorflow_datasets.core.utils.shard_utils.ShardConfig"
    monkeypatch.setattr(f"{shards}.min_shard_size", 20_000)
    settings = {**OPTIONS, "file_format": "array_record"}
    prepare(videos, tmp_path / "here", workers=1, **settings)
    prepare(videos, tmp_path / "beam", beam_options=beam_options, **settings)
    here, beam = open_dataset(tmp_path / "here"), open_dataset(tmp_path / "beam")
    for name in ("clips.parquet", "manifest.csv"):
        assert (beam.dir / name).read_bytes() == (here.dir / name).read_bytes()
    assert len(beam.shards("train")) > 1
    for split in ("train", "validation", "test"):
        assert records(beam, split) == records(here, split)


def records(dataset, split: str) -> list[bytes]:
    readers = [
        array_record_module.ArrayRecordReader(str(path))
        for path in dataset.shards(split)
    ]
    return [record for reader in readers for record in reader.read_all()]


def test_failure_of_a_worker_costs_one_file(beam_options, videos, tmp_path):
    from data_prep import pipelines

    def task(name: str, size_px: int) -> PartTask:
        source = source_of(videos / name, Path(name))
        return PartTask(source, tmp_path, "mel", size_px)

    tasks = [task("drum/it's 0.mp4", 32), task("hurt.mp4", -1)]
    tasks += [task("drum/it's 2.mp4", 32), task("noise.mp4", 32)]
    found = list(pipelines.write_parts(tasks, beam_options, timeout_s=60))
    assert [task for task, _ in found] == tasks
    rows = [row for _, row in found]
    assert [row.status for row in rows] == ["kept", "skipped", "kept", "skipped"]
    assert "Error: " in rows[1].reason
    assert rows[3].reason == "not a readable media file"


@pytest.mark.slow
def test_killed_and_resumed_makes_the_missing_parts_only(
    beam_options, videos, whole, tmp_path, monkeypatch
):
    from data_prep import pipelines

    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "data_prep.beam", str(videos), "--out", str(out),
        "--spectrogram", "mel", "--size-px", "32", "--", RUNNER,
    ]  # fmt: skip
    job = subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("parts/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    job.kill()
    job.wait()
    done = {path.stem for path in out.glob("parts/*.json")}
    assert len(done) >= 3
    assert not (out / "prepared.json").exists()
    given = []
    write_parts = pipelines.write_parts

    def spied(tasks, *args, **settings):
        given.extend(task.source.key for task in tasks)
        return write_parts(tasks, *args, **settings)

    monkeypatch.setattr(pipelines, "write_parts", spied)
    prepare(videos, out, beam_options=beam_options, **OPTIONS)
    assert given
    assert not done & set(given)
    assert data_files(out) == data_files(whole)


def test_folder_that_workers_do_not_share_is_noticed(
    beam_options, videos, tmp_path, monkeypatch, capsys
):
    # As if they wrote elsewhere.
    monkeypatch.setattr("data_prep.pipelines._WriteParts.process", lambda *_: None)
    arguments = [str(videos), "--out", str(tmp_path / "out"), "--", RUNNER]
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --out must be one folder for all of Beam's")


def test_video_that_a_worker_does_not_see_is_not_skipped(
    beam_options, videos, tmp_path
):
    from data_prep import pipelines

    source = source_of(videos / "noise.mp4")._replace(path=videos / "elsewhere.mp4")
    task = PartTask(source, tmp_path, "mel", 32)
    with pytest.raises(VisxpError, match="VIDEOS must be one folder for all"):
        list(pipelines.write_parts([task], beam_options, timeout_s=60))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runer=FnApiRunner"], "options after -- must be Beam's, got --runer"),
        (["--runner=Nobody"], "refuses its options: Unexpected pipeline runner: Nob"),
        (["--direct_num_workers=x"], "argument --direct_num_workers: invalid int"),
    ],
)
def test_options_that_beam_does_not_know_are_refused_in_a_line(
    beam_options, videos, tmp_path, capsys, flags, message
):
    out = tmp_path / "out"
    assert main([str(videos), "--out", str(out), "--", *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not out.exists()


def test_without_beam_it_is_said_how_to_get_it(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("data_prep.beam.find_spec", lambda name: None)
    assert main([str(videos), "--out", str(tmp_path / "out")]) == 2
    assert "requirements/beam.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_address_of_a_store_is_refused_as_folder(videos, capsys):
    with pytest.raises(SystemExit):
        main([str(videos), "--out", "gs://bucket/out"])
    assert "mount it" in capsys.readouterr().err
