"""Feature files: whole or not there, named after their video, read back as written."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import (
    ClipRow,
    Writer,
    about_of,
    file_name,
    files_of,
    read,
    remove_unfinished,
)

ROW = ClipRow("a.mp4", 1.0, 2.0, 1.5, True, False, False)
VECTORS = {"video": np.arange(3.0), "audio": np.ones(2)}


def written(folder, name="a", count=1200, **changes):
    writer = Writer(folder, name)
    for i in range(count):
        vectors = {key: x + i for key, x in VECTORS.items()}
        writer.add(ROW._replace(start_s=float(i), **changes), vectors)
    writer.finish({"model_sha256": "x", "status": "kept"})
    return folder / f"{name}.parquet"


def test_rows_are_read_back_over_several_groups(tmp_path):
    path = written(tmp_path, shot_start_s=0.5, agreement=0.25, thumbnail=b"jpeg")
    found = read(path)
    assert found.table["start_s"].to_pylist() == list(range(1200))
    assert set(found.table["shot_start_s"].to_pylist()) == {0.5}
    assert set(found.table["shot_end_s"].to_pylist()) == {None}
    assert set(found.table["thumbnail"].to_pylist()) == {b"jpeg"}
    assert found.vectors["video"].dtype == np.float16
    np.testing.assert_array_equal(found.vectors["video"][1199], [1199, 1200, 1201])
    assert found.vectors["audio"].shape == (1200, 2)
    assert found.about == about_of(path) == {"model_sha256": "x", "status": "kept"}
    assert json.loads((tmp_path / "_a.json").read_text()) == found.about


def test_a_file_appears_once_it_is_whole(tmp_path):
    writer = Writer(tmp_path, "a")
    for _ in range(600):
        writer.add(ROW, VECTORS)
    assert not list(tmp_path.glob("a*"))
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_features_of_a_video_that_gives_none_any_more_go(tmp_path):
    path = written(tmp_path)
    Writer(tmp_path, "a").finish({"status": "skipped"})
    assert not path.exists()
    assert json.loads((tmp_path / "_a.json").read_text()) == {"status": "skipped"}


def test_features_of_a_video_that_could_not_be_looked_at_stay(tmp_path):
    path = written(tmp_path)
    Writer(tmp_path, "a").finish({"status": "skipped"}, keep=True)
    assert len(read(path).table) == 1200
    assert json.loads((tmp_path / "_a.json").read_text()) == about_of(path)
    Writer(tmp_path, "b").finish({"status": "skipped"}, keep=True)
    assert json.loads((tmp_path / "_b.json").read_text()) == {"status": "skipped"}


def test_what_a_killed_call_has_left_goes(tmp_path):
    stays = {"a", "a.1.tmp", "b.parquet", "_a.json", "_ab.json.1.tmp", ".a.b.2.tmp"}
    for name in (*stays, "_a.json.1.tmp", ".a.1.tmp", ".b.c.22.tmp"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path, {"a", "b.c"})
    assert {x.name for x in tmp_path.iterdir()} == stays


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/talk show.mp4", "talk_show-0123456789abcdef"),
        ("/x/$(rm -rf).tar.mp4", "rm_-rf_.tar-0123456789abcdef"),
        ("/x/日本.mkv", "video-0123456789abcdef"),
        ("/x/.._hidden.mp4", "hidden-0123456789abcdef"),
        (f"/x/{'n' * 300}.mp4", f"{'n' * 80}-0123456789abcdef"),
    ],
)
def test_names_are_readable_and_plain(path, name):
    assert file_name(path, "0123456789abcdef01234567") == name


def test_files_of_folders_are_found_and_others_left_out(tmp_path):
    written(tmp_path, "b", 1)
    written(tmp_path, "a", 1)
    (tmp_path / ".c.1.tmp").touch()
    found = list(files_of([tmp_path, tmp_path / "a.parquet"]))
    assert [path.name for path in found] == ["a.parquet", "b.parquet", "a.parquet"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(VisxpError, match="must hold feature files"):
        list(files_of([tmp_path / "empty"]))


def test_vectors_too_large_for_half_floats_are_refused(tmp_path):
    writer = Writer(tmp_path, "a")
    writer.add(ROW, {"video": np.array([1e6]), "audio": np.ones(1)})
    writer.finish({"model_sha256": "x"})
    with pytest.raises(VisxpError, match="video must fit into float16"):
        read(tmp_path / "a.parquet")


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    rng = np.random.default_rng(0)
    writer = Writer(tmp_path, "a")
    for i in range(4):
        row = ROW._replace(start_s=float(i), thumbnail=rng.bytes(50))
        writer.add(row, {name: rng.standard_normal(32) for name in VECTORS})
    writer.finish({"model_sha256": "x"})
    path = tmp_path / "a.parquet"
    whole, data, told = read(path), path.read_bytes(), 0
    for at in rng.choice(len(data), 300, replace=False):
        path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        try:
            found = read(path)
        except VisxpError:
            told += 1
            continue
        assert found.table.equals(whole.table)
        for name, x in whole.vectors.items():
            np.testing.assert_array_equal(found.vectors[name], x)
    assert told > 100


@pytest.mark.parametrize(("name", "why"), [(b"\xff.mp4", "UTF8"), (None, "no path")])
def test_a_damaged_path_is_refused(name, why, tmp_path):
    path = written(tmp_path, count=1)
    about = {"about": json.dumps(about_of(path))}
    table = pq.read_table(path).replace_schema_metadata(about)
    names = pa.array([name], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(0, "path", names), path)
    with pytest.raises(VisxpError, match=f"must be a .parquet file from .*{why}"):
        read(path)


def test_what_a_library_says_of_damage_is_printable(tmp_path, monkeypatch):
    def broken(path):
        raise OSError("don't know what type: \x0e\x1b[2J")

    monkeypatch.setattr("visxp_jax.feature_files.pq.read_metadata", broken)
    with pytest.raises(VisxpError) as found:
        about_of(tmp_path / "a.parquet")
    assert str(found.value).isprintable()
