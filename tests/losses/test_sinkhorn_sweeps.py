"""Logits on which equipartition could take long, or never end."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.scores import masses, sure_of_itself
from visxp_jax.losses import (
    assign,
    equipartition,
)


def sinkhorn_sweeps(logits, sharpness, *, most: int, tol: float = 1e-4) -> int:
    """Of the published iteration, in float64 and by logarithms."""
    k, log_scale = logits.shape[1], np.zeros(logits.shape[1])
    for sweep in range(most):
        mass = masses(logits, log_scale, sharpness)
        if np.abs(mass * k - 1).max() <= tol:
            return sweep
        log_scale = log_scale - np.log(np.maximum(mass * k, 1e-300))
    return most


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 25.0])
def test_logits_on_which_sinkhorn_takes_thousands_of_sweeps_take_tens(sharpness):
    logits = sure_of_itself(6000, 24)
    result = equipartition(jnp.asarray(logits), sharpness=sharpness)
    assert bool(result.converged)
    assert int(result.iterations) <= 40
    found = masses(logits, result.log_scale, sharpness)
    np.testing.assert_allclose(found * 24, 1, atol=2e-4)
    if sharpness > 1:
        assert sinkhorn_sweeps(logits, sharpness, most=500) == 500


@pytest.mark.parametrize("seed", range(4))
def test_few_rows_that_are_all_but_decided_are_balanced_to_a_part_of_one(seed):
    """One row is 2 % of a cluster: some must be shared out between clusters."""
    logits = sure_of_itself(997, 20, seed)
    result = equipartition(jnp.asarray(logits), sharpness=25.0)
    assert bool(result.converged)
    # 5 to 100 were seen: rounding decides. Sinkhorn takes thousands.
    assert int(result.iterations) <= 300
    labels = assign(jnp.asarray(logits), result.log_scale, sharpness=25.0)
    counts = np.bincount(labels, minlength=20)
    assert counts.min() >= 48
    assert counts.max() <= 52


def test_sample_of_the_rows_is_a_help_not_the_answer():
    """Sorted by cluster, and more of them than the sample holds."""
    logits = sure_of_itself(20_000, 12)
    logits = logits[np.argsort(logits.argmax(axis=1), kind="stable")]
    result = equipartition(jnp.asarray(logits), sharpness=5.0, tol=1e-5)
    found = masses(logits, result.log_scale, 5.0)
    np.testing.assert_allclose(found * 12, 1, atol=3e-5)


def test_earlier_result_is_a_good_beginning():
    logits = jnp.asarray(sure_of_itself(3000, 12))
    first = equipartition(logits, sharpness=10.0)
    again = equipartition(logits, sharpness=10.0, log_scale=first.log_scale)
    assert int(again.iterations) <= 2
    np.testing.assert_allclose(again.log_scale, first.log_scale, atol=1e-2)


@pytest.mark.parametrize("far", [5.0, 50.0, 500.0])
def test_bad_beginning_does_no_harm(far):
    logits = jnp.asarray(sure_of_itself(3000, 12))
    start = far * jax.random.normal(jax.random.key(0), (12,))
    bad = equipartition(logits, sharpness=10.0, log_scale=start, tol=1e-5)
    good = equipartition(logits, sharpness=10.0, tol=1e-5)
    assert bool(bad.converged)
    np.testing.assert_allclose(bad.log_scale, good.log_scale, atol=2e-3)


def test_rows_of_which_few_weigh_most_are_balanced_though_no_sample_is_like_them():
    """With one Hessian of a sample for good, this did not end in 500 sweeps."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((10_000, 128)).astype(np.float32)
    weight = (rng.exponential(size=10_000) ** 3).astype(np.float32)
    result = equipartition(
        jnp.asarray(logits), sharpness=25.0, row_mass=jnp.asarray(weight)
    )
    assert bool(result.converged)
    found = masses(logits, result.log_scale, 25.0, weight)
    np.testing.assert_allclose(found * 128, 1, atol=2e-4)


@pytest.mark.parametrize("scale", [2, 3])
def test_rows_that_do_not_divide_among_clusters_sure_as_they_are(scale):
    """Turns of 20 sweeps led nowhere again and again for one in ten to twenty."""
    logits = jnp.stack([jnp.asarray(sure_of_itself(97, 8, i)) for i in range(12)])
    solve = partial(equipartition, sharpness=25.0)
    results = [solve(scale * x) for x in logits]
    assert sum(bool(r.converged) for r in results) >= 11
    assert np.median([int(r.iterations) for r in results]) <= 40


@pytest.mark.parametrize("real", [3, 10])
def test_a_handful_of_rows_with_mass_among_many_without(real):
    rng = np.random.default_rng(real)
    logits = np.full((50_000, 8), np.nan, np.float32)
    mass = np.zeros(50_000, np.float32)
    at = rng.choice(50_000, real, replace=False)
    logits[at], mass[at] = rng.standard_normal((real, 8)), 1
    result = equipartition(
        jnp.asarray(logits), sharpness=5.0, row_mass=jnp.asarray(mass)
    )
    assert bool(result.converged)
    found = masses(logits[at], result.log_scale, 5.0)
    np.testing.assert_allclose(found * 8, 1, atol=2e-4)


@pytest.mark.parametrize("gap", [420.0, 1000.0])
def test_a_cluster_that_nobody_likes_gets_its_share(gap):
    logits = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    logits[:, 3] -= gap
    result = equipartition(jnp.asarray(logits), sharpness=25.0)
    assert bool(result.converged)
