"""The page of a run: whole, self-contained, safe with hostile text, and usable."""

import base64
import io
import json
import re
import wave
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.report.browser import needs_browser, seen
from visxp_jax.report.content import (
    Clip,
    Cluster,
    Curve,
    Figure,
    HealthRow,
    Neighbours,
    Report,
)
from visxp_jax.report.gallery import clock
from visxp_jax.report.page import render, wav_bytes

SECTIONS = (
    *("figures", "curves", "health", "clusters", "hierarchy", "neighbours", "data"),
)
# Some words of every part of the full report.
SHOWN = (
    *("A run", "avc.py", "nmi", "0.800", "raw sound", "not measured"),
    *("loss", "chance 0.693", "clusters in use", "2 of 3 clusters in use"),
    *("Cluster 1", "50% dog", "no label", "sound → pictures", "0.93"),
    *("0 of 1 share its label", "silent clips", "4 clips are silent."),
)
VOID = {"meta", "link", "img", "input", "br"}
HOSTILE = "a/<img src=x onerror=alert(1)>\n\u202e\udcff\"'</script><b>{{title}}.mp4"
# The smallest picture a browser draws: the page does not look into the bytes.
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs=")
RATE_HZ = 8000


def tone(rate_hz: int = RATE_HZ, pitch_hz: float = 440.0) -> bytes:
    time_s = np.arange(rate_hz) / rate_hz
    return wav_bytes(np.sin(2 * np.pi * pitch_hz * time_s).astype(np.float32), rate_hz)


def clip(video: str = "dogs/rex.mp4", label: str | None = "dog", **kwargs) -> Clip:
    media = {"frame_jpeg": PIXEL, "sound_wav": tone()} | kwargs
    return Clip(video, 1.5, label, **media)


def full_report() -> Report:
    cat = clip("cats/tom.mp4", "cat", sound_wav=tone(pitch_hz=880.0))
    return Report(
        "A run",
        summary={
            "config": "avc.py",
            "command": "python -m visxp_jax.main " + "-x " * 20,
        },
        figures=[
            Figure("nmi", 0.8, "Agreement.", {"raw sound": 0.3, "other": None}, 0)
        ],
        curves=[Curve("loss", [(0, 1.0), (10, 0.5), (20, 0.25)], 0.693, "losses")],
        stages=[("avc", 0), ("selflabel", 10)],
        health=[HealthRow("clusters in use", 1.0, "all")],
        cluster_sizes=[3, 2, 0],
        clusters=[
            Cluster(0, 2, 0.5, "dog", [clip(), cat]),
            Cluster(1, 9, None, None, [clip(label=None, sound_wav=None)]),
            Cluster(2, 3, 0.9, "cat", [cat]),
        ],
        neighbours=[Neighbours(clip(), {"sound -> pictures": [(cat, 0.93)]})],
        data_rows=[("silent clips", "4")],
        warnings=["4 clips are silent."],
    )


