"""Trees, their measures and their refinement against brute force and scipy."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, is_valid_linkage, linkage
from sklearn.metrics import adjusted_rand_score

from visxp_jax.hierarchy import (
    cut,
    dasgupta_cost,
    dendrogram_purity,
    heights,
    linkage_matrix,
    lowest_common_ancestors,
    refine,
)
from visxp_jax.hierarchy.metrics import unit_rows
from visxp_jax.hierarchy.refinement import _Tree
from visxp_jax.hierarchy.tree import (
    check_merges,
    grafted,
    sorted_by_height,
    spans,
    uppermost,
    with_top,
)
from visxp_jax.hierarchy.tree import random_tree as drawn_tree


def random_tree(n: int, seed: int = 0) -> np.ndarray:
    return drawn_tree(n, np.random.default_rng(seed))


def vectors(n: int, d: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def leaves(merges: np.ndarray) -> list[set[int]]:
    """Below every node."""
    below = [{i} for i in range(len(merges) + 1)]
    for left, right in merges:
        below.append(below[left] | below[right])
    return below


def least_common(merges: np.ndarray, i: int, j: int) -> set[int]:
    return next(s for s in leaves(merges)[len(merges) + 1 :] if {i, j} <= s)


def test_spans_hold_the_leaves_of_every_node():
    merges = random_tree(30)
    order, start, stop = spans(merges)
    for node, below in enumerate(leaves(merges)):
        assert set(order[start[node] : stop[node]].tolist()) == below


@pytest.mark.parametrize(
    ("merges", "line"),
    [
        (np.zeros((2, 2)), "integers"),
        (np.zeros(4, int), "integers"),
        (np.array([[0, 1], [2, 2]]), "exactly once"),
        (np.array([[0, 4], [1, 3], [2, 5]]), "exactly once|earlier row"),
        (np.array([[0, 3], [1, 2]]), "earlier row"),
    ],
)
def test_what_is_no_tree_is_refused(merges, line):
    with pytest.raises(ValueError, match=line):
        check_merges(merges)


@pytest.mark.parametrize("method", ["average", "single", "ward"])
def test_linkage_and_cuts_are_those_of_scipy(method):
    x = vectors(40)
    z = linkage(x, method)
    merges = z[:, :2].astype(int)
    np.testing.assert_allclose(linkage_matrix(merges, z[:, 2]), z)
    for clusters in (1, 2, 7, 40):
        found = cut(merges, clusters)
        assert len(np.unique(found)) == clusters
        assert adjusted_rand_score(found, fcluster(z, clusters, "maxclust")) == 1
        firsts = [np.flatnonzero(found == i)[0] for i in range(clusters)]
        assert firsts == sorted(firsts)


def test_rows_out_of_order_are_sorted_and_low_parents_raised():
    merges = np.array([[0, 1], [2, 3], [4, 6], [5, 7]])
    made, high = sorted_by_height(merges, np.array([3.0, 1.0, 0.5, 2.0]))
    np.testing.assert_array_equal(made, [[2, 3], [4, 5], [0, 1], [6, 7]])
    np.testing.assert_array_equal(high, [1.0, 1.0, 3.0, 3.0])
    lower = sorted_by_height(merges, np.array([3.0, 1.0, 0.5, 2.0]) - 9)
    np.testing.assert_array_equal(lower[1], high - 9)
    with pytest.raises(ValueError, match="finite"):
        linkage_matrix(merges, np.array([0.0, 1.0, 2.0, np.nan]))
    z = linkage_matrix(random_tree(50), np.random.default_rng(0).uniform(size=49))
    assert is_valid_linkage(z)
    assert (np.diff(z[:, 2]) >= 0).all()


@pytest.mark.parametrize("clusters", [0, 41])
def test_cuts_into_clusters_that_cannot_be_are_refused(clusters):
    with pytest.raises(ValueError, match="from 1 to the 40 rows"):
        cut(random_tree(40), clusters)


@pytest.mark.parametrize("d", [3, 150])
def test_cost_is_the_sum_over_pairs(d):
    merges, x = random_tree(20), vectors(20, d)
    similarity = (1 + unit_rows(x) @ unit_rows(x).T) / 2
    expected = sum(
        similarity[i, j] * len(least_common(merges, i, j))
        for i, j in itertools.combinations(range(20), 2)
    )
    assert dasgupta_cost(merges, x) == pytest.approx(expected, rel=1e-12)
    assert dasgupta_cost(merges, 7 * x) == pytest.approx(expected, rel=1e-12)


def test_purity_is_the_mean_over_pairs_of_a_class():
    merges, labels = random_tree(25), np.random.default_rng(0).choice(list("abc"), 25)
    shares = []
    for i, j in itertools.combinations(range(25), 2):
        if labels[i] == labels[j]:
            below = list(least_common(merges, i, j))
            shares.append(np.mean(labels[below] == labels[i]))
    assert dendrogram_purity(merges, labels) == pytest.approx(np.mean(shares))
    assert np.isnan(dendrogram_purity(merges, np.arange(25)))
    pure = linkage(np.array([[0.0], [0.1], [5.0], [5.1]]))[:, :2].astype(int)
    assert dendrogram_purity(pure, [0, 0, 1, 1]) == 1


def test_purity_of_many_classes_is_that_of_counting_them_all():
    merges, labels = random_tree(400, 1), np.random.default_rng(1).integers(0, 150, 400)
    total, pairs, everything = 0.0, 0.0, leaves(merges)
    for node, (left, right) in zip(everything[400:], merges, strict=True):
        below = [
            np.bincount(labels[list(part)], minlength=150)
            for part in (everything[left], everything[right], node)
        ]
        met = below[0] * below[1]
        total += np.sum(met * below[2]) / len(node)
        pairs += met.sum()
    assert dendrogram_purity(merges, labels) == pytest.approx(total / pairs, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 33])
def test_lowest_common_ancestors_are_the_first_nodes_with_both(n):
    merges = random_tree(n, n)
    i, j = np.indices((n, n))
    found, below = lowest_common_ancestors(merges, i, j), leaves(merges)
    for a, b in itertools.product(range(n), repeat=2):
        if a == b:
            assert found[a, b] == a
        else:
            assert below[found[a, b]] == least_common(merges, a, b)


@pytest.mark.parametrize("bad", [-1, 3])
def test_ancestors_are_of_leaves(bad):
    with pytest.raises(ValueError, match="must be leaves, from 0 to 2"):
        lowest_common_ancestors(np.array([[0, 1], [2, 3]]), np.array([0]), [bad])


@pytest.mark.parametrize("clusters", [1, 6, 30])
def test_a_top_taken_off_and_put_back_is_the_tree(clusters):
    x = vectors(30)
    merges = linkage(x, "average")[:, :2].astype(np.int64)
    labels, nodes, top = uppermost(merges, clusters)
    np.testing.assert_array_equal(with_top(merges, nodes, top), merges)
    below = leaves(merges)
    for number, node in enumerate(nodes):
        assert set(np.flatnonzero(labels == number)) == below[node]


def test_grafts_hold_the_leaves_of_their_parts():
    parts = [np.array([4, 0, 2]), np.array([1]), np.array([3, 5])]
    trees = [random_tree(3), random_tree(1), random_tree(2)]
    merges = grafted(np.array([[1, 2], [0, 3]]), parts, trees)
    below = leaves(check_merges(merges))
    assert {0, 2, 4} in below
    assert {3, 5} in below
    assert {1, 3, 5} in below


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (np.zeros((3, 2)), "not 0.*3 are not, the first is row 0"),
        (np.array([[1.0], [np.nan]]), "1 are not, the first is row 1"),
        (np.ones(3), "matrix"),
    ],
)
def test_rows_without_a_direction_are_refused(x, line):
    with pytest.raises(ValueError, match=line):
        unit_rows(x)


@pytest.mark.parametrize("seed", range(3))
def test_costs_of_all_places_are_those_of_the_trees(seed):
    merges, x = random_tree(9, seed), unit_rows(vectors(9, seed=seed))
    before, below = dasgupta_cost(merges, x), leaves(merges)
    for node in range(16):
        tree = _Tree(merges, np.ones(len(x)), x)
        (costs,) = tree._costs(np.array([node]))
        stays = costs[tree._sibling[node]]
        places = np.flatnonzero(np.isfinite(costs))
        # All but the subtree's own nodes and the node that moves along with it.
        assert len(places) == 17 - (2 * len(below[node]) - 1) - 1
        for to in places.tolist():
            tree = _Tree(merges, np.ones(len(x)), x)
            tree._move(node, to)
            after = leaves(tree.merges())
            assert below[node] in after
            assert (below[to] - below[node]) | below[node] in after
            change = dasgupta_cost(tree.merges(), x) - before
            assert costs[to] - stays == pytest.approx(change, abs=1e-9)


def all_trees(leaves: tuple) -> list:
    """Nested pairs, by putting the last leaf beside every node of smaller trees."""
    if len(leaves) == 1:
        return [leaves[0]]

    def beside(tree, leaf):
        yield (tree, leaf)
        if isinstance(tree, tuple):
            for part in beside(tree[0], leaf):
                yield (part, tree[1])
            for part in beside(tree[1], leaf):
                yield (tree[0], part)

    return [t for tree in all_trees(leaves[:-1]) for t in beside(tree, leaves[-1])]


def merges_of(tree, n: int) -> np.ndarray:
    merges: list[list[int]] = []

    def node(tree):
        if not isinstance(tree, tuple):
            return tree
        merges.append([node(part) for part in tree])
        return n + len(merges) - 1

    node(tree)
    return np.array(merges)


def test_refined_trees_of_6_leaves_are_the_best_of_all_945():
    trees = [merges_of(tree, 6) for tree in all_trees(tuple(range(6)))]
    assert len(trees) == 945
    for seed in range(4):
        x = vectors(6, 3, seed)
        best = min(dasgupta_cost(tree, x) for tree in trees)
        found = [
            dasgupta_cost(refine(random_tree(6, i), x, random_state=i), x)
            for i in range(6)
        ]
        assert min(found) == pytest.approx(best, rel=1e-9)


def test_refining_lowers_the_cost_until_nothing_does():
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((8, 16))
    x = centre[np.arange(120) % 8] + 0.7 * rng.standard_normal((120, 16))
    start = linkage(x, "average", metric="cosine")[:, :2].astype(int)
    found = refine(start, x, random_state=1)
    check_merges(found)
    assert dasgupta_cost(found, x) < dasgupta_cost(start, x)
    again = refine(found, x, random_state=2)
    assert dasgupta_cost(again, x) == pytest.approx(dasgupta_cost(found, x), rel=1e-9)
    np.testing.assert_array_equal(refine(start, x, random_state=1), found)
    random = refine(random_tree(120), x)
    assert dasgupta_cost(random, x) < 1.002 * dasgupta_cost(found, x)


def test_refined_trees_can_be_cut():
    group = np.arange(60) % 5
    x = 5 * np.eye(8)[group] + 0.3 * vectors(60, 8)
    start = linkage(x, "average", metric="cosine")[:, :2].astype(int)
    found = refine(start, x)
    assert adjusted_rand_score(cut(found, 5), group) == 1
    z = linkage_matrix(found, heights(found, x))
    np.testing.assert_array_equal(z[:, :2], found)
    assert adjusted_rand_score(fcluster(z, 5, "maxclust"), group) == 1


def test_heights_are_mean_dissimilarities_as_of_average_linkage():
    x = vectors(30, 6)
    z = linkage(x, "average", metric="cosine")
    found = heights(z[:, :2].astype(int), x)
    np.testing.assert_allclose(found, z[:, 2] / 2, rtol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_smallest_trees(n):
    merges, x = random_tree(n), vectors(n)
    assert refine(merges, x).shape == (n - 1, 2)
    assert cut(merges, n).tolist() == list(range(n))
    assert dasgupta_cost(merges, x) >= 0
