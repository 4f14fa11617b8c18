"""The page in headless Chromium: hands on it, with real files."""

import csv
import io
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from PIL import Image

from configs import contrastive
from tests.page.served import HOSTILE, Client, serving
from tests.report.browser import Browser, needs_browser
from tests.search.collection import colour, make_collection
from visxp_jax.config import from_dict
from visxp_jax.page import __main__ as page
from visxp_jax.page.offline import _vectors
from visxp_jax.page.places import BUSY, Busy, taken
from visxp_jax.search import __main__ as search
from visxp_jax.search.catalogue import Catalogue
from visxp_jax.search.exact import Searcher
from visxp_jax.search.finder import Finder
from visxp_jax.search.store import Store

pytestmark = [pytest.mark.browser, needs_browser]

NAMES = '[...document.querySelectorAll("#hits b")].map((x) => x.textContent)'
IDLE = '!document.body.classList.contains("busy") && '
ADDRESS = "[...new URLSearchParams(location.hash.slice(1))]"
HEADING = 'document.getElementById("heading").textContent'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def found(browser: Browser, heading: str) -> list[str]:
    """Names of the results, once they are there under this heading."""
    browser.wait(f"{IDLE}{HEADING}.startsWith({heading!r})")
    return browser.run(f"return {NAMES};")


def click(browser: Browser, words: str, within: str = "body") -> None:
    """Press the first link or button of these words."""
    browser.run(
        f"[...document.querySelectorAll({within + ' a, ' + within + ' button'!r})]"
        f".find((x) => x.textContent === {words!r}).click();"
    )


def test_from_a_picture_to_its_like_and_back(browser, client: Client, tmp_path):
    Image.new("RGB", (64, 48), colour(1, 1)).save(tmp_path / "mine.png")
    browser.open(client.url)
    names = found(browser, "Something to begin with")
    assert len(names) == 15
    assert HOSTILE in names  # as text
    browser.run("window.alert = () => { window.hurt = true; };")
    # A picture, by the real input.
    browser.choose("#file", tmp_path / "mine.png")
    names = found(browser, "Seconds that look like this")
    asked = dict(browser.run(f"return {ADDRESS};"))
    assert names == [hit["name"] for hit in client.search(**asked)["hits"]]
    assert names[0] == "1.mov"
    title = browser.run("return document.title;")
    assert title == "mine.png – Seconds that look like this – Search in index"
    shown = 'document.querySelector("#query img").naturalWidth'
    assert browser.wait(shown) == 64
    # On from a result, by sound: its address says all.
    click(browser, "sound", "#hits")
    names = found(browser, "Seconds that sound like this")
    asked = dict(browser.run(f"return {ADDRESS};"))
    assert asked["like"].endswith("1.mov")
    assert (asked["by"], asked["find"]) == ("sound", "sound")
    assert names == [hit["name"] for hit in client.search(**asked)["hits"]]
    browser.run("history.back();")
    assert found(browser, "Seconds that look like this")[0] == "1.mov"
    browser.run("history.forward();")
    assert found(browser, "Seconds that sound like this") == names
    # Across, for every second, in a link that someone was sent.
    click(browser, "Pictures for this sound")
    first = found(browser, "Pictures that go with this sound")
    assert (
        browser.run('return document.querySelector(".score").textContent;')[-1] == "%"
    )
    browser.open("about:blank")
    browser.open(f"{client.url}#like={asked['like']}&at=1&by=sound&find=sight&every=1")
    every = found(browser, "Pictures that go with this sound")
    assert len(every) == 15
    assert first == list(dict.fromkeys(every))
    assert not browser.run("return window.hurt;")


NOTE = 'document.getElementById("note").textContent'
SCORE = 'document.querySelector(".score")'


