"""Exact search beside NumPy, over several blocks, with filters."""

import importlib
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from tests.search.features import vectors, write_features
from visxp_jax.errors import VisxpError
from visxp_jax.search.adding import add
from visxp_jax.search.exact import Searcher, match_scores
from visxp_jax.search.finder import ACROSS, Finder
from visxp_jax.search.store import Store

EXACT = importlib.import_module("visxp_jax.search.exact")
FILES = {f"{name}.mp4": 3 + i for i, name in enumerate("abcdefgh")}
SILENT = ("c.mp4",)


@pytest.fixture
def searcher(tmp_path, monkeypatch) -> Searcher:
    """52 clips in three segments of two collections, in blocks of 16."""
    monkeypatch.setattr(EXACT, "BLOCK", 16)
    monkeypatch.setattr(EXACT, "LEAST", 4)
    store = Store(tmp_path / "index")
    names = list(FILES)
    for i, part in enumerate((names[:3], names[3:6], names[6:])):
        files = {name: FILES[name] for name in part}
        path = write_features(tmp_path / f"{i}.parquet", files, silent=SILENT)
        add(store, [path], ["news", "sport", "news"][i])
    return Searcher(store)


def everything(modality: str) -> tuple[list[tuple[str, int]], np.ndarray]:
    """Names of all clips, and their unit vectors."""
    names = [(name, i) for name, seconds in FILES.items() for i in range(seconds)]
    x = np.concatenate([vectors(n, s, modality) for n, s in FILES.items()])
    x = x.astype(np.float16).astype(np.float32)
    return names, x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize("k", [1, 5, 40, 100])
def test_hits_are_those_of_numpy(modality, k, searcher):
    names, x = everything(modality)
    heard = np.array([modality == "video" or name not in SILENT for name, _ in names])
    queries = np.random.default_rng(0).standard_normal((3, x.shape[1]))
    found = searcher.search(7 * queries, modality, k=k)
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    for hits, scores in zip(found, unit @ x.T, strict=True):
        scores = np.where(heard, scores, -np.inf)
        wanted = np.argsort(-scores)[: min(k, heard.sum())]
        assert [(h.path, int(h.start_s)) for h in hits] == [names[i] for i in wanted]
        np.testing.assert_allclose([h.score for h in hits], scores[wanted], atol=1e-5)


def test_what_has_not_changed_is_not_loaded_again(searcher, tmp_path):
    store = Store(tmp_path / "index")

    def kept(now: Searcher, before: Searcher) -> int:
        """Blocks that are taken over; all is as if loaded anew."""
        fresh = Searcher(store)
        for name in ("video", "audio"):
            rows = range(len(fresh))
            np.testing.assert_array_equal(
                now.vectors(rows, name), fresh.vectors(rows, name)
            )
        assert [now.clip(i) for i in rows] == [fresh.clip(i) for i in rows]
        query = fresh.vector(3, "audio")
        assert now.search(query, "audio") == fresh.search(query, "audio")
        old = [id(block) for block in before._blocks["video"]]
        return sum(id(block) in old for block in now._blocks["video"])

    features = write_features(tmp_path / "more.parquet", {"more.mp4": 30})
    add(store, [features], "news")
    added = Searcher(store, searcher)
    assert kept(added, searcher) == 3  # 52 clips were three blocks and a part of one
    store.delete(["more.mp4"])
    assert kept(Searcher(store, added), added) == 3
    store.delete(["d.mp4"])  # of the second segment: the first has 12 clips
    assert kept(Searcher(store, added), added) == 0
    # Another index in this place has segments of the same names.
    store.path.rename(tmp_path / "old")
    store = Store(tmp_path / "index")
    features = write_features(tmp_path / "x.parquet", {"x.mp4": 40})
    add(store, [features], "news")
    assert kept(Searcher(store, added), added) == 0


def test_a_clip_finds_itself_first(searcher):
    for row in (0, 17, 43):
        (hits,) = searcher.search(searcher.vector(row, "video"), "video", k=2)
        assert hits[0].row == row
        assert hits[0].score == pytest.approx(1, abs=1e-6)
        assert hits[0].end_s == hits[0].start_s + 1
        told = f"{hits[0].path} {int(hits[0].start_s)}"
        assert searcher.thumbnail(row).decode() == told


def test_what_may_be_found_can_be_limited(searcher):
    query = np.ones(8)
    (hits,) = searcher.search(query, "video", k=99, allowed=searcher.allowed({"sport"}))
    assert {hit.collection for hit in hits} == {"sport"}
    assert len(hits) == sum(FILES[f"{name}.mp4"] for name in "def")
    nothing = searcher.search(query, "video", allowed=searcher.allowed(set()))
    assert nothing == [[]]


def test_rows_are_found_by_file_and_time(searcher):
    row = searcher.row("b.mp4", 1.7)
    assert row == FILES["a.mp4"] + 1
    assert searcher.row("b.mp4", FILES["b.mp4"]) is None
    assert searcher.row("z.mp4", 0) is None
    raw = vectors("b.mp4", FILES["b.mp4"], "audio")[1]
    np.testing.assert_allclose(searcher.vector(row, "audio"), raw, rtol=2e-3)
    assert searcher.vector(searcher.row("c.mp4", 0), "audio") is None


