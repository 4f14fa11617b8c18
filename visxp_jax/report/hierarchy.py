"""The hierarchy to walk through: a tree in the Poincare disk, drawn by the page itself.

Positions are worked out in the browser, outwards from the node in hand, so that a tree
of any depth can be walked without running out of digits.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from visxp_jax.hierarchy.metrics import unit_rows
from visxp_jax.hierarchy.tree import sorted_by_height, spans
from visxp_jax.report.content import Clip, Hierarchy, Tree
from visxp_jax.report.gallery import Media, clock
from visxp_jax.report.markup import filled, none, resource, shown


def tree_of(merges: np.ndarray, heights: np.ndarray, x: np.ndarray) -> Tree:
    """With rows in order, and for each node the clip nearest to the mean of its own.

    Args:
        merges: int [n - 1, 2].
        heights: [n - 1].
        x: [n, d], vectors of the clips.
    """
    merges, heights = sorted_by_height(merges, heights)
    n = len(merges) + 1
    order, start, stop = spans(merges)
    rows = unit_rows(x)[order]
    upto = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    faces = np.empty(n - 1, np.int64)
    for node in range(n, 2 * n - 1):
        own = slice(start[node], stop[node])
        near = rows[own] @ (upto[stop[node]] - upto[start[node]])
        faces[node - n] = order[own][np.argmax(near)]
    return Tree(merges, heights, faces)


def prominent(tree: Tree, number: int) -> list[int]:
    """Clips that stand for the uppermost nodes, so many of them."""
    found = dict.fromkeys(tree.faces[::-1].tolist())
    found |= dict.fromkeys(range(len(tree.faces) + 1))
    return list(found)[:number]


def hierarchy_html(hierarchy: Hierarchy | None, media: Media) -> str:
    """The part of a page; it needs the player of the page, and its sounds.

    Args:
        hierarchy: Of 2 clips or more; None says that there is none.
        media: Sounds of the page.
    """
    if hierarchy is None:
        return none("No hierarchy: there are fewer than two clips to compare.")
    labels = sorted({clip.label for clip in hierarchy.clips if clip.label})
    number = {label: i for i, label in enumerate(labels)}
    clips = [
        {
            "video": shown(clip.video),
            "name": shown(PurePosixPath(clip.video).name or clip.video),
            "at": clock(clip.start_s),
            "label": number[clip.label] if clip.label else -1,
            "frame": base64.b64encode(clip.frame_jpeg).decode("ascii"),
            "sound": media.sound(clip.sound_wav) if clip.sound_wav else None,
            "link": clip.link,
            "apart": None if apart is None else round(float(apart), 4),
        }
        for clip, apart in zip(hierarchy.clips, hierarchy.apart, strict=True)
    ]
    trees = [
        {
            "name": name,
            "merges": tree.merges.tolist(),
            "heights": np.round(tree.heights, 5).tolist(),
            "faces": tree.faces.tolist(),
        }
        for name, tree in hierarchy.trees.items()
    ]
    data = {"trees": trees, "clips": clips, "labels": [shown(x) for x in labels]}
    return filled(
        "tree.html",
        enter=_enter(hierarchy.clips),
        # Nothing in it can close the script element.
        data=json.dumps(data, separators=(",", ":"), allow_nan=False)
        .replace("&", "\\u0026")
        .replace("<", "\\u003c"),
        script=resource("tree.js"),
    )


def _enter(clips: Sequence[Clip]) -> str:
    if any(clip.sound_wav for clip in clips):
        return "Enter plays what is in hand."
    if any(clip.link for clip in clips):
        return "Enter goes on in the search, by the first clip in hand."
    return ""
