"""Cluster sizes, drawn and exact."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from visxp_jax.losses import (
    assign,
    assign_exactly,
    disagreement,
    equipartition,
    gaussian_cluster_mass,
)

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")


def test_gaussian_sizes_follow_the_order_of_the_claims():
    claims = jnp.array([0.3, 0.05, 0.4, 0.25])
    mass = gaussian_cluster_mass(jax.random.key(0), claims)
    np.testing.assert_array_equal(jnp.argsort(mass), jnp.argsort(claims))
    assert float(jnp.mean(mass)) == pytest.approx(1)


def test_gaussian_sizes_have_the_deviation_asked_for_and_are_positive():
    claims = jnp.arange(20_000.0)
    mass = gaussian_cluster_mass(jax.random.key(1), claims, deviation=0.1)
    assert float(jnp.std(mass)) == pytest.approx(0.1, rel=0.03)
    wide = gaussian_cluster_mass(jax.random.key(1), claims, deviation=2.0)
    assert float(jnp.min(wide)) > 0


def solved(log_probs, **settings):
    result = equipartition(log_probs, sharpness=10.0, **settings)
    return result.log_scale


@pytest.mark.parametrize(("n", "k"), [(96, 8), (100, 8), (7, 3), (5, 9), (4, 1)])
def test_sizes_are_equal_to_one_clip(n, k):
    lp = jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(n), (n, k)))
    labels = assign_exactly(lp, solved(lp), sharpness=10.0)
    counts = np.bincount(labels, minlength=k)
    assert counts.sum() == n
    assert set(counts) <= {n // k, -(-n // k)}


def test_labels_that_are_exact_already_stay():
    lp = jnp.log(jnp.eye(4)[jnp.arange(20) % 4] * 0.7 + 0.075)
    labels = assign_exactly(lp, jnp.zeros(4), sharpness=10.0)
    np.testing.assert_array_equal(labels, jnp.arange(20) % 4)


def test_value_is_near_the_best_of_all_exact_labels():
    lp = jax.nn.log_softmax(jnp.asarray(GOLDEN["sk/logits"], jnp.float32), axis=1)
    scale = equipartition(lp, sharpness=25.0).log_scale
    labels = assign_exactly(lp, scale, sharpness=25.0)
    value = float(jnp.mean(jnp.take_along_axis(lp, labels[:, None], axis=1)))
    best = float(GOLDEN["sk/exact_lp_value"])
    assert best - 0.01 < value <= best + 1e-5
    same = np.mean(np.asarray(labels) == GOLDEN["sk/exact_lp_labels"])
    assert same > 0.95


def test_only_clips_that_must_move_do():
    lp = jax.nn.log_softmax(jax.random.normal(jax.random.key(2), (500, 10)))
    scale = solved(lp)
    before = np.asarray(assign(lp, scale, sharpness=10.0))
    after = np.asarray(assign_exactly(lp, scale, sharpness=10.0))
    excess = np.maximum(np.bincount(before, minlength=10) - 50, 0).sum()
    assert 0 < excess == (before != after).sum()


def test_all_that_prefer_one_cluster_are_spread():
    lp = jnp.zeros((12, 3)).at[:, 0].set(5.0)
    lp = lp + 0.01 * jax.random.normal(jax.random.key(0), lp.shape)
    labels = assign_exactly(lp, jnp.zeros(3), sharpness=1.0)
    np.testing.assert_array_equal(np.bincount(labels), [4, 4, 4])


def test_unequal_sizes_and_rows_that_count_nowhere():
    lp = jax.random.normal(jax.random.key(0), (40, 3)).at[30:].set(jnp.nan)
    rows = (jnp.arange(40) < 30).astype(jnp.float32)
    mass = jnp.array([3.0, 2.0, 1.0])
    scale = solved(lp, row_mass=rows, cluster_mass=mass)
    labels = assign_exactly(lp, scale, sharpness=10.0, cluster_mass=mass, row_mass=rows)
    np.testing.assert_array_equal(np.bincount(labels[:30]), [15, 10, 5])


def test_forbidden_clusters_stay_so_and_nan_ends():
    lp = jnp.zeros((12, 2)).at[:, 0].set(1.0).at[:9, 1].set(-jnp.inf)
    labels = assign_exactly(lp, jnp.zeros(2), sharpness=1.0)
    np.testing.assert_array_equal(labels, [0] * 9 + [1] * 3)
    lp = jnp.full((12, 2), jnp.nan)
    assert assign_exactly(lp, jnp.zeros(2), sharpness=1.0).shape == (12,)


def test_disagreement_is_the_sum_over_clips_of_how_far_apart_both_are():
    rng = np.random.default_rng(0)
    a, b = rng.dirichlet(np.ones(4), (2, 30)).astype(np.float32)
    weight = rng.integers(0, 3, 30).astype(np.float32)
    found = disagreement(jnp.asarray(a), jnp.asarray(b), jnp.asarray(weight))
    for i in range(4):
        for j in range(4):
            expected = (weight * np.abs(a[:, i] - b[:, j])).sum()
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-5)


def test_numbering_of_least_disagreement_is_the_one_that_was_lost():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(6, 0.3), 200).astype(np.float32)
    order = rng.permutation(6)
    cost = disagreement(jnp.asarray(probs), jnp.asarray(probs[:, order]), jnp.ones(200))
    _, match = linear_sum_assignment(np.asarray(cost))
    np.testing.assert_array_equal(order[match], np.arange(6))
