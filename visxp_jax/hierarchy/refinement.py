"""Better trees from good ones: subtrees are moved while that lowers Dasgupta's cost.

Each subtree in turn is cut off and put where it costs least (subtree pruning and
regrafting, as in phylogenetics). What it would cost is known for all places at once:
going down from the root, a place is dearer than the one above by what the subtree adds
to the node between them, and such sums along paths are running sums over an Euler tour.
One subtree takes O(n d), a sweep over all of them O(n^2 d), and no n^2 memory.
"""

import math

import numpy as np

from visxp_jax.hierarchy.metrics import heights_of, unit_rows
from visxp_jax.hierarchy.tree import check_merges, sorted_by_height

# A move must lower the cost by this part: less is rounding.
LEAST_GAIN = 1e-12
# Prices that are held at once.
BLOCK = 2**15


def refine(
    merges: np.ndarray,
    x: np.ndarray,
    *,
    max_sweeps: int = 10,
    random_state: int | np.random.Generator | None = 0,
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
    x = unit_rows(x)
    return refine_groups(
        merges, np.ones(len(x)), x, max_sweeps=max_sweeps, random_state=random_state
    )


def refine_groups(
    merges: np.ndarray,
    sizes: np.ndarray,
    sums: np.ndarray,
    *,
    max_sweeps: int = 10,
    random_state: int | np.random.Generator | None = 0,
) -> np.ndarray:
    """The same for a tree whose leaves are groups of rows, which stay together.

    Args:
        merges: int [n - 1, 2].
        sizes: [n], of the groups.
        sums: [n, d], of their unit rows.
        max_sweeps: As in `refine`.
        random_state: As in `refine`.

    Returns:
        int64 [n - 1, 2], in the order of heights.
    """
    merges = check_merges(merges)
    if len(sums) != len(merges) + 1:
        raise ValueError(f"X must have {len(merges) + 1} rows, got {len(sums)}.")
    rng = np.random.default_rng(random_state)
    tree = _Tree(merges, sizes, sums)
    for _ in range(max_sweeps):
        # Priced side by side, and once more when their turn comes.
        moved = [tree.improve(node) for node in rng.permutation(tree.misplaced())]
        if not any(moved):
            break
    found = tree.merges()
    return sorted_by_height(found, heights_of(found, sizes, sums))[0]


class _Tree:
    """A tree whose subtrees can be moved; nodes keep their numbers.

    The tour enters a node before those below it and leaves it after them.
    """

    def __init__(self, merges: np.ndarray, sizes: np.ndarray, sums: np.ndarray) -> None:
        n = len(sums)
        nodes = 2 * n - 1
        self._n = n
        self._root = nodes - 1
        self._children = np.full((nodes, 2), -1)
        self._children[n:] = merges
        self._parent = np.full(nodes, -1)
        self._parent[merges] = n + np.arange(n - 1)[:, None]
        self._sibling = np.full(nodes, -1)
        self._sibling[merges] = merges[:, ::-1]
        self._size = np.ones(nodes)
        self._size[:n] = sizes
        self._sum = np.zeros((nodes, sums.shape[1]))
        self._sum[:n] = sums
        for node, (left, right) in enumerate(merges.tolist(), start=n):
            self._size[node] = self._size[left] + self._size[right]
            self._sum[node] = self._sum[left] + self._sum[right]
        self._between = np.zeros(nodes)  # similarity of a node's children
        self._meet(np.arange(n, nodes))
        self._tour = self._toured()
        self._index()

    def _meet(self, nodes: np.ndarray) -> None:
        a, b = self._children[nodes].T
        shared = np.einsum("id,id->i", self._sum[a], self._sum[b])
        self._between[nodes] = (self._size[a] * self._size[b] + shared) / 2

    def _toured(self) -> np.ndarray:
        """Nodes by turns as themselves, entered, and as ~node, left."""
        children, tour, todo = self._children.tolist(), [], [self._root]
        while todo:
            node = todo.pop()
            tour.append(node)
            if node >= 0:
                todo.append(~node)
                if node >= self._n:
                    todo += children[node]
        return np.array(tour)

    def _index(self) -> None:
        """When the tour enters and leaves each node."""
        at = np.empty(len(self._tour), np.int64)  # ~node counts from the end
        at[self._tour] = np.arange(len(self._tour))
        self._enter, self._leave = (
            at[: len(self._parent)],
            at[::-1][: len(self._parent)],
        )

    def _above(self, node: int) -> np.ndarray:
        """Ancestors, from the parent to the root."""
        path = []
        while (node := int(self._parent[node])) >= 0:
            path.append(node)
        return np.array(path, np.int64)

    def misplaced(self) -> np.ndarray:
        """Nodes that would cost less elsewhere."""
        nodes = np.delete(np.arange(len(self._parent)), self._root)
        blocks = np.array_split(nodes, math.ceil(len(nodes) * len(nodes) / BLOCK) or 1)
        return np.concatenate([part[self._gains(part)[0] > 0] for part in blocks])

    def improve(self, node: int) -> bool:
        """Move a subtree to where it costs least; whether it moved."""
        if node == self._root:
            return False
        (gain,), (to,) = self._gains(np.array([node]))
        if gain > 0:
            self._move(node, int(to))
        return bool(gain > 0)

    def _gains(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much less each would cost [b] beside which node [b]; 0 for rounding."""
        costs = self._costs(nodes)
        row = np.arange(len(nodes))
        best, stays = np.argmin(costs, axis=1), costs[row, self._sibling[nodes]]
        gain = stays - costs[row, best]
        return np.where(gain > LEAST_GAIN * np.abs(stays), gain, 0.0), best

    def _costs(self, nodes: np.ndarray) -> np.ndarray:
        """What the tree costs with a subtree beside each node, but for a constant.

        The tree without it lacks its parent too: the sibling takes that place.

        Args:
            nodes: int [b], subtrees, each by itself; not the root.

        Returns:
            [b, 2n - 1], infinite for the subtree's own nodes and its parent.
        """
        row, parent, sibling = np.arange(len(nodes)), self._parent, self._sibling
        enter, leave = self._enter[nodes, None], self._leave[nodes, None]
        above = (self._enter < enter) & (self._leave > leave)
        size = self._size[nodes, None]
        shared = self._sum[nodes] @ self._sum.T
        rest = self._size - above * size
        # Similarity of the subtree to the leaves below each node.
        near = (size * rest + shared - above * shared[row, nodes][:, None]) / 2
        beside = near[:, sibling]
        # On the way down to where the subtree is, nodes lose what it brought.
        lost = above * beside
        between = self._between - np.sum(lost[:, self._children], axis=2)
        down = size * between[:, parent] + (rest[:, parent] + size) * beside
        down[:, self._root] = 0.0
        down[row, sibling[nodes]] = 0.0
        tour = np.empty((len(nodes), len(self._tour)))
        tour[:, self._enter], tour[:, self._leave] = down, -down
        costs = np.cumsum(tour, axis=1)[:, self._enter] + (rest + size) * near
        costs[(self._enter >= enter) & (self._leave <= leave)] = np.inf
        costs[row, parent[nodes]] = np.inf
        return costs

    def _tour_of(self, node: int) -> np.ndarray:
        return self._tour[self._enter[node] : self._leave[node] + 1]

    def _move(self, node: int, to: int) -> None:
        """Cut a subtree and its parent off, and put them above `to`."""
        joint, beside = int(self._parent[node]), int(self._sibling[node])
        left = self._above(joint)
        self._size[left] -= self._size[node]
        self._sum[left] -= self._sum[node]
        self._replace(joint, beside)
        self._replace(to, joint)
        self._children[joint] = to, node
        self._parent[to] = joint
        self._sibling[[to, node]] = node, to
        self._size[joint] = self._size[to] + self._size[node]
        self._sum[joint] = self._sum[to] + self._sum[node]
        joined = self._above(joint)
        self._size[joined] += self._size[node]
        self._sum[joined] += self._sum[node]
        self._meet(np.concatenate([left, [joint], joined]))
        self._reroute(node, joint, to)

    def _replace(self, node: int, by: int) -> None:
        """Put `by` where `node` hangs."""
        parent, beside = self._parent[node], self._sibling[node]
        self._parent[by], self._sibling[by] = parent, beside
        if parent < 0:
            self._root = by
        else:
            self._sibling[beside] = by
            children = self._children[parent]
            children[children == node] = by

    def _reroute(self, node: int, joint: int, to: int) -> None:
        """The tour after a move."""
        moved = self._tour_of(node)
        kept = np.ones(len(self._tour), bool)
        kept[self._enter[node] : self._leave[node] + 1] = False
        kept[[self._enter[joint], self._leave[joint]]] = False
        at = np.cumsum(kept) - 1
        first, last = at[self._enter[to]], at[self._leave[to]] + 1
        rest = self._tour[kept]
        self._tour = np.concatenate(
            [rest[:first], [joint], rest[first:last], moved, [~joint], rest[last:]]
        )
        self._index()

    def merges(self) -> np.ndarray:
        """In an order in which children come before parents."""
        inner = np.arange(self._n, len(self._parent))
        order = inner[np.argsort(self._leave[inner])]
        name = np.arange(len(self._parent))
        name[order] = inner
        return name[self._children[order]]
