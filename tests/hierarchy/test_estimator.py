"""The front for any feature matrix: trees of few and many rows, exports, refusals."""

import importlib
import json
import re

import numpy as np
import pytest
from scipy.cluster.hierarchy import is_valid_linkage, linkage
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from visxp_jax.hierarchy import (
    HyperbolicHierarchy,
    build,
    dasgupta_cost,
    newick,
    tree_json,
)
from visxp_jax.hierarchy.decode import decode
from visxp_jax.hierarchy.tree import check_merges, linkage_matrix, random_tree

BUILD = importlib.import_module("visxp_jax.hierarchy.construction")


def clustered(n: int, kinds: int = 6, noise: float = 0.4, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, kinds, n)
    centre = rng.standard_normal((kinds, 8))
    return centre[labels] + noise * rng.standard_normal((n, 8)), labels


def sets(merges: np.ndarray) -> set[frozenset]:
    below = [frozenset([i]) for i in range(len(merges) + 1)]
    for left, right in merges:
        below.append(below[left] | below[right])
    return set(below)


def average(x: np.ndarray) -> np.ndarray:
    return linkage(x, "average", metric="cosine")[:, :2].astype(np.int64)


def test_attributes_are_those_of_one_tree():
    x, kinds = clustered(150)
    model = HyperbolicHierarchy(n_clusters=6).fit(x)
    merges = model.linkage_[:, :2].astype(np.int64)
    assert is_valid_linkage(model.linkage_)
    assert adjusted_rand_score(model.labels_, kinds) > 0.95
    assert dasgupta_cost(merges, x) <= dasgupta_cost(average(x), x)
    assert (np.linalg.norm(model.embedding_, axis=1) < 1).all()
    assert sets(decode(model.embedding_)) == sets(merges)


def test_the_number_of_clusters_is_found_where_merges_rise():
    x, kinds = clustered(200, kinds=5, noise=0.1)
    model = HyperbolicHierarchy().fit(x)
    assert model.n_clusters_ == 5
    assert adjusted_rand_score(model.labels_, kinds) == 1


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_rows(n):
    model = HyperbolicHierarchy().fit(np.eye(n))
    assert model.linkage_.shape == (n - 1, 4)
    assert len(model.labels_) == n
    assert np.isfinite(model.embedding_).all()


def test_it_behaves_as_scikit_learn_wants():
    x, _ = clustered(40)
    model = clone(HyperbolicHierarchy(n_clusters=3, random_state=1))
    np.testing.assert_array_equal(model.fit_predict(x.tolist()), model.labels_)
    assert model.get_params()["n_clusters"] == 3


def test_it_passes_scikit_learns_own_checks():
    check_estimator(
        HyperbolicHierarchy(),
        expected_failed_checks={"check_estimators_dtypes": "has a row of 0"},
        on_skip=None,
    )


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_rows_that_nearly_coincide_give_what_scipy_takes(noise):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(20, 5)), 10, axis=0)
    model = HyperbolicHierarchy().fit(x * (1 + noise * rng.normal(size=x.shape)))
    assert is_valid_linkage(model.linkage_)
    assert ":-" not in model.newick()


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_rows_of_any_length_are_taken(scale):
    x, _ = clustered(40)
    expected = HyperbolicHierarchy().fit(x).linkage_
    found = HyperbolicHierarchy().fit(x * scale).linkage_
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_wide_rows_have_the_tree_of_their_products():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 500))
    root = np.linalg.cholesky(x @ x.T)
    np.testing.assert_array_equal(build(x), build(root))


@pytest.mark.parametrize(
    ("x", "options", "line"),
    [
        (np.ones((1, 3)), {}, "minimum of 2"),
        (np.array([[1.0, np.nan], [1, 2]]), {}, "NaN"),
        (np.array([[1.0, 0.0], [0, 0]]), {}, "not 0"),
        (np.eye(4), {"n_clusters": 5}, "from 1 to the 4 rows"),
        (np.eye(4), {"n_clusters": 2.5}, "whole number from 1"),
        (np.eye(4), {"n_clusters": True}, "whole number from 1"),
        (np.eye(4), {"n_clusters": "auto"}, "n_clusters must be None or"),
    ],
)
def test_what_has_no_tree_is_refused(x, options, line):
    with pytest.raises(ValueError, match=line):
        HyperbolicHierarchy(**options).fit(x)


@pytest.fixture
def few_at_once(monkeypatch):
    """Trees of more than 60 rows are made of groups."""
    monkeypatch.setattr(BUILD, "DIRECT", 60)


@pytest.mark.usefixtures("few_at_once")
def test_trees_of_groups_are_near_those_made_at_once():
    x, _ = clustered(500, kinds=12, noise=0.6)
    merges = check_merges(build(x))
    lost = dasgupta_cost(random_tree(500, np.random.default_rng(0)), x)
    gain = (lost - dasgupta_cost(merges, x)) / (lost - dasgupta_cost(average(x), x))
    assert gain > 0.999
    np.testing.assert_array_equal(build(x, n_jobs=2), merges)


@pytest.mark.usefixtures("few_at_once")
def test_rows_that_coincide_have_a_tree():
    x = np.concatenate([np.ones((300, 4)), np.eye(4)[np.arange(100) % 4]])
    assert len(check_merges(build(x))) == 399


def test_large_groups_are_cut_into_halves_that_lie_apart():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(70, 3)), rng.normal(size=(50, 3)) + 9])
    found = BUILD._halved(x, np.zeros(120, np.int64), 60)
    assert np.bincount(found).tolist() == [60, 60]
    assert len(set(found[70:])) == 1
    equal = BUILD._halved(np.ones((100, 3)), np.repeat([0, 1], [90, 10]), 25)
    assert np.bincount(equal).max() <= 25
    assert len(set(equal[90:])) == 1


def test_newick_says_the_tree():
    merges, high = np.array([[0, 2], [1, 3]]), np.array([0.25, 1.0])
    text = newick(merges, high, ["a", "it's (b), c;", "d"])
    assert text == "('it''s (b), c;':1,('a':0.25,'d':0.25):0.75);"
    with pytest.raises(ValueError, match="names must be of the 3 leaves, got 2"):
        newick(merges, high, ["a", "b"])


@pytest.mark.parametrize("write", [newick, tree_json, linkage_matrix])
@pytest.mark.parametrize("high", [[1.0], [0.5, np.nan], [[0.5], [1.0]]])
def test_heights_must_fit_their_tree(write, high):
    with pytest.raises(ValueError, match="heights must be 2 finite numbers"):
        write(np.array([[0, 1], [2, 3]]), np.array(high))


def test_newick_has_no_branch_below_0():
    with pytest.raises(ValueError, match="heights must not be below"):
        newick(np.array([[0, 1], [2, 3]]), np.array([1.0, 0.5]))


def test_deep_trees_are_exported():
    n = 20_000
    merges = np.stack([np.r_[0, n + np.arange(n - 2)], np.arange(1, n)], axis=1)
    high = np.arange(1.0, n)
    assert newick(merges, high).count("(") == n - 1
    found = json.loads(tree_json(merges, high))
    assert found["merges"] == merges.tolist()
    assert found["sizes"] == list(range(2, n + 1))
    assert found["heights"] == high.tolist()


def test_the_estimator_exports_names():
    x, _ = clustered(5)
    model = HyperbolicHierarchy().fit(x)
    names = [f"clip {i}" for i in range(5)]
    assert sorted(re.findall("clip [0-4]", model.newick(names))) == names
    assert json.loads(model.to_json(names))["names"] == names
