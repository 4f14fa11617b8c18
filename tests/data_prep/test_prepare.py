import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from data_prep.builder import quiet
from data_prep.prepare import main, prepare
from tests.videos import (
    cut_without_encoding,
    damage,
    level,
    moving,
    tones,
    write_video,
)
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.data.dataset import open_dataset
from visxp_jax.errors import VisxpError

REPO = Path(__file__).resolve().parents[2]
OPTIONS = {"spectrogram": "mel", "size_px": 32, "progress": False}
NAMES = [
    "bell/a b",
    "bell/$(touch owned)",
    "bell/it's",
    "drum/-x",
    'drum/"y"',
    "drum/z",
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Six good videos of two labels, and one of everything that may be wrong."""
    folder = tmp_path_factory.mktemp("videos")
    for name in NAMES:
        write_video(folder / f"{name}.mp4", seconds=2)
    odd = folder / "odd"
    write_video(odd / "mute.mp4", seconds=2, sound=None)
    write_video(odd / "silent.mp4", seconds=2, sound=tones(2, 24_000) * 0)
    write_video(odd / "short.mp4", seconds=0.5)
    write_video(odd / "cut.mkv", seconds=2, sound=tones(1, 24_000))
    write_video(odd / "line\nbreak.mp4", seconds=1)
    write_video(odd / "long.mkv", seconds=2, sound=tones(5, 24_000))
    damage(write_video(odd / "hurt.mp4", seconds=6, picture=moving), at=0.4)
    (odd / "empty.mp4").write_bytes(b"")
    (odd / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    (odd / "notes.txt").write_text("no video")
    (odd / "Icon\r").write_bytes(b"")
    whole = write_video(folder.parent / "whole.mp4", seconds=8.5)
    cut_without_encoding(whole, odd / "shortened.mp4", from_s=6)  # colours repeat then
    write_video(folder / ".half-copied.mp4", seconds=2)
    write_video(folder / ".trash" / "gone.mp4", seconds=2)
    return folder


@pytest.fixture(scope="module")
def prepared(videos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(videos, out, workers=2, file_format="array_record", **OPTIONS)
    return out


def manifest(out: Path) -> dict[str, dict[str, str]]:
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def clips(out: Path) -> list[dict]:
    return pq.read_table(out / "clips.parquet").to_pylist()


def stored(out: Path, split: str) -> list[dict]:
    """All records of a split in reading order."""
    dataset = open_dataset(out)
    with quiet():
        builder = tfds.builder_from_directory(str(dataset.builder_dir))
        if dataset.file_format == "array_record":
            return list(builder.as_data_source(split=split))
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        return list(tfds.as_numpy(builder.as_dataset(split=split, read_config=config)))


def test_every_file_has_a_row_that_says_why(videos, prepared):
    rows = manifest(prepared)
    files = {p.relative_to(videos).as_posix() for p in videos.rglob("*.*")}
    files |= {"odd/Icon\r"}
    assert set(rows) == files - {".trash/gone.mp4"}  # of hidden folders the name only
    skipped = {k: v["reason"] for k, v in rows.items() if v["status"] == "skipped"}
    hidden = "hidden: its name begins with a dot"
    assert skipped == {
        ".half-copied.mp4": hidden,
        ".trash": hidden,
        "odd/Icon\r": "an empty file",
        "odd/empty.mp4": "an empty file",
        "odd/noise.mp4": "not a readable media file",
        "odd/notes.txt": "not a readable media file",
        "odd/short.mp4": "shorter than one second (0.50 s)",
    }
    hurt = rows["odd/hurt.mp4"]
    assert hurt["status"] == "partial"
    assert 0 < int(hurt["dropped"]) == 6 - int(hurt["clips"])
    assert f"{hurt['dropped']} seconds dropped" in hurt["reason"]
    kept = rows["bell/a b.mp4"]
    assert (kept["status"], kept["clips"], kept["label"]) == ("kept", "2", "bell")
    assert (kept["width"], kept["height"], kept["fps"]) == ("64", "48", "10.0")
    assert kept["audio_rate"] == "24000"
    assert (kept["video_stream"], kept["audio_stream"]) == ("0", "1")
    assert rows["odd/mute.mp4"]["no_audio"] == "2"
    assert rows["odd/mute.mp4"]["audio_stream"] == "-1"
    assert rows["odd/silent.mp4"]["silent"] == "2"
    assert (rows["odd/cut.mkv"]["no_audio"], rows["odd/cut.mkv"]["partial"]) == (
        "1",
        "1",
    )
    long = rows["odd/long.mkv"]
    assert (long["clips"], long["seconds"]) == ("2", "2.0")
    assert float(long["sound_seconds"]) == pytest.approx(5, abs=0.1)
    assert (long["mismatched"], kept["mismatched"]) == ("1", "0")
    assert rows["odd/mute.mp4"]["mismatched"] == "0"
    short = rows["odd/shortened.mp4"]
    assert (short["status"], short["clips"]) == ("kept", "2")
    assert not Path("owned").exists()


def test_splits_are_by_video_and_numbered_densely(prepared):
    index = clips(prepared)
    rows = manifest(prepared)
    assert {clip["video"]: clip["split"] for clip in index} == {
        name: row["split"] for name, row in rows.items() if row["split"]
    }
    for split in ("train", "validation", "test"):
        here = [clip for clip in index if clip["split"] == split]
        assert here
        assert [clip["clip_id"] for clip in here] == list(range(len(here)))
        order = [(clip["video_id"], clip["start_s"]) for clip in here]
        assert order == sorted(order)
        assert sorted(clip["position"] for clip in here) == list(range(len(here)))
        labels = {rows[clip["video"]]["label"] for clip in here}
        assert {"bell", "drum", "odd"} <= labels
    ids = {clip["video"]: clip["video_id"] for clip in index}
    assert [ids[name] for name in sorted(ids)] == list(range(len(ids)))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_records_are_what_the_index_says(prepared, split):
    dataset = open_dataset(prepared)
    index = dataset.index(split)
    records = stored(prepared, split)
    assert len(records) == dataset.num_clips(split) == len(index["clip_id"])
    for i, position in enumerate(index["position"]):
        record = records[position]
        for name in index:
            if name != "position":
                value = np.asarray(record[name]).item()
                value = value.decode() if isinstance(value, bytes) else value
                assert value == index[name][i], name
        assert record["frame"].shape == (32, 32, 3)
        assert abs(record["frame"].mean() - level(int(record["start_s"].item()))) < 8
        assert record["log_mel"].shape == PRESETS["mel"].shape
        assert record["log_mel"].dtype == np.float16
        assert record["log_mel"].any() == record["has_audio"]
        label = dataset.label_names[record["label"]]
        assert record["video"].decode().startswith(label)


def test_prepared_json_tells_all(videos, prepared):
    told = json.loads((prepared / "prepared.json").read_text())
    assert told["options"]["videos"] == str(videos)
    assert told["spectrogram"]["rate_hz"] == 16_000
    assert told["label_names"] == ["bell", "drum", "odd"]
    total = sum(counts["clips"] for counts in told["counts"].values())
    assert total == len(clips(prepared))
    dataset = open_dataset(prepared)
    index = clips(prepared)
    usable = sum(clip["has_audio"] and not clip["silent"] for clip in index)
    splits = ("train", "validation", "test")
    assert sum(map(dataset.num_usable, splits)) == usable < total
    left = {path.name for path in prepared.iterdir()}
    assert left == {
        "LOCK",
        "clips.parquet",
        "manifest.csv",
        "prepared.json",
        "visxp_clips",
    }


def test_finished_data_are_left_alone(videos, prepared, capsys):
    before = (prepared / "prepared.json").stat().st_mtime_ns
    options = {**OPTIONS, "progress": True}
    prepare(videos, prepared, file_format="array_record", **options)
    assert "prepared already" in capsys.readouterr().out
    assert (prepared / "prepared.json").stat().st_mtime_ns == before


def test_videos_that_were_skipped_are_a_mistake_if_strict(videos, prepared, capsys):
    command = [str(videos), f"--out={prepared}", "--spectrogram=mel", "--size-px=32"]
    command.append("--format=array_record")
    assert main(command) == 0
    assert main([*command, "--strict"]) == 2
    rows = manifest(prepared)
    skipped = {name for name, row in rows.items() if row["status"] == "skipped"}
    beside = {".half-copied.mp4", ".trash", "odd/notes.txt"}
    assert beside < skipped
    count = len(skipped - beside)
    told = f"error: {count} of {len(rows) - 3} were skipped.\n"
    assert capsys.readouterr().err == told


def test_other_options_are_refused_and_named(videos, prepared):
    with pytest.raises(VisxpError, match="size_px=32, not 64; use another --out"):
        prepare(
            videos, prepared, file_format="array_record", **{**OPTIONS, "size_px": 64}
        )


def test_changed_videos_are_refused(tmp_path):
    for i in range(3):
        write_video(tmp_path / "videos" / f"{i}.mp4", seconds=1)
    settings = {**OPTIONS, "workers": 1, "file_format": "array_record"}
    prepare(tmp_path / "videos", tmp_path / "out", **settings)
    write_video(tmp_path / "videos" / "3.mp4", seconds=1)
    with pytest.raises(VisxpError, match="have changed since"):
        prepare(tmp_path / "videos", tmp_path / "out", **settings)


def command(videos, out) -> list[str]:
    return [
        sys.executable, "-m", "data_prep.prepare", str(videos), "--out", str(out),
        "--spectrogram", "mel", "--size-px", "32", "--workers", "1",
    ]  # fmt: skip


def data_files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "LOCK"
    }


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(videos, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepare(videos, whole, workers=2, **OPTIONS)
    job = subprocess.Popen(
        command(videos, killed),
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(list(killed.glob("parts/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    parts = {p: p.stat().st_mtime_ns for p in killed.glob("parts/*.json")}
    assert 3 <= len(parts) < len(manifest(whole))
    assert not (killed / "prepared.json").exists()
    (killed / "parts" / "x.parquet.1.tmp").write_bytes(b"half a part")
    # As a power cut may leave them.
    whole_parts = sorted(killed.glob("parts/*.parquet"))
    whole_parts[0].write_bytes(whole_parts[0].read_bytes()[:-100])
    whole_parts[1].with_suffix(".json").write_text('{"row": {"fi')
    with pytest.raises(VisxpError, match="was begun with size_px=32, not 64"):
        prepare(videos, killed, **{**OPTIONS, "size_px": 64})
    (killed / "visxp_clips" / "incomplete.ABC_1.0.0").mkdir(parents=True)
    prepare(videos, killed, workers=2, **OPTIONS)
    assert data_files(killed) == data_files(whole)
    # TFRecords, too, are in the order the index says.
    for split in ("train", "test"):
        found = [int(record["clip_id"]) for record in stored(whole, split)]
        index = open_dataset(whole).index(split)
        np.testing.assert_array_equal(np.argsort(found), index["position"])


def test_labels_from_csv(videos, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\nbell/a b.mp4,ding\ndrum/z.mp4,dong\n")
    settings = {**OPTIONS, "workers": 2, "file_format": "array_record"}
    prepare(videos, tmp_path / "out", labels=labels, **settings)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.label_names == ["ding", "dong"]
    by_video = {clip["video"]: clip["label"] for clip in clips(tmp_path / "out")}
    assert by_video["bell/a b.mp4"] == 0
    assert by_video["drum/z.mp4"] == 1
    assert by_video["drum/-x.mp4"] == -1


def test_nothing_usable_is_refused(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    out = tmp_path / "out"
    arguments = [str(tmp_path / "videos"), "--out", str(out), "--workers", "1"]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: VIDEOS must hold files")
    assert not out.exists()
    (tmp_path / "videos" / "x.mp4").write_bytes(b"")
    assert main(arguments) == 2
    assert "got 1 files, the first x.mp4: an empty file" in capsys.readouterr().err
    assert not (out / "prepared.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spectrogram": "mfcc"}, "spectrogram must be one of visxp, mel, l3net"),
        ({"size_px": 2}, "size_px must be 16 to 4096, got 2"),
        ({"file_format": "zip"}, "file_format must be one of tfrecord, array_record"),
        ({"fractions": (0.5, 0.5, 0.5)}, "sum to 1, got"),
        ({"fractions": (0.7, float("nan"), 0.3)}, "sum to 1, got"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"timeout_s": 0}, "timeout_s must be positive"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(VisxpError, match=message):
        prepare(tmp_path, **{"out": tmp_path / "out", **OPTIONS, **changes})


def test_videos_and_data_may_be_moved_together(tmp_path):
    for i in range(3):
        write_video(tmp_path / "a" / "videos" / f"{i}.mp4", seconds=1)
    settings = {**OPTIONS, "workers": 1, "file_format": "array_record"}
    prepare(tmp_path / "a" / "videos", tmp_path / "a" / "data", **settings)
    (tmp_path / "a").rename(tmp_path / "b")
    before = data_files(tmp_path / "b" / "data")
    prepare(tmp_path / "b" / "videos", tmp_path / "b" / "data", **settings)
    assert data_files(tmp_path / "b" / "data") == before
    assert open_dataset(tmp_path / "b" / "data").videos == tmp_path / "b" / "videos"


def test_output_into_the_videos_themselves_is_refused(videos):
    with pytest.raises(VisxpError, match="--out must not be the folder of videos"):
        prepare(videos, videos, **OPTIONS)
    with pytest.raises(VisxpError, match="--workdir must not be the folder of videos"):
        prepare(videos, videos / "data", leave_out=videos, **OPTIONS)


def test_videos_without_sound_fill_up_no_split_and_hidden_files_change_nothing(
    tmp_path,
):
    for label in ("cat", "dog", "owl"):
        for i in range(2):
            write_video(tmp_path / "videos" / label / f"{i}.mp4", seconds=1)
        write_video(tmp_path / "videos" / label / "mute.mp4", seconds=1, sound=None)
    settings = {**OPTIONS, "workers": 2, "file_format": "array_record"}
    prepare(tmp_path / "videos", tmp_path / "a", **settings)
    counts = open_dataset(tmp_path / "a").counts
    # Two of each label alone would leave none to validate on.
    assert [counts[s]["usable"] for s in ("train", "validation", "test")] == [4, 1, 1]
    assert [counts[s]["no_audio"] for s in ("train", "validation", "test")] == [1] * 3
    (tmp_path / "videos" / "cat" / ".DS_Store").write_bytes(b"x")
    prepare(tmp_path / "videos", tmp_path / "b", **settings)
    a, b = (open_dataset(tmp_path / x) for x in "ab")
    assert a.manifest_sha256 == b.manifest_sha256
    assert set(manifest(b.dir)) - set(manifest(a.dir)) == {"cat/.DS_Store"}


@pytest.mark.parametrize("name", ["notes.tmp", "parts/x.txt", "visxp_clips/x.txt"])
def test_folder_with_files_of_others_is_refused_and_left_alone(videos, tmp_path, name):
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(VisxpError, match="must be a new or an empty folder"):
        prepare(videos, tmp_path / "out", **OPTIONS)
    assert theirs.read_text() == "mine"


def test_tfrecord_without_tensorflow_is_refused_at_once(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.prepare.find_spec", lambda name: None)
    with pytest.raises(VisxpError, match="needs TensorFlow.*take 'array_record'"):
        prepare(videos, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["", "--out", "x"], [".", "--out", ""]])
def test_empty_name_is_not_the_current_folder(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "must name a folder, got ''" in capsys.readouterr().err


def test_output_in_use_is_refused(videos, tmp_path):
    from visxp_jax.train.lock import locked

    with locked(tmp_path / "out"), pytest.raises(VisxpError, match="in use"):
        prepare(videos, tmp_path / "out", **OPTIONS)


def test_an_intact_file_of_pictures_that_stand_alone_is_kept_whole(
    tmp_path, monkeypatch
):
    """Most of its pictures are never decoded: that is no damage."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    codecs = {"video_codec": "mjpeg", "pix_fmt": "yuvj420p"}
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "x.mov", seconds=3, **codecs)
    write_video(tmp_path / "in" / "y.mov", seconds=3, **codecs)
    prepare(tmp_path / "in", tmp_path / "out", **OPTIONS)
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["status"], r["reason"], r["clips"]) for r in rows] == [
        ("kept", "", "3")
    ] * 2
    assert not list((tmp_path / "tmp").iterdir())  # nothing is left behind
