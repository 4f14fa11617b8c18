"""The index on disk: what was added stays, whoever is killed; the rest is refused."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.search.features import vectors, write_features
from visxp_jax.errors import VisxpError
from visxp_jax.search.adding import add
from visxp_jax.search.compacting import compact
from visxp_jax.search.segments import COLUMNS
from visxp_jax.search.store import Store
from visxp_jax.train.lock import locked


def paths(store: Store) -> list[tuple[str, str, int]]:
    """Of every clip that counts: collection, file, second."""
    return [
        (rows.collection, path.as_py(), int(start.as_py()))
        for rows in store.rows(vectors=False)
        for path, start in zip(rows.table["path"], rows.table["start_s"], strict=True)
    ]


@pytest.fixture
def store(tmp_path) -> Store:
    """Two files of news, one of sport."""
    found = Store(tmp_path / "index")
    features = write_features(tmp_path / "a.parquet", {"a.mp4": 3, "b.mp4": 2})
    assert add(found, [features], "news") == (5, 0, 0, 0)
    features = write_features(tmp_path / "b.parquet", {"b.mp4": 2}, silent=("b.mp4",))
    assert add(found, [features], "sport") == (2, 0, 0, 0)
    return found


def test_what_is_added_is_there_again(store):
    again = Store(store.path)
    assert len(again) == 7
    assert paths(again) == [
        *(("news", "a.mp4", i) for i in range(3)),
        *(("news", "b.mp4", i) for i in range(2)),
        *(("sport", "b.mp4", i) for i in range(2)),
    ]
    first, second = again.rows()
    wanted = vectors("a.mp4", 3, "video").astype(np.float16)
    np.testing.assert_array_equal(first.vectors["video"][:3], wanted)
    assert not np.any(second.vectors["audio"])


def test_deleted_files_no_longer_count(store):
    assert store.delete(["b.mp4"], "news") == 2
    assert {(c, p) for c, p, _ in paths(store)} == {
        ("news", "a.mp4"),
        ("sport", "b.mp4"),
    }
    (rows, _) = store.rows()
    np.testing.assert_array_equal(
        rows.vectors_of("audio"), vectors("a.mp4", 3, "audio").astype(np.float16)
    )
    assert store.delete(["b.mp4"]) == 2


@pytest.mark.parametrize("compacted", [False, True])
def test_what_was_removed_stays_out_until_it_is_let_in_again(
    compacted, store, tmp_path
):
    def added(name: str, *where: str, again: bool = False) -> list[tuple[int, ...]]:
        if compacted:
            compact(Store(store.path))
        files = [tmp_path / name]
        return [add(Store(store.path), files, x, again=again) for x in where]

    def news(name: str) -> int:
        return sum(clip[:2] == ("news", name) for clip in paths(Store(store.path)))

    store.delete(["b.mp4"], "news")
    for _ in range(2):
        assert added("a.parquet", "news") == [(0, 1, 0, 0)]  # a.mp4 of it is there
        assert added("b.parquet", "news", "sport") == [(0, 0, 1, 0), (0, 1, 0, 0)]
        write_features(tmp_path / "b.parquet", {"b.mp4": 2})  # made anew
        assert added("b.parquet", "news", "sport") == [(0, 0, 1, 0), (2, 0, 0, 0)]
    assert news("b.mp4") == 0
    assert added("a.parquet", "news", again=True) == [(5, 0, 0, 0)]
    assert (news("a.mp4"), news("b.mp4")) == (3, 2)
    assert added("a.parquet", "news") == [(0, 1, 0, 0)]

    Store(store.path).delete(["a.mp4", "b.mp4"])
    three = ("news", "sport", "new")
    assert added("b.parquet", *three) == [(0, 0, 1, 0)] * 3
    assert added("a.parquet", *three) == [(0, 0, 1, 0)] * 3
    assert added("b.parquet", "news", again=True) == [(2, 0, 0, 0)]
    assert added("b.parquet", *three) == [(0, 1, 0, 0), *[(0, 0, 1, 0)] * 2]
    Store(store.path).delete(["b.mp4"])
    assert added("b.parquet", *three) == [(0, 0, 1, 0)] * 3
    assert len(Store(store.path)) == 0


def test_what_is_removed_while_others_are_added_stays_out(store, tmp_path):
    adder = Store(store.path)
    store.delete(["a.mp4"], "news")
    again = write_features(tmp_path / "c.parquet", {"a.mp4": 1, "c.mp4": 1})
    assert add(adder, [again], "news") == (1, 0, 0, 0)
    assert not [one for one in paths(adder) if one[1] == "a.mp4"]


def test_an_index_of_before_removals_were_kept_is_read(store):
    file = store.path / "index.json"
    values = json.loads(file.read_text()) | {"format": 2}
    del values["removed"], values["again"]
    file.write_text(json.dumps(values))
    assert len(Store(store.path)) == 7
    assert Store(store.path).delete(["a.mp4"]) == 3
    assert Store(store.path).manifest.removed == ((None, "a.mp4"),)


def test_files_are_taken_out_only_if_all_are_there(store):
    before = paths(store)
    for files, where, told in (
        (["b.mpp", "a.mp4", "c\n"], None, r"none called 'b.mpp', 'c\\n'; nothing"),
        (["a.mp4", "b.mp4"], "sport", "none called 'a.mp4' in the collection 'sport'"),
    ):
        with pytest.raises(VisxpError, match=told):
            store.delete(files, where)
        assert paths(Store(store.path)) == before


def test_a_file_that_is_there_is_replaced(store, tmp_path):
    add(store, [write_features(tmp_path / "c.parquet", {"a.mp4": 1})], "news")
    assert len(store) == 5
    add(store, [write_features(tmp_path / "c.parquet", {"a.mp4": 1})], "sport")
    assert len(store) == 6


def test_compacting_keeps_what_counts_and_frees_the_rest(store, tmp_path):
    store.delete(["a.mp4"])
    add(store, [write_features(tmp_path / "c.parquet", {"d.mp4": 1})], "news")
    before = sorted(paths(store))
    compact(store)
    again = Store(store.path)
    assert sorted(paths(again)) == before
    segments = again.manifest.segments
    assert [segment.rows for segment in segments] == [3, 2]
    kept = sorted(segment.name for segment in segments)
    assert sorted(os.listdir(store.path / "segments")) == kept
    for rows in again.rows():
        for path, start, x in zip(
            rows.table["path"],
            rows.table["start_s"],
            rows.vectors_of("video"),
            strict=True,
        ):
            wanted = vectors(path.as_py(), 4, "video")[int(start.as_py())]
            np.testing.assert_array_equal(x, wanted.astype(np.float16))
        told = [rows.thumbnails[i].as_py().decode() for i in rows.stored.tolist()]
        where = zip(rows.table["path"], rows.table["start_s"], strict=True)
        assert told == [f"{p.as_py()} {int(s.as_py())}" for p, s in where]


def test_a_reader_goes_on_with_what_others_have_written_meanwhile(store, tmp_path):
    reader, adder = Store(store.path), Store(store.path)  # before its segments
    store.delete(["a.mp4"])
    compact(store)
    assert len(reader.rows()) == 2
    assert paths(reader) == paths(store)
    assert add(adder, [write_features(tmp_path / "a.parquet", {"b.mp4": 1})], "news")
    assert len(Store(store.path)) == 3


def test_feature_files_that_have_not_changed_are_left_out(store, tmp_path):
    files = [tmp_path / f"{i}.parquet" for i in range(3)]
    for i, path in enumerate(files):
        write_features(path, {f"{i}.mp4": 2, f"{i}b.mp4": 1})
    saved: list[int] = []
    assert add(store, files[:2], "news", saved=saved.append) == (6, 0, 0, 0)
    assert add(store, files, "news", saved=saved.append) == (3, 2, 0, 0)
    assert saved == [6, 3]
    assert add(store, files, "sport") == (9, 0, 0, 0)  # another collection
    write_features(files[1], {"1.mp4": 5})
    assert add(store, files, "news") == (5, 2, 0, 0)
    store.delete(["2.mp4"], "news")
    assert add(store, files, "news") == (0, 3, 0, 0)
    compact(store)
    assert add(Store(store.path), files, "news") == (0, 3, 0, 0)
    assert add(store, files, "news", again=True) == (3, 2, 0, 0)
    news = {(path, at) for c, path, at in paths(store) if c == "news"}
    assert {at for path, at in news if path == "1.mp4"} == set(range(5))
    assert ("1b.mp4", 0) in news  # its file was replaced by one without it


def test_a_video_that_comes_twice_counts_once(store, tmp_path):
    files = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for path, seconds in zip(files, (3, 5), strict=True):
        write_features(path, {"x.mp4": seconds})
    add(store, files, "twice")
    for _ in range(2):  # the same again changes nothing
        assert [at for c, _, at in paths(store) if c == "twice"] == [0, 1, 2, 3, 4]
        assert add(store, files, "twice") == (0, 2, 0, 0)


def test_compacting_keeps_segments_to_their_size(store, tmp_path, monkeypatch):
    monkeypatch.setattr("visxp_jax.search.segments.CLIPS_PER_SEGMENT", 5)
    files = [write_features(tmp_path / f"{i}.parquet", {f"{i}": 3}) for i in range(4)]
    for path in files:
        add(store, [path], "many")
    store.delete(["1"], "many")
    before = sorted(paths(store))
    compact(store)
    assert [s.rows for s in store.manifest.segments if s.collection == "many"] == [6, 3]
    assert sorted(paths(Store(store.path))) == before
    assert add(Store(store.path), files, "many") == (0, 3, 1, 0)


def test_many_feature_files_are_few_segments(store, tmp_path, monkeypatch):
    monkeypatch.setattr("visxp_jax.search.segments.CLIPS_PER_SEGMENT", 4)
    files = [write_features(tmp_path / f"{i}.parquet", {f"{i}": 3}) for i in range(5)]
    saved: list[int] = []
    add(store, files, "many", saved=saved.append)
    assert saved == [6, 6, 3]
    assert len(store) == 7 + 15


ADDING = """
import sys
from pathlib import Path
from tests.search.features import write_features
from visxp_jax.search.adding import add
from visxp_jax.search.compacting import compact
from visxp_jax.search.store import Store

