"""Agreement of sight and sound: what is listed first, and the page of it."""

from pathlib import Path

import numpy as np
import pytest

from tests.report.browser import needs_browser, seen
from tests.report.test_page import HOSTILE, Page
from visxp_jax import agreement
from visxp_jax.feature_files import ClipRow, Writer
from visxp_jax.report.agreement import course_text

# As extraction names files.
HOSTILE_NAME = HOSTILE.encode("utf-8", "backslashreplace").decode()
VIDEOS = {
    "good.mp4": [0.9, 0.8, 1.0],
    "dubbed.mp4": [0.1, 0.7, 0.0, 0.2],
    "mute.mp4": [None, None],
    f"{HOSTILE_NAME}.mp4": [0.5, None],
}


@pytest.fixture
def features(tmp_path) -> Path:
    folder = tmp_path / "features"
    folder.mkdir()
    for at, (path, values) in enumerate(VIDEOS.items()):
        writer = Writer(folder, f"{at}")
        for i, value in enumerate(values):
            heard = value is not None
            row = ClipRow(path, float(i), i + 1.0, i + 0.5, heard, False, False)
            row = row._replace(agreement=value, thumbnail=f"{at}-{i}".encode())
            writer.add(row, {"video": np.ones(2), "audio": np.ones(2)})
        writer.finish({"model_sha256": "f" * 64, "model": "runs/x"})
    return folder


def test_videos_and_seconds_that_agree_least_come_first(features):
    found = agreement.read(agreement.files_of([features]))
    means = {one.path: one.mean for one in found}
    assert means["dubbed.mp4"] == pytest.approx(0.25)
    assert np.isnan(means["mute.mp4"])
    every = np.array([0.5, np.nan, 0.1, 0.9])
    assert agreement.least(every, 9).tolist() == [2, 0, 3]
    (second,) = agreement.seconds_of(found[1], [2])
    assert (second.start_s, second.thumbnail) == (2.0, b"1-2")
    scores, video = np.array([1.0, 0.0, 0.5]), np.array([0, 1, 0])
    assert agreement.of_videos(scores, video).tolist() == [0.75, 0.0]


def test_videos_with_nothing_to_hear_are_shown_whatever_the_others(
    features, monkeypatch
):
    monkeypatch.setattr(agreement, "VIDEOS", 1)
    monkeypatch.setattr(agreement, "QUIET", 1)
    found = agreement.read(agreement.files_of([features]))
    page = agreement.page(found, {})
    assert "4 videos. 2 are shown" in page
    names = [name for name in VIDEOS if f'data-name="{name}"' in page]
    assert names == ["dubbed.mp4", "mute.mp4"]


def test_a_course_has_a_letter_for_each_part():
    nothing = np.nan
    assert course_text(np.array([0.0, 1.0, nothing, 0.5])) == "0z-i"
    assert len(course_text(np.linspace(0, 1, 5000))) == 400


@pytest.mark.browser
@needs_browser
def test_the_page_is_sorted_and_searched_in_a_browser(features, tmp_path):
    out = tmp_path / "page.html"
    assert agreement.main([str(features), f"--out={out}"]) == 0
    actions = """
      const names = () => [...document.querySelectorAll(".video:not([hidden]) h3")]
        .map((h) => h.textContent);
      const sort = document.getElementById("sort");
      seen.first = names();
      seen.count = document.getElementById("count").textContent;
      const canvas = document.querySelector("canvas");
      seen.drawn = [...canvas.getContext("2d").getImageData(0, 0, 4, 1).data]
        .filter((_, i) => i % 4 === 3).every((alpha) => alpha > 0);
      sort.value = "-quiet";
      sort.dispatchEvent(new Event("change"));
      seen.quiet = names()[0];
      const find = document.getElementById("find");
      find.value = "GOOD";
      find.dispatchEvent(new Event("input"));
      seen.found = names();
      seen.seconds = document.querySelector(".seconds figcaption").textContent;
    """
    found = seen(out.read_text(), actions, tmp_path)
    assert "error" not in found, found["error"]
    assert found["first"][:1] == ["dubbed.mp4"]
    assert found["first"][-2:] == ["good.mp4", "mute.mp4"]
    assert (found["count"], found["quiet"]) == ("4 of 4", "mute.mp4")
    assert found["found"] == ["good.mp4"]
    assert found["seconds"] == "dubbed.mp4 0:02.0 0%"
    assert found["drawn"]


@pytest.mark.browser
@needs_browser
def test_a_second_links_to_its_video_and_lists_are_saved(tmp_path):
    video = tmp_path / "odd name#1.mp4"
    video.touch()
    for name in (str(video), "=gone.mp4\u202f;=1"):  # a space that is not printable
        writer = Writer(tmp_path, str(len(name)))
        row = ClipRow(name, 3.0, 4.0, 3.5, True, False, False)._replace(agreement=0.25)
        writer.add(row, {"video": np.ones(2), "audio": np.ones(2)})
        writer.finish({"model_sha256": "f" * 64})
    out = tmp_path / "page.html"
    assert agreement.main([str(tmp_path), f"--out={out}"]) == 0
    page = Page(out.read_text())
    links = {link["href"] for link in page.all("a")}
    assert links == {f"{video.as_uri()}#t=3"}
    actions = """
      const blobs = [];
      URL.createObjectURL = (blob) => { blobs.push(blob); return "#"; };
      for (const id of ["save", "save-seconds"]) document.getElementById(id).click();
      seen.saved = await Promise.all(blobs.map((blob) => blob.text()));
    """
    videos, seconds = seen(out.read_text(), actions, tmp_path)["saved"]
    assert '\r\n"\'=gone.mp4\u202f;\'=1",0.25,"00:00:01.000",0,0\r\n' in videos
    assert f'\r\n"{video}","00:00:03.000",0.25\r\n' in seconds


def test_hostile_names_stay_text(features, tmp_path):
    out = tmp_path / "page.html"
    assert agreement.main([str(features), f"--out={out}"]) == 0
    page = out.read_text()
    Page(page)
    assert "<img src=x" not in page


def test_mistakes_are_one_line(features, tmp_path, capsys):
    writer = Writer(tmp_path, "plain")
    row = ClipRow("a.mp4", 0.0, 1.0, 0.5, True, False, False)
    writer.add(row, {"video": np.ones(2), "audio": np.ones(2)})
    writer.finish({"model_sha256": "f" * 64})
    (tmp_path / "empty").mkdir()
    for args, words in (
        ([str(tmp_path / "plain.parquet")], "whose last stage teaches correspondence"),
        ([str(tmp_path / "empty")], "must hold feature files"),
        ([__file__], "must be a .parquet file"),
        ([str(features), "--out=/none/x.html"], "cannot write /none/x.html"),
    ):
        command = [*args] if "--out" in args[-1] else [*args, f"--out={tmp_path / 'x'}"]
        assert agreement.main(command) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("error: ")
        assert words in told