@pytest.mark.parametrize("wanted", ["video", "audio"])
def test_across_modalities_the_head_for_correspondence_counts(wanted, searcher):
    """A head that says how well the first numbers of both fit."""

    class Fitting:
        def fuse(self, params, video, audio):
            del params
            return video[:, :6] * audio

        def head(self, params, name, fused):
            assert name == "avc"
            match = params * jnp.sum(fused, axis=1)
            return jnp.stack([0 * match, match], axis=1)

    names, _ = everything(wanted)
    other = {"video": "audio", "audio": "video"}[wanted]
    query = vectors("a.mp4", 3, other)[:2]
    scores = match_scores(Fitting(), 0.05, wanted)
    found = searcher.search(query, wanted, k=5, scores=scores)
    raw = np.concatenate([vectors(n, s, wanted) for n, s in FILES.items()])
    heard = np.array([wanted == "video" or name not in SILENT for name, _ in names])
    for hits, one in zip(found, query, strict=True):
        match = 0.05 * (raw[:, :6] @ one[:6])
        wanted_rows = np.argsort(-np.where(heard, match, -np.inf))[:5]
        assert [hit.row for hit in hits] == wanted_rows.tolist()
        best = 1 / (1 + np.exp(-match[wanted_rows]))
        np.testing.assert_allclose([hit.score for hit in hits], best, rtol=2e-3)


class Projecting:
    """Heads by name, each a matrix and what is added; 'avc' says the same of all."""

    def fuse(self, params, video, audio):
        del params
        return jnp.concatenate([video, audio], axis=1)

    def head(self, params, name, vectors):
        if name == "avc":
            return jnp.zeros((len(vectors), 2))
        matrix, bias = params[name]
        return vectors @ matrix + bias[None]


def projections(row: int, store: Searcher) -> dict[str, tuple[np.ndarray, ...]]:
    """Heads of which the sound of one clip goes where its picture does."""
    rng = np.random.default_rng(3)
    to = {name: rng.standard_normal((d, 4)) for name, d in (("video", 8), ("audio", 6))}
    bias = {name: rng.standard_normal(4) for name in to}
    picture, sound = (store.vector(row, name) for name in ("video", "audio"))
    aim = 2 * (picture @ to["video"] + bias["video"])
    missed = aim - sound @ to["audio"] - bias["audio"]
    to["audio"] += np.outer(sound, missed) / (sound @ sound)
    return {f"common_{m}": (np.float32(to[m]), np.float32(bias[m])) for m in to}


@pytest.mark.parametrize(("by", "find"), [("sight", "sound"), ("sound", "sight")])
def test_in_the_common_space_a_pair_finds_each_other_as_in_numpy(by, find, searcher):
    planted = 30
    params = projections(planted, searcher)
    # With the head for correspondence, too, the space counts.
    heads = {**params, "avc": None}
    trained = SimpleNamespace(model=Projecting(), params=params, heads=heads)
    finder = Finder(searcher, lambda what: trained)
    hits = finder.find(finder.vectors(planted), by=by, find=find, k=60)
    assert hits[0].row == planted
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert ACROSS[finder.across].endswith("not a probability")
    asked, wanted = ({"sight": "video", "sound": "audio"}[x] for x in (by, find))
    rows = np.arange(len(searcher))
    there = [row for row in rows if searcher.has(row, wanted)]
    space = {}
    for name in (asked, wanted):
        matrix, bias = params[f"common_{name}"]
        x = searcher.vectors(rows, name) @ matrix + bias
        space[name] = x / np.linalg.norm(x, axis=1, keepdims=True)
    scores = space[wanted] @ space[asked][planted]
    expected = sorted(there, key=lambda row: -scores[row])
    assert [hit.row for hit in hits] == expected
    np.testing.assert_allclose([x.score for x in hits], scores[expected], atol=1e-5)
    # What is found within a modality is as before.
    assert finder.find(finder.vectors(planted), by=by, row=planted)[0].row != planted


def test_a_model_that_has_learnt_nothing_across_is_refused_in_one_line(searcher):
    one = {"common_video": None, "clusters": None}
    trained = SimpleNamespace(model=Projecting(), params={}, heads=one)
    finder = Finder(searcher, lambda what: trained)
    with pytest.raises(VisxpError, match="'common_video' and 'common_audio' nor 'avc'"):
        finder.find(finder.vectors(0), by="sight", find="sound")
    assert finder.across is None
    trained.heads = {**one, "avc": None}
    hits = finder.find(finder.vectors(0), by="sight", find="sound")
    assert {hit.score for hit in hits} == {0.5}
    assert finder.across == "probability"


def test_an_empty_index_finds_nothing(tmp_path):
    searcher = Searcher(Store(tmp_path / "index"))
    assert len(searcher) == 0
    assert searcher.search(np.ones((2, 8)), "video") == [[], []]


def test_an_index_of_which_all_was_taken_out_finds_nothing(tmp_path):
    store = Store(tmp_path / "index")
    add(store, [write_features(tmp_path / "a.parquet", {"a.mp4": 3})])
    store.delete(["a.mp4"])
    searcher = Searcher(store)
    assert len(searcher) == 0
    assert searcher.search(np.ones(8), "video") == [[]]


def test_thumbnails_are_those_of_their_clips_where_others_were_taken_out(tmp_path):
    store = Store(tmp_path / "index")
    add(store, [write_features(tmp_path / "a.parquet", {"a": 3, "b": 2, "c": 4})])
    store.delete(["b"])
    searcher = Searcher(store)
    for row in range(7):
        clip = searcher.clip(row)
        told = f"{clip.path} {int(clip.start_s)}"
        assert searcher.thumbnail(row).decode() == told
