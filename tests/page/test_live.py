"""The index behind the page, which changes while it is asked."""

import threading

from visxp_jax.page.live import LiveIndex
from visxp_jax.search import __main__ as search


def test_others_are_answered_as_before_while_one_loads(made, tmp_path, monkeypatch):
    index = tmp_path / "index"
    features = [str(x) for x in sorted((made / "features").glob("[!_]*.parquet"))]
    assert search.main(["add", str(index), *features[:2]]) == 0
    live = LiveIndex(index, None)
    assert search.main(["add", str(index), *features[2:]]) == 0
    load, begun, go_on = live._load, threading.Event(), threading.Event()

    def slow(*args):
        begun.set()
        assert go_on.wait(60)
        return load(*args)

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