def test_what_is_said_of_scores_across_is_what_they_are(
    browser, client: Client, tmp_path, tmp_path_factory
):
    like = f"#like={client.search(name='1.mov')['hits'][0]['path']}"
    browser.open(f"{client.url}{like}&at=1&by=sound&find=sight")
    found(browser, "Pictures that go with this sound")
    assert "how probable it is, to the model" in browser.run(f"return {NOTE};")
    # A model with a common space: its cosines are no probabilities.
    config = from_dict(contrastive.get_config("debug"))
    common = tmp_path_factory.mktemp("common")
    make_collection(common, ["a.mp4", "b.mp4", "silent.mp4"], config)
    with serving(common / "index", common / "run", tmp_path) as client:
        about = client.ask("/api/about").json
        assert (about["across"], len(about["ways"])) == ("cosine", 4)
        browser.open(f"{client.url}#like={common / 'a.mp4'}&at=1&by=sound&find=sight")
        found(browser, "Pictures that go with this sound")
        note = browser.run(f"return {NOTE};")
        assert "no probabilities" in note
        assert "how probable" not in note
        asked = dict(browser.run(f"return {ADDRESS};"))
        best = client.search(**asked)["hits"][0]["score"]
        assert browser.run(f"return {SCORE}.textContent;") == f"{best:.2f}"
        title = browser.run(f"return {SCORE}.title;")
        assert title == "How well the two go together, at most 1; not a probability"


def test_a_result_plays_and_keys_go_on(browser, client: Client):
    browser.open(client.url + "#name=0.mp4")
    found(browser, "Files named “0.mp4”")
    browser.run('document.querySelector(".look").focus();')
    browser.press("ArrowRight")
    assert browser.run("return document.activeElement.dataset.at;") == "1"
    browser.press("Enter")
    video = 'document.querySelector("#viewer video")'
    assert browser.wait(f"{video}?.duration") == pytest.approx(2, abs=0.15)
    assert browser.wait(f"{video}.videoWidth") == 64
    facts = 'document.getElementById("viewer-facts").textContent'
    assert "0:01.0 – 0:02.0" in browser.run(f"return {facts};")
    browser.press("ArrowRight")
    assert browser.wait(f"{video}.duration < 1.5")
    browser.press("Escape")
    browser.wait('!document.getElementById("viewer").open')
    browser.wait("document.activeElement.dataset.at === '2'")
    browser.wait(f"!{video}")  # it is silent
    tree = "document.querySelector(\"#viewer-ways a[href^='/hier']\").href"
    browser.run('document.querySelector(".look").click();')
    browser.open(browser.run(f"return {tree};"))
    title = 'document.querySelector("#tree-node h3")?.textContent'
    assert browser.wait(title) == "0.mp4 at 0:00.0"
    told = browser.run('return document.querySelector("nav").textContent;')
    assert "0.mp4 at 0:00.0, and 14 seconds that look most like it" in told
    browser.run('document.getElementById("tree-disk").focus();')
    browser.press("Enter")
    found(browser, "Seconds that look like this")


