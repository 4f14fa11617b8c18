"""Trees for other programs: Newick for phylogenetics' viewers, JSON for anything."""

import json
from collections.abc import Sequence

import numpy as np

from visxp_jax.hierarchy.tree import check_heights, check_merges


def newick(
    merges: np.ndarray, heights: np.ndarray, names: Sequence[str] | None = None
) -> str:
    """The tree in Newick's notation, with lengths of branches.

    Args:
        merges: int [n - 1, 2].
        heights: [n - 1], of the nodes made, of no node below its children's.
        names: [n], of leaves; their numbers if None. They are quoted.

    Raises:
        ValueError: there is no such tree, see `check_merges` and `check_heights`, or
            a branch would be shorter than 0.
    """
    merges = check_merges(merges)
    n = len(merges) + 1
    high = np.concatenate([np.zeros(n), check_heights(merges, heights)])
    length = np.zeros(2 * n - 1)
    length[merges] = high[n:, None] - high[merges]
    if (length < 0).any():
        raise ValueError("heights must not be below 0, nor below those of children.")
    words = _names(names, n)
    out: list[str] = []
    todo: list[int | str] = [2 * n - 2]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            out.append(node)
            continue
        end = f":{length[node]:.6g}" if node != 2 * n - 2 else ";"
        if node < n:
            out.append("'" + words[node].replace("'", "''") + "'" + end)
        else:
            left, right = merges[node - n].tolist()
            todo += [")" + end, right, ",", left, "("]
    return "".join(out)


def tree_json(
    merges: np.ndarray, heights: np.ndarray, names: Sequence[str] | None = None
) -> str:
    """The tree as JSON: an object of names [n], merges [n - 1, 2], heights and sizes.

    Lists, not objects in objects: a deep tree would exceed what parsers allow.

    Args:
        merges: int [n - 1, 2].
        heights: [n - 1].
        names: [n], of leaves; their numbers if None.

    Raises:
        ValueError: see `check_merges` and `check_heights`.
    """
    merges = check_merges(merges)
    heights = check_heights(merges, heights)
    sizes = [1] * (len(merges) + 1)
    for left, right in merges.tolist():
        sizes.append(sizes[left] + sizes[right])
    return json.dumps(
        {
            "names": _names(names, len(merges) + 1),
            "merges": merges.tolist(),
            "heights": heights.tolist(),
            "sizes": sizes[len(merges) + 1 :],
        }
    )


def _names(names: Sequence[str] | None, n: int) -> list[str]:
    words = list(map(str, range(n) if names is None else names))
    if len(words) != n:
        raise ValueError(f"names must be of the {n} leaves, got {len(words)}.")
    return words
