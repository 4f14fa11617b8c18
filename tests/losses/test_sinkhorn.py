"""Equipartition against float64 golden values, the linear programme, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.scores import GOLDEN, log_probs, masses, sure_of_itself
from visxp_jax.losses import (
    assign,
    equipartition,
    equipartition_in_blocks,
    transport_plan,
)


@pytest.mark.parametrize("sharpness", [1, 10, 25])
def test_equipartition_equals_float64_reference(sharpness):
    lp = log_probs("sk/logits")
    result = equipartition(lp, sharpness=float(sharpness), tol=1e-5)
    assert bool(result.converged)
    np.testing.assert_allclose(
        result.log_scale, GOLDEN[f"sk/lam{sharpness}/g"], atol=2e-3
    )
    labels = assign(lp, result.log_scale, sharpness=float(sharpness))
    np.testing.assert_array_equal(labels, GOLDEN[f"sk/lam{sharpness}/labels"])


@pytest.mark.parametrize("sharpness", [1, 10, 25])
def test_labels_at_the_default_tolerance_are_those_of_the_published_stop_rule(
    sharpness,
):
    """Theirs adds up relative changes of all rows: stricter the more rows there are."""
    lp = log_probs("sk/logits")
    result = equipartition(lp, sharpness=float(sharpness))
    published = f"sk/lam{sharpness}/sela"
    labels = assign(lp, result.log_scale, sharpness=float(sharpness))
    np.testing.assert_array_equal(labels, GOLDEN[f"{published}_labels_tol0.1"])
    assert float(result.column_error) <= 1e-4
    assert int(result.iterations) <= int(GOLDEN[f"{published}_steps_tol0.1"])


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5])
def test_iteration_stops_at_the_first_error_below_the_tolerance(tol):
    lp = log_probs("sk/logits")
    result = equipartition(lp, sharpness=25.0, tol=tol)
    assert bool(result.converged)
    found = masses(lp, result.log_scale, 25.0)
    error = np.abs(found * 8 - 1).max()
    assert error <= tol
    np.testing.assert_allclose(result.column_error, error, rtol=0.05, atol=3e-6)
    if int(result.iterations) > 1:
        less = int(result.iterations) - 1
        before = equipartition(lp, sharpness=25.0, tol=tol, max_iters=less)
        assert not bool(before.converged)
        assert float(before.column_error) > tol
        assert int(before.iterations) == less


def test_equipartition_value_is_below_linear_programme_optimum_and_near_it():
    lp = log_probs("sk/logits")
    n = lp.shape[0]
    result = equipartition(lp, sharpness=25.0)
    plan = jax.nn.softmax(25.0 * lp + result.log_scale[None, :], axis=1) / n
    value = float(jnp.sum(plan * lp))
    entropy = -float(jnp.sum(jax.scipy.special.xlogy(plan, plan)))
    best = float(GOLDEN["sk/exact_lp_value"])
    assert value <= best + 1e-4
    assert best - value <= (entropy - np.log(n)) / 25.0 + 1e-4


def test_equipartition_meets_unequal_masses_of_rows_and_clusters():
    lp = log_probs("skm/logits")
    lam = float(GOLDEN["skm/lam"])
    row = jnp.asarray(GOLDEN["skm/row"], jnp.float32)
    col = jnp.asarray(GOLDEN["skm/col"], jnp.float32)
    result = equipartition(lp, sharpness=lam, row_mass=row, cluster_mass=col, tol=1e-5)
    np.testing.assert_array_equal(
        assign(lp, result.log_scale, sharpness=lam), GOLDEN["skm/labels"]
    )
    plan = row[:, None] * jax.nn.softmax(lam * lp + result.log_scale[None, :], axis=1)
    np.testing.assert_allclose(plan, GOLDEN["skm/Q"], rtol=2e-3, atol=1e-7)


def test_equipartition_ignores_padded_rows_even_if_they_are_nan():
    lp = log_probs("sk/logits")
    padded = jnp.concatenate([lp, jnp.full((5, lp.shape[1]), jnp.nan)])
    mass = jnp.concatenate([jnp.ones(lp.shape[0]), jnp.zeros(5)])
    a = equipartition(lp, sharpness=10.0, tol=1e-5)
    b = equipartition(padded, sharpness=10.0, row_mass=mass, tol=1e-5)
    np.testing.assert_allclose(a.log_scale, b.log_scale, atol=5e-5)


def test_equipartition_does_not_depend_on_row_shifts_or_row_order():
    lp = log_probs("sk/logits")
    order = np.random.default_rng(0).permutation(lp.shape[0])
    shift = jnp.linspace(-3, 3, lp.shape[0])[:, None]
    a = equipartition(lp, sharpness=10.0)
    b = equipartition((lp + shift)[order], sharpness=10.0)
    np.testing.assert_allclose(a.log_scale, b.log_scale, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 0.0])
def test_equal_logits_leave_the_scales_to_the_masses(scale):
    logits = scale * jax.random.normal(jax.random.key(0), (64, 4))
    wanted = np.array([0.1, 0.2, 0.3, 0.4])
    result = equipartition(logits, sharpness=25.0, cluster_mass=jnp.asarray(wanted))
    expected = np.log(wanted) - np.log(wanted).mean()
    np.testing.assert_allclose(result.log_scale, expected, atol=1e-4)


@pytest.mark.parametrize("scale", [30.0, 100.0])
def test_huge_logits_are_balanced_to_the_row(scale):
    logits = scale * jax.random.normal(jax.random.key(0), (640, 4))
    result = equipartition(
        logits, sharpness=25.0, cluster_mass=jnp.array([1.0, 2.0, 3.0, 4.0])
    )
    labels = assign(logits, result.log_scale, sharpness=25.0)
    assert bool(result.converged)
    np.testing.assert_array_equal(np.bincount(labels), [64, 128, 192, 256])


def test_at_the_end_of_float32_scales_are_finite_and_what_is_said_is_so():
    """Rounding decides whether these are balanced at all."""
    for seed in range(4):
        logits = 1e3 * jax.random.normal(jax.random.key(seed), (64, 4))
        result = equipartition(logits, sharpness=25.0, max_iters=50)
        assert np.isfinite(np.asarray(result.log_scale)).all()
        found = masses(logits, result.log_scale, 25.0)
        error = np.abs(4 * found - 1).max()
        assert bool(result.converged) == (error < 0.02)


@pytest.mark.parametrize("least", [1e-5, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_clusters_of_very_unequal_mass_are_all_met(least, seed):
    """Three of these did not end where large clusters alone said what is better."""
    x = 3 * jax.random.normal(jax.random.key(seed), (600, 6))
    wanted = jnp.array([least, 10 * least, 100 * least, 1.0, 1.0, 1.0])
    result = equipartition(x, sharpness=25.0, cluster_mass=wanted)
    assert bool(result.converged)
    assert int(result.iterations) < 50
    plan = transport_plan(x, result.log_scale, sharpness=25.0)
    share = np.asarray(plan.sum(axis=0)) / np.asarray(wanted / wanted.sum())
    np.testing.assert_allclose(share, 1.0, atol=2e-3)


def test_equipartition_says_so_when_input_is_not_finite():
    logits = jnp.zeros((8, 2)).at[0, 0].set(jnp.nan)
    assert not bool(equipartition(logits, sharpness=1.0).converged)


def test_equipartition_refuses_bfloat16():
    with pytest.raises(ValueError, match=r"float64 \[n, k\].*bfloat16"):
        equipartition(jnp.zeros((8, 2), jnp.bfloat16), sharpness=1.0)


@pytest.mark.parametrize("name", ["row_mass", "cluster_mass"])
def test_masses_of_another_length_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name} must be of shape \(\d+,\), got"):
        equipartition(jnp.zeros((8, 3)), sharpness=1.0, **{name: jnp.ones(5)})


def test_half_floats_are_refused_by_all_that_take_scores():
    half = jnp.zeros((8, 2), jnp.bfloat16)
    for run in (
        lambda: assign(half, jnp.zeros(2), sharpness=1.0),
        lambda: transport_plan(half, jnp.zeros(2), sharpness=1.0),
        lambda: equipartition_in_blocks(half, lambda x: x, sharpness=1.0, clusters=2),
    ):
        with pytest.raises(ValueError, match=r"\[n, k\] matrix, got bfloat16"):
            run()


@pytest.mark.parametrize(("n", "k"), [(12, 12), (12, 1), (5, 12), (2, 2)])
def test_as_many_clusters_as_rows_one_cluster_and_more_clusters_than_rows(n, k):
    logits = jax.random.normal(jax.random.key(3), (n, k))
    result = equipartition(logits, sharpness=5.0)
    assert bool(result.converged)
    found = masses(logits, result.log_scale, 5.0)
    np.testing.assert_allclose(found * k, 1, atol=2e-4)


def test_coincident_rows_share_what_they_choose():
    row = jax.random.normal(jax.random.key(0), (1, 6))
    result = equipartition(jnp.tile(row, (30, 1)), sharpness=25.0)
    assert bool(result.converged)
    plan = transport_plan(jnp.tile(row, (30, 1)), result.log_scale, sharpness=25.0)
    np.testing.assert_allclose(plan, 1 / 180, rtol=1e-3)


def test_forbidden_pairs_stay_without_mass():
    logits = jax.random.normal(jax.random.key(0), (40, 4))
    logits = logits.at[:10, 0].set(-jnp.inf)
    result = equipartition(logits, sharpness=10.0)
    assert bool(result.converged)
    plan = transport_plan(logits, result.log_scale, sharpness=10.0)
    assert float(jnp.max(plan[:10, 0])) == 0
    np.testing.assert_allclose(plan.sum(axis=0), 0.25, rtol=2e-4)


def test_what_cannot_be_is_not_said_to_have_converged():
    """Two rows may choose the first cluster, which is to have half of the mass."""
    logits = jnp.zeros((40, 2)).at[2:, 0].set(-jnp.inf)
    result = equipartition(logits, sharpness=1.0, max_iters=100)
    assert not bool(result.converged)
    assert float(result.column_error) > 0.5


def test_clusters_in_another_order_have_the_same_scales():
    logits = jnp.asarray(sure_of_itself(500, 7))
    order = np.random.default_rng(1).permutation(7)
    a = equipartition(logits, sharpness=5.0, tol=1e-6)
    b = equipartition(logits[:, order], sharpness=5.0, tol=1e-6)
    np.testing.assert_allclose(a.log_scale[order], b.log_scale, atol=1e-3)


def test_plan_has_the_masses_asked_for():
    lp = log_probs("skm/logits")
    row = jnp.asarray(GOLDEN["skm/row"], jnp.float32)
    col = jnp.asarray(GOLDEN["skm/col"], jnp.float32)
    settings = {"sharpness": float(GOLDEN["skm/lam"]), "row_mass": row}
    result = equipartition(lp, cluster_mass=col, tol=1e-5, **settings)
    plan = transport_plan(lp, result.log_scale, **settings)
    np.testing.assert_allclose(plan, GOLDEN["skm/Q"], rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(plan.sum(axis=1), row, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(axis=0), col, rtol=1e-4)


@pytest.mark.parametrize(("name", "sizes"), [("skg", "skg/col"), ("skmm", None)])
def test_gaussian_sizes_and_pooled_modalities_equal_float64_reference(name, sizes):
    pooled = name == "skmm"
    if pooled:
        lp = (GOLDEN["skmm/logp_a"] + GOLDEN["skmm/logp_b"]) / 2
        lp = jnp.asarray(lp, jnp.float32)
    else:
        lp = log_probs("skm/logits")
    col = jnp.asarray(GOLDEN[sizes], jnp.float32) if sizes else None
    result = equipartition(lp, sharpness=20.0, cluster_mass=col, tol=1e-5)
    plan = transport_plan(lp, result.log_scale, sharpness=20.0)
    np.testing.assert_allclose(plan, GOLDEN[f"{name}/Q"], rtol=5e-3, atol=1e-7)
    labels = assign(lp, result.log_scale, sharpness=20.0)
    np.testing.assert_array_equal(labels, GOLDEN[f"{name}/labels"])
