"""Better trees from good ones: subtrees are moved while that lowers Dasgupta's cost.

Each subtree in turn is cut off and put where it costs least (subtree pruning and
regrafting, as in phylogenetics). What it would cost is known for all places at once:
going down from the root, a place is dearer than the one above by what the subtree adds
to the node between them, and such sums along paths are running sums over an Euler tour.
One subtree takes O(n d), a sweep over all of them O(n^2 d), and no n^2 memory.
"""

import numpy as np

from visxp_jax.hierarchy.metrics import heights, unit_rows
from visxp_jax.hierarchy.tree import check_merges, sorted_by_height

# A move must lower the cost by this part: less is rounding.
LEAST_GAIN = 1e-12


def refine(
    merges: np.ndarray,
    x: np.ndarray,
    *,
    max_sweeps: int = 20,
    random_state: int | np.random.Generator = 0,
) -> np.ndarray:
    """A tree of no higher Dasgupta cost, often a far lower one.

    Args:
        merges: int [n - 1, 2], the tree to begin with.
        x: [n, d]; similarity is (1 + cosine) / 2.
        max_sweeps: Largest number of rounds in which every subtree is tried.
        random_state: Of the order in which they are.

    Returns:
        int64 [n - 1, 2], in the order of `heights`.

    Raises:
        ValueError: see `unit_rows` and `check_merges`.
    """
    merges, x = check_merges(merges), unit_rows(x)
    if len(x) != len(merges) + 1:
        raise ValueError(f"X must have {len(merges) + 1} rows, got {len(x)}.")
    rng = np.random.default_rng(random_state)
    tree = _Tree(merges, x)
    for _ in range(max_sweeps):
        moved = [tree.improve(node) for node in rng.permutation(2 * len(x) - 1)]
        if not any(moved):
            break
    found = tree.merges()
    return sorted_by_height(found, heights(found, x))[0]


class _Tree:
    """A tree whose subtrees can be moved; nodes keep their numbers."""

    def __init__(self, merges: np.ndarray, x: np.ndarray) -> None:
        n, nodes = len(x), 2 * len(x) - 1
        self._n = n
        self._root = nodes - 1
        self._children = np.full((nodes, 2), -1)
        self._children[n:] = merges
        self._parent = np.full(nodes, -1)
        self._parent[merges] = n + np.arange(n - 1)[:, None]
        self._size = np.ones(nodes)
        self._sum = np.zeros((nodes, x.shape[1]))
        self._sum[:n] = x
        for node, (left, right) in enumerate(merges.tolist(), start=n):
            self._size[node] = self._size[left] + self._size[right]
            self._sum[node] = self._sum[left] + self._sum[right]
        self._toured()

    def _toured(self) -> None:
        """Siblings, similarities between children, and an Euler tour, made anew."""
        left, right = self._children[self._n :].T
        self._sibling = np.full(len(self._parent), -1)
        self._sibling[left], self._sibling[right] = right, left
        self._between = np.zeros(len(self._parent))
        self._between[self._n :] = self._similarity(left, right)
        children = self._children.tolist()
        enter, leave = [0] * len(children), [0] * len(children)
        clock, todo = 0, [self._root]
        while todo:
            node = todo.pop()
            if node < 0:
                leave[~node] = clock
            else:
                enter[node] = clock
                todo.append(~node)
                if node >= self._n:
                    todo += children[node]
            clock += 1
        self._enter, self._leave = np.array(enter), np.array(leave)

    def _similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Sum over pairs of leaves below one and the other."""
        shared = np.einsum("id,id->i", self._sum[a], self._sum[b])
        return (self._size[a] * self._size[b] + shared) / 2

    def _above(self, node: int) -> list[int]:
        path = []
        while (node := int(self._parent[node])) >= 0:
            path.append(node)
        return path

    def improve(self, node: int) -> bool:
        """Move a subtree to where it costs least; whether it moved."""
        if node == self._root:
            return False
        joint, *above = self._above(node)
        costs = self._costs(node, joint, above)
        beside = int(self._sibling[node])
        best = int(np.argmin(costs))
        if costs[beside] - costs[best] <= LEAST_GAIN * abs(costs[beside]):
            return False
        self._move(node, joint, beside, best)
        return True

    def _costs(self, node: int, joint: int, above: list[int]) -> np.ndarray:
        """What the tree costs with the subtree beside each node, but for a constant.

        The tree without it lacks `joint` too: the sibling takes that place.
        """
        size, total = self._size[node], self._sum[node]
        shared = self._sum @ total
        rest = self._size.copy()
        rest[[joint, *above]] -= size
        shared[[joint, *above]] -= total @ total
        near = (size * rest + shared) / 2  # similarity to the leaves below each node
        between = self._between.copy()
        below = [joint, *above[:-1]]  # on the way down to the subtree
        between[above] -= near[self._sibling[below]]
        parent = self._parent
        down = size * between[parent] + (rest[parent] + size) * near[self._sibling]
        down[self._root] = 0.0
        down[self._sibling[node]] = 0.0
        tour = np.zeros(2 * len(parent))
        tour[self._enter], tour[self._leave] = down, -down
        costs = np.cumsum(tour)[self._enter] + (rest + size) * near
        costs[
            (self._enter >= self._enter[node]) & (self._leave <= self._leave[node])
        ] = np.inf
        costs[joint] = np.inf
        return costs

    def _move(self, node: int, joint: int, beside: int, to: int) -> None:
        """Cut `node` and `joint` off, and put them above `to`."""
        self._add_above(joint, -self._size[node], -self._sum[node])
        self._replace(joint, beside)
        self._replace(to, joint)
        self._children[joint] = to, node
        self._parent[to] = joint
        self._size[joint] = self._size[to] + self._size[node]
        self._sum[joint] = self._sum[to] + self._sum[node]
        self._add_above(joint, self._size[node], self._sum[node])
        self._toured()

    def _replace(self, node: int, by: int) -> None:
        parent = self._parent[node]
        self._parent[by] = parent
        if parent < 0:
            self._root = by
        else:
            children = self._children[parent]
            children[children == node] = by

    def _add_above(self, node: int, size: float, total: np.ndarray) -> None:
        above = self._above(node)
        self._size[above] += size
        self._sum[above] += total

    def merges(self) -> np.ndarray:
        """In an order in which children come before parents."""
        inner = np.arange(self._n, len(self._parent))
        order = inner[np.argsort(self._leave[inner])]
        name = np.arange(len(self._parent))
        name[order] = inner
        return name[self._children[order]]