def test_a_result_plays_from_its_second_on_and_its_place_can_be_taken_along(
    browser, client: Client, tmp_path, monkeypatch
):
    clip = Catalogue.clip

    def in_a_shot(self, row, score=1.0):
        there = {"shot_start_s": 0.5, "shot_end_s": 3.0, "collection": "=1+1"}
        return clip(self, row, score)._replace(**there)

    monkeypatch.setattr(Catalogue, "clip", in_a_shot)
    browser.open(client.url + "#name=0.mp4")
    found(browser, "Files named “0.mp4”")
    browser.run("document.querySelector(\".look[data-at='2']\").click();")
    video = 'document.querySelector("#viewer video")'
    assert browser.wait(f"{video}?.duration") == pytest.approx(2.5, abs=0.15)
    browser.wait(f"{video}.currentTime >= 1.5")
    browser.run(f"{video}.pause(); {video}.currentTime = 1;")
    now = 'document.getElementById("viewer-now").textContent'
    browser.wait(f"{now} === '00:00:01.500'")
    said = 'document.getElementById("viewer-said").textContent'
    click(browser, "Copy time", "#viewer")
    assert browser.wait(said) == "Copied."
    # Where that is not allowed, it is there to be copied by hand.
    browser.run("navigator.clipboard.writeText = () => Promise.reject();")
    click(browser, "Copy path", "#viewer")
    path = client.search(name="0.mp4")["hits"][0]["path"]
    browser.wait(f"getSelection().toString() === {path!r}")
    browser.press("Escape")
    # As a list, in which nothing runs.
    browser.open(client.url)
    found(browser, "Something to begin with")
    to = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.call("Page.setDownloadBehavior", **to)
    browser.run('document.getElementById("save").click();')
    saved, until = tmp_path / "found.csv", time.monotonic() + 10
    while not (saved.exists() and saved.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    rows = list(csv.DictReader(io.StringIO(saved.read_bytes().decode("utf-8-sig"))))
    hits = client.search()["hits"]
    assert [row["file"] for row in rows] == [hit["path"] for hit in hits]
    assert {row["collection"] for row in rows} == {"'=1+1"}
    shot = (rows[1]["start"], rows[1]["shot_start"], rows[1]["shot_end"])
    assert shot == ("00:00:01.000", "00:00:00.500", "00:00:03.000")


def test_narrow_screens_and_where_one_was(browser, client: Client):
    how = {"width": 420, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **how)
    try:
        browser.open(client.url)
        found(browser, "Something to begin with")
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert browser.run(f"return {fits};")
        browser.run("scrollTo(0, 500);")
        browser.wait("history.state?.y === 500")
        click(browser, "sight", "#hits")
        found(browser, "Seconds that look like this")
        assert browser.run(f"return scrollY === 0 && {fits};")
        browser.run("history.back();")
        found(browser, "Something to begin with")
        browser.wait("scrollY === 500")
        browser.run('document.querySelector(".look").click();')
        viewer = 'document.getElementById("viewer")'
        assert browser.run(f"return {viewer}.scrollWidth <= {viewer}.clientWidth;")
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_where_the_original_is_gone_its_picture_stays(browser, client, made: Path):
    away = made / "silent.mp4"
    away.rename(made / "elsewhere")
    try:
        browser.open(client.url + "#name=silent")
        found(browser, "Files named “silent”")
        browser.run('document.querySelector(".look").click();')
        why = 'document.getElementById("viewer-why").textContent'
        assert "no longer where it was indexed" in browser.wait(why)
        image = 'document.querySelector("#viewer-stage img")?.naturalWidth'
        assert browser.wait(image) > 0
    finally:
        (made / "elsewhere").rename(away)
    click(browser, "Looks like it", "#viewer")
    found(browser, "Seconds that look like this")
    click(browser, "Start over")
    found(browser, "Something to begin with")
    assert browser.run("return location.hash;") == ""


def test_a_video_is_dropped_and_another_second_of_it_picked(
    browser, client: Client, made: Path
):
    browser.open(client.url)
    found(browser, "Something to begin with")
    row = next(
        x["row"] for x in client.search(name="0.mp4")["hits"] if not x["start_s"]
    )
    browser.run(
        f"""
        const data = new DataTransfer();
        const bytes = await (await fetch("/clip/{row}")).blob();
        data.items.add(new File([bytes], "<b>mine</b>.mp4", {{ type: "video/mp4" }}));
        const how = {{ dataTransfer: data, bubbles: true, cancelable: true }};
        document.body.dispatchEvent(new DragEvent("drop", how));
        """
    )
    found(browser, "Seconds that look like this")
    assert browser.run('return document.querySelector("#query b").textContent;') == (
        "<b>mine</b>.mp4"
    )
    click(browser, "Sounds like it")
    found(browser, "Seconds that sound like this")
    browser.wait('document.querySelector("#query video")?.duration')
    browser.run('document.querySelector("#query video").currentTime = 2.5;')
    button = '[...document.querySelectorAll("#query button")].find((x) => !x.hidden)'
    assert browser.wait(f"{button}?.textContent") == "Search by this second"
    before = browser.run("return location.hash;")
    browser.run(f"{button}.click();")
    browser.wait(f"{IDLE}location.hash !== {before!r}")
    asked = dict(browser.run(f"return {ADDRESS};"))
    assert (asked["by"], client.search(**asked)["query"]["start_s"]) == ("sound", 2)
    assert browser.run("return document.querySelector('#query input').value;") == "2"
    # What cannot be used is said, and the results stay.
    (made / "scratch.txt").write_text("no picture")
    browser.choose("#file", made / "scratch.txt")
    trouble = 'document.querySelector(".trouble")?.textContent'
    assert "not a readable media file" in browser.wait(trouble)
    assert browser.run(f"return {NAMES}.length;") > 0


def test_a_busy_server_is_said_and_a_clip_is_of_its_collection(
    browser, made: Path, tmp_path, monkeypatch
):
    index, features = str(tmp_path / "index"), str(made / "features")
    for name in ("a", "b"):
        assert search.main(["add", index, features, f"--collection={name}"]) == 0
    Image.new("RGB", (64, 48)).save(tmp_path / "mine.png")
    monkeypatch.setattr("visxp_jax.page.clips.WAIT_S", 0.01)
    with serving(Path(index), made / "run", tmp_path) as client, ExitStack() as held:
        browser.open(client.url + "#name=1.mov")
        assert len(found(browser, "Files named “1.mov”")) == 6
        where = "[...document.querySelectorAll('#hits .hit')].map((x) => x.innerText)"
        last = browser.run(f"return {where};")[-1]
        assert "0:02.0 · b" in last
        click(browser, "sight", "#hits li:last-child")
        found(browser, "Seconds that look like this")
        told = browser.run("return document.querySelector('#query p').textContent;")
        assert told == "at 0:02.0 · b"
        click(browser, "All of this file", "#query")
        assert len(found(browser, "All of 1.mov")) == 3
        assert all("· b" in x for x in browser.run(f"return {where};"))
        # As much as may be is being done for others.
        for places in (client.server.arriving, client.server.workers):
            with suppress(Busy):
                while True:
                    held.enter_context(taken(places))
        browser.run('document.querySelector(".look").click();')
        why = 'document.getElementById("viewer-why").textContent'
        assert browser.wait(why) == BUSY
        browser.choose("#file", tmp_path / "mine.png")
        trouble = 'document.querySelector(".trouble")?.textContent'
        assert browser.wait(trouble) == f"mine.png: {BUSY}"
    # The one file knows them apart, too.
    assert page.main([index, f"--out={tmp_path / 'page.html'}"]) == 0
    like = f"#like={made / '1.mov'}&at=2"
    for name in ("b", "a"):
        browser.open("about:blank")
        browser.open((tmp_path / "page.html").as_uri() + f"{like}&from={name}")
        found(browser, "Seconds that look like this")
        told = browser.run("return document.querySelector('#query p').textContent;")
        assert told == f"at 0:02.0 · {name}"


def test_one_file_ranks_by_itself(browser, made: Path, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert page.main([str(made / "index"), f"--out={out}"]) == 0
    assert "15 clips, sounds of 12 -> " in capsys.readouterr().out
    browser.open(out.as_uri())
    assert HOSTILE in found(browser, "Something to begin with")
    searcher = Searcher(Store(made / "index"))
    finder = Finder(searcher, lambda what: pytest.fail(what))
    query = searcher.clip(4)
    for words, by in (("Looks like it", "sight"), ("Sounds like it", "sound")):
        hits = finder.find(finder.vectors(4), by=by, row=4, k=60, once=True)
        browser.run(
            f"location.hash = new URLSearchParams({{ like: {query.path!r}, "
            f"at: {query.start_s}, by: {by!r}, find: {by!r} }});"
        )
        names = found(browser, f"Seconds that {words[:4].lower()}")
        scores = browser.run(
            'return [...document.querySelectorAll(".score")].map((x) => x.textContent);'
        )
        # Whole numbers of one byte lose a little, and may swap what is as good.
        assert len(names) == len(hits)
        wanted = [hit.score for hit in hits]
        np.testing.assert_allclose([float(x) for x in scores], wanted, atol=0.011)
    click(browser, "Looks and sounds like it", "#query")
    found(browser, "Seconds that look and sound like this")
    browser.run('document.querySelector("#hits .look").click();')
    button = 'document.querySelector("#viewer [data-sound]")'
    browser.wait(f"Boolean({button})")
    browser.run(f"{button}.click();")
    assert browser.wait('document.querySelector("audio")?.duration') == 1
    assert browser.run(f"return {button}.className;") == "hear playing"
    opened = 'document.querySelector("#viewer a[target]").href'
    link = urlsplit(browser.run(f"return {opened};"))
    assert Path(os.fsdecode(unquote_to_bytes(link.path))).is_file()
    assert link.fragment in ("t=0", "t=1", "t=2")
    click(browser, "All of this file", "#viewer")
    assert len(found(browser, "All of ")) == 3
    browser.run("history.back();")
    found(browser, "Seconds that look and sound like this")


def test_bytes_keep_directions():
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    import base64

    found = np.frombuffer(base64.b64decode(_vectors(x)["data"]), np.int8)
    y = found.reshape(5, 64).astype(np.float32)
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert (cosine > 0.9999).all()


def test_one_file_is_for_small_collections(made: Path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("visxp_jax.page.offline.MAX_CLIPS", 14)
    assert page.main([str(made / "index"), f"--out={tmp_path / 'a.html'}"]) == 2
    told = capsys.readouterr().err
    assert "--out is for up to 14 clips, got 15 in" in told
    assert not list(tmp_path.iterdir())