store, scratch = Store(Path(sys.argv[1])), Path(sys.argv[2])
for i in range(1000):
    name = f"{i}.mp4"
    add(store, [write_features(scratch / "new.parquet", {name: 2})], "all")
    print(name, flush=True)
"""


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.3])
def test_a_kill_loses_nothing_that_was_acknowledged(after_s, tmp_path):
    index = tmp_path / "index"
    command = [sys.executable, "-c", ADDING, str(index), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip()]
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split()
    store = Store(index)
    found = {path for _, path, _ in paths(store)}
    assert set(acknowledged) <= found
    assert len(found) <= len(acknowledged) + 1
    assert len(store) == 2 * len(found)
    # The next one goes on, and clears away what was not finished.
    add(store, [write_features(tmp_path / "more.parquet", {"more.mp4": 1})], "all")
    named = {segment.name for segment in store.manifest.segments}
    assert set(os.listdir(index / "segments")) == named
    assert not list(index.glob("*.tmp"))


def test_an_addition_that_was_not_finished_does_not_count(store, tmp_path):
    unfinished = store.path / "segments" / "000003"
    unfinished.mkdir()
    (unfinished / "rows.parquet").write_bytes(b"half")
    (store.path / "index.json.1.tmp").write_bytes(b"half")
    again = Store(store.path)
    assert len(again) == 7
    add(again, [write_features(tmp_path / "c.parquet", {"d.mp4": 1})])
    assert len(Store(store.path)) == 8


def test_strays_that_cannot_be_removed_are_left(store, tmp_path, monkeypatch):
    def busy(*_, **__):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    segments = store.path / "segments"
    (segments / ".DS_Store").touch()
    (segments / "000003").mkdir()  # of a name that would come next
    monkeypatch.setattr(os, "rmdir", busy)  # as where a network's disk is
    add(store, [write_features(tmp_path / "c.parquet", {"d.mp4": 1})], "news")
    store.delete(["a.mp4"])
    compact(store)
    (segments / f"{store.manifest.next:06d}").mkdir()
    store.delete(["d.mp4"])
    compact(store)
    assert {path for _, path, _ in paths(Store(store.path))} == {"b.mp4"}
    assert {".DS_Store", "000001", "000003"} < set(os.listdir(segments))


def test_two_writers_do_not_lose_each_others_files(store, tmp_path):
    other = Store(store.path)
    add(other, [write_features(tmp_path / "c.parquet", {"d.mp4": 1})])
    add(store, [write_features(tmp_path / "d.parquet", {"e.mp4": 1})])
    assert len(Store(store.path)) == 9
    with locked(store.path), pytest.raises(VisxpError, match="must not be in use"):
        store.delete(["e.mp4"])


def test_what_does_not_belong_is_skipped_and_named(store, tmp_path):
    bad = [tmp_path / f"bad{i}.parquet" for i in range(4)]
    bad[0].write_bytes(b"garbage")
    pq.write_table(pa.table({"a": [1]}), bad[1])
    write_features(bad[2], {"o.mp4": 1}, sha256="b" * 64)
    good = [write_features(tmp_path / f"{i}.parquet", {f"{i}": 2}) for i in range(2)]
    told: list[tuple[Path, str]] = []
    files = [bad[0], good[0], *bad[1:3], good[1], bad[3]]
    for index, clips in ((store, 7), (Store(tmp_path / "new"), 0)):
        told.clear()
        added = add(index, files, skipped=lambda *one: told.append(one))
        assert added == (4, 0, 0, 4)
        assert len(Store(index.path)) == clips + 4
        assert [path for path, _ in told] == bad
        words = (
            "must be a .parquet file from",
            "two models",
            "cannot be read: No such",
        )
        for (_, why), word in zip(told, (words[0], *words), strict=True):
            assert word in why
            assert str(tmp_path / "bad") not in why
    assert add(store, good) == (0, 2, 0, 0)


def test_no_flipped_bit_ends_a_reader(store):
    """Not in names, which checksums of pages do not cover, nor in offsets."""
    rng, folder = np.random.default_rng(0), store.path / "segments" / "000001"
    for name in ("rows.parquet", "thumbnails.arrow"):
        data = (folder / name).read_bytes()
        at = [i for i in range(len(data)) if data[i : i + 4] == b"path"]
        for i in (*at, *rng.choice(len(data), 200, replace=False)):
            flipped = data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]
            (folder / name).write_bytes(flipped)
            try:
                first, *_ = Store(store.path).rows()
            except VisxpError:
                continue
            assert first.thumbnails.to_pylist() is not None
            assert first.table.column_names == list(COLUMNS)
        (folder / name).write_bytes(data)
    assert len(store) == 7


def test_damage_is_named(store, tmp_path):
    (store.path / "segments" / "000001" / "video.npy").write_bytes(b"half")
    with pytest.raises(VisxpError, match="000001 is damaged"):
        Store(store.path).rows()
    for text in ("", "[]", '{"format": 1}', '{"format": 2, "segments": [{}]}'):
        (store.path / "index.json").write_text(text)
        with pytest.raises(VisxpError, match=r"index\.json is damaged"):
            Store(store.path)
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(VisxpError, match="must be an index or empty"):
        Store(tmp_path)
    assert len(Store(Path(tmp_path / "new"))) == 0
