"""Equipartition against the Sinkhorn iteration of OTT-JAX, a second implementation.

Both are float32. OTT stops where the masses of the clusters are off by 1e-6 in all,
which leaves its potentials some 1e-5 times the sharpness from their limit.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.losses import assign, equipartition, transport_plan

with warnings.catch_warnings():
    # JAXopt, of which OTT takes a solver that is not used here, says so when imported.
    warnings.filterwarnings(
        "ignore", "JAXopt is no longer maintained", DeprecationWarning, r"jaxopt\Z"
    )
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")

# Times the sharpness: relative of the plan, absolute of the log scales. 1e-5 was seen.
TOLERANCE = 3e-5

# One function for all tests: it is compiled once for a shape.
SINKHORN = jax.jit(Sinkhorn(threshold=1e-6, max_iterations=5000))


class Solution(NamedTuple):
    """Of either implementation."""

    plan: np.ndarray  # [n, k]
    labels: np.ndarray  # [n]
    log_scale: np.ndarray  # [k], mean 0


def ours(log_probs, sharpness, row_mass=None, cluster_mass=None) -> Solution:
    result = equipartition(
        log_probs,
        sharpness=sharpness,
        row_mass=row_mass,
        cluster_mass=cluster_mass,
        tol=2e-6,
    )
    assert bool(result.converged)
    plan = transport_plan(
        log_probs, result.log_scale, sharpness=sharpness, row_mass=row_mass
    )
    labels = assign(log_probs, result.log_scale, sharpness=sharpness)
    return Solution(*map(np.asarray, (plan, labels, result.log_scale)))


def otts(cost, epsilon, row_mass=None, cluster_mass=None) -> Solution:
    n, k = cost.shape
    a = jnp.ones(n) if row_mass is None else row_mass
    b = jnp.ones(k) if cluster_mass is None else cluster_mass
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        geometry = Geometry(cost_matrix=cost, epsilon=epsilon)
        out = SINKHORN(LinearProblem(geometry, a / jnp.sum(a), b / jnp.sum(b)))
        assert bool(out.converged)
        plan, potential = np.asarray(out.matrix), np.asarray(out.g)
    log_scale = (potential - potential.mean()) / epsilon
    return Solution(plan, plan.argmax(axis=1), log_scale)


def assert_same(found: Solution, expected: Solution, sharpness, rows=slice(None)):
    tol = TOLERANCE * sharpness
    # What is below 1e-30 may have been flushed to zero on its way.
    np.testing.assert_allclose(found.plan, expected.plan, rtol=tol, atol=1e-30)
    np.testing.assert_array_equal(found.labels[rows], expected.labels[rows])
    np.testing.assert_allclose(found.log_scale, expected.log_scale, rtol=0, atol=tol)


def log_probs(n: int, k: int, seed: int = 0) -> jax.Array:
    """The golden ones of 96 rows and 8 clusters, random ones of any other shape."""
    golden = (n, k) == GOLDEN["sk/logits"].shape
    rng = np.random.default_rng(seed)
    logits = GOLDEN["sk/logits"] if golden else rng.normal(size=(n, k))
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32), axis=1)


def unequal(size: int, least: float, seed: int) -> jax.Array:
    mass = np.random.default_rng(seed).uniform(least, 1, size)
    return jnp.asarray(mass, jnp.float32)


SHAPES = pytest.mark.parametrize(("n", "k"), [(96, 8), (300, 17)])
SHARPNESS = pytest.mark.parametrize("sharpness", [1.0, 10.0, 25.0])


@SHAPES
@SHARPNESS
def test_equal_masses_have_the_plan_labels_and_scales_of_ott(n, k, sharpness):
    lp = log_probs(n, k)
    assert_same(ours(lp, sharpness), otts(-lp, 1 / sharpness), sharpness)


@SHAPES
@SHARPNESS
def test_unequal_masses_of_rows_and_clusters_have_the_plan_of_ott(n, k, sharpness):
    lp = log_probs(n, k)
    masses = unequal(n, 0.1, seed=1), unequal(k, 0.3, seed=2)
    found = ours(lp, sharpness, *masses)
    assert_same(found, otts(-lp, 1 / sharpness, *masses), sharpness)


@SHARPNESS
def test_rows_without_mass_change_nothing_in_either(sharpness):
    """To OTT they are rows of marginal 0, to us they may even be NaN."""
    lp = log_probs(300, 17)
    rows = unequal(300, 0.1, seed=1).at[::7].set(0.0)
    expected = otts(-lp, 1 / sharpness, rows)
    found = ours(lp.at[::7].set(jnp.nan), sharpness, rows)
    assert_same(found, expected, sharpness, rows=np.asarray(rows) > 0)


@SHAPES
def test_mean_of_two_modalities_has_the_plan_of_ott_at_the_sum_of_their_costs(n, k):
    """Half of the sum is a half of the cost: the same plan at twice the epsilon."""
    audio, video = log_probs(n, k), log_probs(n + 1, k, seed=3)[:n]
    found = ours((audio + video) / 2, 20.0)
    assert_same(found, otts(-(audio + video), 2 / 20.0), 20.0)


@SHAPES
def test_logits_have_the_plan_of_ott_at_log_probabilities(n, k):
    lp = log_probs(n, k)
    shift = 3 * unequal(n, -1.0, seed=4)[:, None]
    assert_same(ours(lp + shift, 10.0), otts(-lp, 1 / 10.0), 10.0)