class Page(HTMLParser):
    """Collects elements and checks that every one is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and wanted.items() <= attrs.items()
        ]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def test_page_has_all_sections_and_their_content():
    page = Page(render(full_report()))
    assert [s["id"] for s in page.all("section") if "id" in s] == list(SECTIONS)
    for expected in SHOWN:
        assert expected in page.text


def test_page_refers_to_nothing_outside():
    source = render(full_report())
    assert "http:" not in source
    assert "https:" not in source
    assert "url(" not in source
    assert "@import" not in source
    for _, attrs in Page(source).elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))


def test_page_forbids_itself_the_network():
    policy = Page(render(full_report())).all("meta")[1]["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


@pytest.mark.parametrize("figures", [[], [Figure("knn", None, "Not run.")]])
def test_page_without_content_says_so(figures):
    page = Page(render(Report("Nothing yet", figures=figures)))
    assert [s["id"] for s in page.all("section") if "id" in s] == list(SECTIONS)
    assert page.text.count("No ") >= 4
    assert page.all("aside") == []
    assert ("not measured" in page.text) == bool(figures)


def test_page_hostile_text_stays_text_everywhere():
    bad = clip(HOSTILE, HOSTILE)
    report = Report(
        HOSTILE,
        summary={HOSTILE: HOSTILE, "command": HOSTILE * 3},
        figures=[Figure(HOSTILE, 0.5, HOSTILE, {HOSTILE: 0.2})],
        curves=[Curve(HOSTILE, [(0, 1.0), (9, 0.5)], None, HOSTILE)],
        stages=[(HOSTILE, 0)],
        health=[HealthRow(HOSTILE, 1.0, HOSTILE)],
        clusters=[Cluster(0, 1, 1.0, HOSTILE, [bad])],
        neighbours=[Neighbours(bad, {HOSTILE: [(bad, 0.5)]})],
        data_rows=[(HOSTILE, HOSTILE)],
        warnings=[HOSTILE],
    )
    source = render(report)
    source.encode("utf-8")
    assert "\u202e" not in source
    page = Page(source)
    assert not any("onerror" in attrs for _, attrs in page.elements)
    assert page.all("img", src="x") == []
    own = Page(render(full_report()))
    assert len(page.all("script")) == len(own.all("script")) - 1  # one sound less
    # A text that looks like a placeholder of the template is not filled in.
    assert "{{title}}" in page.text


def test_page_embeds_equal_media_once():
    source = render(full_report())
    page = Page(source)
    sounds = page.all("script", type="text/plain")
    assert [s["id"] for s in sounds] == ["s0", "s1"]
    assert source.count(base64.b64encode(PIXEL).decode()) == 1
    assert source.count(base64.b64encode(tone()).decode()) == 1
    repeats = [i["data-same"] for i in page.all("img") if "data-same" in i]
    assert len(repeats) == len(page.all("img")) - 1
    assert set(repeats) == {"f0"}
    played = {b["data-sound"] for b in page.all("button") if "data-sound" in b}
    assert played == {"0", "1"}


def test_page_clip_without_sound_has_no_button():
    silent = clip(sound_wav=None)
    page = Page(render(Report("r", clusters=[Cluster(0, 1, None, None, [silent])])))
    assert page.all("button") == []
    assert len(page.all("span", **{"class": "silent"})) == 1


def test_page_readouts_are_the_finite_points():
    points = [(0, np.float32(1)), (10, float("nan")), (20, 0.5), (30, float("inf"))]
    source = render(Report("r", curves=[Curve("loss", points, None, "losses")]))
    found = re.search(r'id="readouts">(.*?)</script>', source)
    assert found is not None
    readouts = json.loads(found[1])
    assert [(step, value) for step, value, _, _ in readouts[0]] == [(0, 1), (20, 0.5)]
    assert "2 not finite" in Page(source).text


def test_page_bar_and_its_marks_are_at_their_values():
    source = render(Report("r", figures=[Figure("a", 0.75, "m", {"b": 0.25}, 0.5)]))
    assert 'class="fill" style="width:75.0%"' in source
    assert 'class="ring" style="left:25.0%"' in source
    assert 'class="dash" style="left:50.0%"' in source


@pytest.mark.parametrize(
    "figure",
    [
        Figure("steps", 1.0, "A count.", is_share=False),
        Figure("rank", 41.0, "More than one."),
        Figure("ari", -0.1, "Less than zero."),
        Figure("nan", float("nan"), "Not finite."),
    ],
    ids=lambda figure: figure.name,
)
def test_page_figure_off_the_scale_has_no_bar(figure):
    assert (
        Page(render(Report("r", figures=[figure]))).all("div", **{"class": "bar"}) == []
    )


@pytest.mark.parametrize(
    ("start_s", "shown"),
    [(0.0, "0:00.0"), (59.97, "1:00.0"), (61.25, "1:01.2"), (3671.5, "1:01:11.5")],
)
def test_clock_carries_into_minutes_and_hours(start_s, shown):
    assert clock(start_s) == shown


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_wav_bytes_reads_back(dtype):
    whole = np.array([0, 16384, -32767, 32767], np.int16)
    samples = whole if dtype == np.int16 else (whole / 32767).astype(dtype)
    with wave.open(io.BytesIO(wav_bytes(samples, 24000))) as reader:
        assert reader.getparams()[:4] == (1, 2, 24000, 4)
        back = np.frombuffer(reader.readframes(4), "<i2")
    np.testing.assert_array_equal(back, whole)


def test_wav_bytes_clips_what_is_too_loud():
    data = wav_bytes(np.array([2.0, -2.0]), 8000)
    np.testing.assert_array_equal(np.frombuffer(data[-4:], "<i2"), [32767, -32767])


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros((2, 4), np.float32), r"shape \[n\], got float32 of shape \[2, 4\]"),
        (np.zeros(4, np.int32), "got int32"),
        (np.array([0.0, np.nan]), "must be finite"),
    ],
)
def test_wav_bytes_refuses_other_arrays(samples, said):
    with pytest.raises(ValueError, match=said):
        wav_bytes(samples, 8000)


# What a reader does, run inside the page; the outcome is left in its title.
ACTIONS = """
  seen.blocked = 0;
  document.addEventListener("securitypolicyviolation", () => { seen.blocked += 1; });
  const all = (selector) => [...document.querySelectorAll(selector)];
  const order = () => all(".card").map((card) => card.dataset.index).join("");
  const choose = (key) => {
    document.getElementById("sort").value = key;
    document.getElementById("sort").dispatchEvent(new Event("change"));
    return order();
  };
  const find = (words) => {
    document.getElementById("filter").value = words;
    document.getElementById("filter").dispatchEvent(new Event("input"));
    const cards = all(".card:not([hidden])").map((card) => card.dataset.index);
    return cards.sort().join("");
  };
  seen.audioBefore = all("audio").length;
  const button = document.querySelector(".card [data-sound]");
  button.click();
  seen.audioAfter = all("audio").length;
  seen.playing = button.classList.contains("playing");
  const player = document.querySelector("audio");
  seen.source = player.src.slice(0, 22);
  if (!player.duration) {
    await until(() => player.duration);
  }
  seen.seconds = player.duration;
  button.click();
  seen.stopped = !button.classList.contains("playing");
  seen.size = choose("size");
  seen.purity = choose("purity");
  seen.index = choose("index");
  seen.cat = find("CAT tom");
  seen.none = find("zebra");
  seen.told = document.getElementById("shown").textContent;
  seen.all = find("");
  const svg = document.querySelector("[data-curve] svg");
  const output = document.querySelector("[data-curve] output");
  seen.latest = output.textContent;
  svg.focus();
  svg.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
  seen.read = output.textContent;
  const strip = all(".card")[0].querySelectorAll("[data-sound]");
  seen.stops = [...strip].map((each) => each.tabIndex).join();
  strip[0].focus();
  const right = { key: "ArrowRight", bubbles: true };
  strip[0].dispatchEvent(new KeyboardEvent("keydown", right));
  seen.moved = document.activeElement === strip[1];
  all(".card .all")[0].click();
  seen.first = strip[0].classList.contains("playing");
  player.dispatchEvent(new Event("ended"));
  seen.second = strip[1].classList.contains("playing");
  player.dispatchEvent(new Event("ended"));
  seen.over = all(".playing").length;
  await Promise.all(all("img").map((image) => image.decode()));
"""


@pytest.mark.browser
@needs_browser
def test_page_plays_sorts_and_finds_in_a_browser(tmp_path):
    assert seen(render(full_report()), ACTIONS, tmp_path) == {
        "blocked": 0,
        "audioBefore": 0,
        "audioAfter": 1,
        "playing": True,
        "source": "data:audio/wav;base64,",
        "seconds": 1,
        "stopped": True,
        "size": "120",
        "purity": "201",
        "index": "012",
        "cat": "02",
        "none": "",
        "told": "0 of 3 clusters",
        "all": "012",
        "latest": "0.250",
        "read": "step 10: 0.5",
        "stops": "0,-1",
        "moved": True,
        "first": True,
        "second": True,
        "over": 0,
    }
