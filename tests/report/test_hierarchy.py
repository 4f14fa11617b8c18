"""The hierarchy page: its data, hostile text, and hands on it in a browser."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.report.browser import needs_browser, seen
from tests.report.test_page import HOSTILE, Page, clip, full_report
from visxp_jax.hierarchy import build, heights
from visxp_jax.hierarchy.tree import spans
from visxp_jax.report.content import Hierarchy
from visxp_jax.report.gallery import Media
from visxp_jax.report.hierarchy import hierarchy_html, prominent, tree_of
from visxp_jax.report.page import render, render_hierarchy


def vectors(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.eye(4)[np.arange(n) % 4] + 0.2 * rng.standard_normal((n, 4))


def hierarchy(n: int = 12, **first) -> Hierarchy:
    x = vectors(n)
    trees = {}
    for name, rows in (("both", x), ("sound", x[:, ::-1] * [1, 2, 3, 4])):
        merges = build(rows)
        trees[name] = tree_of(merges, heights(merges, rows), rows)
    clips = [
        clip(f"kind{i % 4}/file{i}.mp4", f"kind{i % 4}", **(first if i == 0 else {}))
        for i in range(n)
    ]
    return Hierarchy(clips, trees, [i / n for i in range(n)])


def data_of(page: str) -> dict:
    found = re.search(r'id="tree-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_faces_are_clips_of_their_nodes_nearest_to_the_mean():
    x = vectors(30)
    merges = build(x)
    tree = tree_of(merges, heights(merges, x), x)
    order, start, stop = spans(tree.merges)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for node, face in enumerate(tree.faces, start=30):
        own = order[start[node] : stop[node]]
        assert face in own
        near = unit[own] @ unit[own].mean(axis=0)
        assert unit[face] @ unit[own].mean(axis=0) == pytest.approx(near.max())


def test_prominent_clips_are_of_the_uppermost_nodes_first():
    tree = hierarchy(12).trees["both"]
    found = prominent(tree, 5)
    assert found[0] == tree.faces[-1]
    assert len(set(found)) == 5
    assert sorted(prominent(tree, 99)) == list(range(12))


def test_data_hold_the_trees_and_each_sound_once():
    media = Media()
    found = data_of(hierarchy_html(hierarchy(sound_wav=None), media))
    assert [tree["name"] for tree in found["trees"]] == ["both", "sound"]
    assert len(found["trees"][0]["merges"]) == 11
    assert found["labels"] == ["kind0", "kind1", "kind2", "kind3"]
    assert [c["label"] for c in found["clips"][:5]] == [0, 1, 2, 3, 0]
    assert found["clips"][0]["sound"] is None
    assert {c["sound"] for c in found["clips"][1:]} == {0}
    assert found["clips"][3]["apart"] == 0.25
    assert found["clips"][3]["at"] == "0:01.5"


def test_hostile_names_stay_text():
    made = hierarchy(4)
    clips = [clip(HOSTILE, HOSTILE), *made.clips[1:]]
    page = render_hierarchy(
        HOSTILE, Hierarchy(clips, made.trees, [None] * 4), {"made": HOSTILE}
    )
    page.encode("utf-8")
    Page(page)
    names = data_of(page)
    assert "<img src=x onerror=alert(1)>" in names["clips"][0]["video"]
    assert "\n" not in names["clips"][0]["video"]
    assert "<img src=x" not in page
    assert names["clips"][0]["apart"] is None


def test_without_a_hierarchy_the_reason_is_said():
    assert "fewer than two clips" in render_hierarchy("A run", None, {})
    assert "fewer than two clips" in render(full_report())


ACTIONS = Path(__file__).with_name("walk.js").read_text(encoding="utf-8")


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in the report"])
def test_page_is_walked_in_a_browser(inside, tmp_path):
    made = hierarchy(sound_wav=None)
    page = render_hierarchy("A run", made, {"config": "shhc"})
    if inside:
        report = full_report()
        page = render(type(report)(**{**report.__dict__, "hierarchy": made}))
    found = seen(page, ACTIONS, tmp_path)
    assert "error" not in found, found["error"]
    root = "All 12 clips"
    tree = made.trees["both"]
    sizes = {i: 1 for i in range(12)}
    for i, (left, right) in enumerate(tree.merges.tolist(), start=12):
        sizes[i] = sizes[left] + sizes[right]
    left, right = tree.merges[-1].tolist()
    assert found["root"] == found["parent"] == found["back"] == found["begun"] == root
    assert found["home"]  # however far the tree was pushed and pulled
    assert found["trees"] == 2
    assert found["zoomed"]
    assert found["first"].startswith(f"{sizes[left]} clips · kind")
    assert found["path"] == 2
    assert found["link"] == f"#node=both.{left}"
    assert found["clicked"].startswith(f"{sizes[right]} clips · kind")
    assert found["clickedLink"] == f"#node=both.{right}"
    assert found["dragged"]
    assert found["kept"]
    assert found["pinchKept"] == root
    assert found["pinched"] == found["first"]
    assert found["followed"] == ["kind3", "sound"]
    assert len(found["found"]) == 1
    assert "file7.mp4" in found["found"][0]
    assert found["leaf"] == "kind3"
    assert found["audioBefore"] == 0
    assert found["audio"] == ["data:audio/wav;base64,", 1]
    assert found["sorted"]


@pytest.mark.browser
@needs_browser
def test_a_page_without_labels_lists_what_it_can(tmp_path):
    made = hierarchy()
    clips = [clip(f"file{i}.mp4", None) for i in range(12)]
    page = render_hierarchy("A", Hierarchy(clips, made.trees, [None] * 12), {})
    actions = """
      const sort = document.getElementById("tree-sort");
      seen.orders = [...sort.options].map((option) => option.value);
      seen.rows = document.querySelectorAll("#tree-rows li").length > 1;
      seen.first = document.querySelector("#tree-rows li").textContent;
      const step = document.querySelector("#tree-node .steps button");
      step.focus();
      step.click();
      seen.hand = document.activeElement.tagName !== "BODY";
    """
    found = seen(page, actions, tmp_path)
    assert found.pop("first").startswith("12 clips · file")
    assert found == {"orders": ["size"], "rows": True, "hand": True}


@pytest.mark.browser
@needs_browser
def test_a_link_opens_the_page_at_its_node(tmp_path):
    page = render_hierarchy("A run", hierarchy(), {})
    actions = 'seen.at = document.querySelector("#tree-node h3").textContent;'
    assert seen(page, actions, tmp_path, "#node=sound.5") == {"at": "kind1"}
