"""Trees for other programs: Newick for phylogenetics' viewers, JSON for anything."""

import json
from collections.abc import Sequence

import numpy as np

from visxp_jax.hierarchy.tree import check_merges


def newick(
    merges: np.ndarray, heights: np.ndarray, names: Sequence[str] | None = None
) -> str:
    """The tree in Newick's notation, with lengths of branches.

    Args:
        merges: int [n - 1, 2].
        heights: [n - 1], of the nodes made, of no node below its children's.
        names: [n], of leaves; their numbers if None. They are quoted.
    """
    merges = check_merges(merges)
    n = len(merges) + 1
    high = np.concatenate([np.zeros(n), heights])
    length = np.zeros(2 * n - 1)
    length[merges] = high[n:, None] - high[merges]
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
        ValueError: heights are not finite.
    """
    merges = check_merges(merges)
    if not np.isfinite(heights).all():
        raise ValueError("heights must be finite.")
    sizes = [1] * (len(merges) + 1)
    for left, right in merges.tolist():
        sizes.append(sizes[left] + sizes[right])
    return json.dumps(
        {
            "names": _names(names, len(merges) + 1),
            "merges": merges.tolist(),
            "heights": np.asarray(heights, np.float64).tolist(),
            "sizes": sizes[len(merges) + 1 :],
        }
    )


def _names(names: Sequence[str] | None, n: int) -> list[str]:
    words = list(map(str, range(n) if names is None else names))
    if len(words) != n:
        raise ValueError(f"names must be of the {n} leaves, got {len(words)}.")
    return words
