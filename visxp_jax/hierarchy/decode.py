"""The binary tree that points in the ball stand for, and back.

Those with the deepest ancestor are merged first (HypHC's algorithm 1), which is single
linkage by depth, and by angle where all are at one distance from 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.hierarchy import linkage

from visxp_jax.geometry import poincare
from visxp_jax.hierarchy.metrics import unit_rows
from visxp_jax.hierarchy.tree import check_merges, spans


def decode(directions: np.ndarray) -> np.ndarray:
    """Merges int64 [n - 1, 2] of points [n, d] at one distance from 0.

    On a circle in O(n log n): neighbours are merged from the smallest gap to the
    largest but one; the largest is where the circle is cut open. In more dimensions in
    O(n^2).

    Args:
        directions: [n, d], not 0.

    Raises:
        ValueError: see `unit_rows`.
    """
    unit = unit_rows(directions)
    if unit.shape[1] == 2:
        return _on_circle(np.arctan2(unit[:, 1], unit[:, 0]))
    return _single_linkage(np.clip(1 - unit @ unit.T, 0, None))


def decode_by_depth(points: np.ndarray) -> np.ndarray:
    """Merges int64 [n - 1, 2] of points [n, d] anywhere in the ball, in O(n^2).

    Raises:
        ValueError: a point is not in the ball.
    """
    x = jnp.asarray(points)
    if not np.all(np.sum(np.square(points), axis=1) < 1):
        raise ValueError("points must be in the ball: of a length below 1.")
    # Compiled, no array [n, n, d] is made.
    depth = np.asarray(jax.jit(poincare.lca_depth)(x[:, None], x[None]), np.float64)
    return _single_linkage(depth.max() - depth)


def _single_linkage(far: np.ndarray) -> np.ndarray:
    """Of distances [n, n], whose diagonal does not count."""
    if len(far) == 1:
        return np.zeros((0, 2), np.int64)
    merged = linkage(far[np.triu_indices(len(far), 1)], "single")
    return merged[:, :2].astype(np.int64)


def _on_circle(angles: np.ndarray) -> np.ndarray:
    n = len(angles)
    order = np.argsort(angles, kind="stable")
    gaps = np.diff(angles[order], append=angles[order[0]] + 2 * np.pi)
    opened = int(np.argmax(gaps))
    order, gaps = np.roll(order, -opened - 1), np.roll(gaps, -opened - 1)[:-1]
    # Of runs of neighbours that are one node, at both ends: (other end, node).
    end, node = list(range(n)), order.tolist()
    merges = []
    for made, gap in enumerate(np.argsort(gaps, kind="stable").tolist(), start=n):
        first, last = end[gap], end[gap + 1]
        merges.append((node[gap], node[gap + 1]))
        end[first], end[last] = last, first
        node[first] = node[last] = made
    return np.array(merges, np.int64).reshape(-1, 2)


def on_circle(merges: np.ndarray) -> np.ndarray:
    """Angles [n] on the circle that `decode` gives this tree.

    The merge that leaves c clusters closes a gap in proportion to 1 / c, as in a
    balanced tree whose every level has the circle to itself.

    Args:
        merges: int [n - 1, 2], in the order of heights.
    """
    merges = check_merges(merges)
    order, _, stop = spans(merges)
    n = len(order)
    split = stop[merges[:, 0]]  # the gap a merge closes, by the place to its right
    gaps = np.empty(n)
    gaps[split - 1] = 1 / np.arange(n, 1, -1)
    gaps[n - 1] = 1
    angles = np.empty(n)
    angles[order] = np.concatenate([[0], np.cumsum(gaps)[:-1]]) * 2 * np.pi / gaps.sum()
    return angles
