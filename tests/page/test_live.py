"""The index behind the page, which changes while it is asked."""

import shutil
import threading
from pathlib import Path

import pytest

from visxp_jax.page.live import LiveIndex
from visxp_jax.search import __main__ as search


@pytest.fixture
def features(made: Path) -> list[str]:
    return [str(path) for path in sorted((made / "features").glob("[!_]*.parquet"))]


def test_others_are_answered_as_before_while_one_loads(features, tmp_path, monkeypatch):
    index = tmp_path / "index"
    assert search.main(["add", str(index), *features[:2]]) == 0
    live = LiveIndex(index, None)
    assert search.main(["add", str(index), *features[2:]]) == 0
    load, begun, go_on = live._load, threading.Event(), threading.Event()
    loads: list[str] = []

    def slow(stamp, *args):
        loads.append(stamp)
        begun.set()
        assert go_on.wait(60)
        return load(stamp, *args)

    monkeypatch.setattr(live, "_load", slow)
    found: list[int] = []
    first = threading.Thread(target=lambda: found.append(len(live.now().searcher)))
    first.start()
    assert begun.wait(60)
    assert len(live.now().searcher) == 6
    go_on.set()
    first.join()
    assert found == [15]
    assert len(live.now().searcher) == 15
    assert loads == [live.now().stamp]


def test_what_another_has_loaded_meanwhile_is_not_loaded_again(
    features, tmp_path, monkeypatch
):
    index = tmp_path / "index"
    assert search.main(["add", str(index), *features[:1]]) == 0
    live = LiveIndex(index, None)
    now, stamp = live.now(), live._stamp
    seen = ["a stamp of before, seen while waiting"]
    monkeypatch.setattr(live, "_stamp", lambda: seen.pop() if seen else stamp())
    assert live.now() is now
    assert not seen


def test_the_model_is_there_again_once_its_vectors_are(made, features, tmp_path):
    index = tmp_path / "index"
    assert search.main(["add", str(index), *features]) == 0
    live = LiveIndex(index, made / "run")
    assert live.now().trained is not None
    shutil.rmtree(index)
    index.mkdir()
    live.now()
    assert search.main(["add", str(index), *features[:1]]) == 0
    assert len(live.now().searcher) == 3
    assert live.now().trained is not None
