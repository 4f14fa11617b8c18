"""Approximate search beside exact search, as the index changes."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.search.features import vectors, write_features
from visxp_jax.errors import VisxpError
from visxp_jax.progress import progress_bar
from visxp_jax.search import __main__ as search
from visxp_jax.search.adding import add
from visxp_jax.search.approximate import Approximate, build
from visxp_jax.search.compacting import compact
from visxp_jax.search.exact import Searcher, match_scores
from visxp_jax.search.store import GRAPH_LOCK, Store
from visxp_jax.train.lock import locked

MODULE = importlib.import_module("visxp_jax.search.approximate")
SECONDS = 150


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """Two segments of 450 clips each, of two collections, with graphs."""
    monkeypatch.setattr(MODULE, "FEW", 8)
    monkeypatch.setattr(MODULE, "BLOCK", 64)
    store = Store(tmp_path / "index")
    for i, collection in enumerate(("news", "sport")):
        files = {f"{collection}{j}.mp4": SECONDS for j in range(3)}
        silent = (f"{collection}0.mp4",)
        path = write_features(tmp_path / f"{i}.parquet", files, silent=silent)
        add(store, [path], collection)
    assert build(store) == 2
    assert build(store) == 0
    return store


def recall(store: Store, modality: str, **how) -> float:
    """Share of the ten best that are found."""
    width = {"video": 8, "audio": 6}[modality]
    queries = np.random.default_rng(1).standard_normal((20, width))
    right = Searcher(store).search(queries, modality, k=10, **how)
    found = Approximate(store).search(queries, modality, k=10, **how)
    same = 0
    for a, b in zip(right, found, strict=True):
        assert len(a) == len(b)
        scores = [hit.score for hit in b]
        assert scores == sorted(scores, reverse=True)
        known = {hit.row: hit.score for hit in a}
        for hit in b:
            if hit.row in known:
                assert hit.score == pytest.approx(known[hit.row], abs=2e-3)
                assert hit[2:] == next(x for x in a if x.row == hit.row)[2:]
                same += 1
    return same / 200


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_most_of_the_best_are_found(modality, store):
    assert recall(store, modality) > 0.95


def test_what_was_taken_out_or_added_since_counts(store, tmp_path):
    store.delete(["news1.mp4", "sport2.mp4"])
    add(store, [write_features(tmp_path / "c.parquet", {"new.mp4": 30})], "news")
    assert recall(store, "video") > 0.95
    one = vectors("new.mp4", 30, "video")[7]
    (hits,) = Approximate(store).search(one, "video", k=5)
    assert (hits[0].path, hits[0].start_s) == ("new.mp4", 7.0)
    assert not {"news1.mp4", "sport2.mp4"} & {hit.path for hit in hits}
    compact(store)
    with pytest.raises(VisxpError, match="run `visxp search graph"):
        Approximate(store)
    assert build(store) == 2
    assert recall(store, "audio") > 0.95


def test_compacting_leaves_large_segments_their_graphs(store, tmp_path, monkeypatch):
    monkeypatch.setattr("visxp_jax.search.segments.CLIPS_PER_SEGMENT", 400)
    add(store, [write_features(tmp_path / "c.parquet", {"new.mp4": 400})], "news")
    assert build(store) == 1
    store.delete(["news1.mp4"])  # what is left of its segment could take in more
    add(store, [write_features(tmp_path / "c.parquet", {"last.mp4": 30})], "sport")
    left = sorted((store.path / "segments").glob("*/*.usearch"))
    assert len(left) == 6
    reader, opened = Approximate(store), MODULE._opened
    queries = np.random.default_rng(2).standard_normal((20, 8))
    before = reader.search(queries, "video")

    def compacted_meanwhile(*args):
        monkeypatch.setattr(MODULE, "_opened", opened)
        assert compact(Store(store.path)) == 1  # the first had one
        return opened(*args)

    monkeypatch.setattr(MODULE, "_opened", compacted_meanwhile)
    assert len(Approximate(store)) == 1180
    assert sorted((store.path / "segments").glob("*/*.usearch")) == left[2:]
    assert reader.search(queries, "video") == before  # of files that are gone
    thumbnails = [reader.thumbnail(hit.row) for hits in before for hit in hits]
    told = [f"{hit.path} {hit.start_s:.0f}" for hits in before for hit in hits]
    assert thumbnails == [one.encode() for one in told]
    assert build(store) == 2
    assert recall(store, "video") > 0.95


def test_graphs_are_not_made_while_segments_are_replaced(store):
    with locked(store.path, name=GRAPH_LOCK):
        for work in (build, compact):
            with pytest.raises(VisxpError, match="another run"):
                work(store)
    store.delete(["news1.mp4"])
    (store.path / "index.json").unlink()
    assert not Store(
        store.path
    ).manifest.segments  # with its locks, but of no other kind


def test_only_the_graph_that_was_not_finished_is_made_anew(store, monkeypatch):
    (segment, *_) = sorted((store.path / "segments").iterdir())
    (segment / "video.usearch").rename(segment / "video.usearch.tmp")
    before, totals = (segment / "audio.usearch").stat().st_ino, []

    def bar(*, total, **how):
        totals.append(total)
        return progress_bar(total=total, **how)

    monkeypatch.setattr(MODULE, "progress_bar", bar)
    assert build(store) == 1
    assert totals == [3 * SECONDS]
    assert (segment / "video.usearch").exists()
    assert (segment / "audio.usearch").stat().st_ino == before
    assert not list(segment.glob("*.tmp"))


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_what_may_be_found_can_be_limited(share, store):
    allowed = np.random.default_rng(0).random(900) < share
    assert recall(store, "video", allowed=allowed) > 0.9


def test_clips_give_the_vectors_that_the_exact_search_has(store):
    exact, near = Searcher(store), Approximate(store)
    assert len(near) == len(exact) == 900
    for row in (0, 449, 450, 899):
        np.testing.assert_allclose(
            near.vector(row, "video"), exact.vector(row, "video"), rtol=1e-3
        )
        assert near.has(row, "audio") == exact.has(row, "audio")
        assert near.thumbnail(row) == exact.thumbnail(row)
    assert near.vector(0, "audio") is None


def test_a_segment_without_any_sound_gives_none(tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "FEW", 8)
    store = Store(tmp_path / "index")
    silent = write_features(tmp_path / "a.parquet", {"a": 50}, silent=("a",))
    add(store, [silent])
    build(store)
    assert Approximate(store).search(np.ones(6), "audio") == [[]]


def test_across_modalities_is_refused(store):
    scores = match_scores(None, None, "audio")  # type: ignore[arg-type]
    with pytest.raises(VisxpError, match="leave out --approximate"):
        Approximate(store).search(np.ones(8), "audio", scores=scores)


def test_the_command_line_makes_graphs_and_says_what_is_missing(
    store, tmp_path, capsys, monkeypatch
):
    index = str(store.path)
    find = ["find", index, "--like=news1.mp4", "--at=3", "--approximate", "-k", "3"]
    assert search.main(find) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    for graph in (store.path / "segments").glob("*/*.usearch"):
        graph.unlink()
    assert search.main(find) == 2
    assert "run `visxp search graph" in capsys.readouterr().err
    assert search.main(["graph", index]) == 0
    assert "2 segments got a graph" in capsys.readouterr().out
    store.delete(["news1.mp4"])
    assert search.main(["compact", index]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 segments have no graph any more; `visxp search graph ")
    (segment,) = {path.parent for path in (store.path / "segments").glob("*/*.usearch")}
    (segment / "video.usearch").write_bytes(b"garbage")
    assert search.main(find) == 2
    assert "video.usearch is damaged" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    assert search.main(find) == 2
    assert "pip install '.[search]'" in capsys.readouterr().err
    assert Path(index).exists()
