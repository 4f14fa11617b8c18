"""Equipartition against float64 golden values, the linear programme, and its laws."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.losses import assign, equipartition

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")


def log_probs(name: str) -> jax.Array:
    return jax.nn.log_softmax(jnp.asarray(GOLDEN[name], jnp.float32), axis=1)


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
    a = equipartition(lp, sharpness=10.0)
    b = equipartition(padded, sharpness=10.0, row_mass=mass)
    np.testing.assert_allclose(a.log_scale, b.log_scale, atol=1e-5)


def test_equipartition_does_not_depend_on_row_shifts_or_row_order():
    lp = log_probs("sk/logits")
    order = np.random.default_rng(0).permutation(lp.shape[0])
    shift = jnp.linspace(-3, 3, lp.shape[0])[:, None]
    a = equipartition(lp, sharpness=10.0)
    b = equipartition((lp + shift)[order], sharpness=10.0)
    np.testing.assert_allclose(a.log_scale, b.log_scale, atol=1e-3)


@pytest.mark.parametrize("scale", [1e3, 1e-6, 0.0])
def test_equipartition_is_finite_at_huge_tiny_and_equal_logits(scale):
    logits = scale * jax.random.normal(jax.random.key(0), (64, 4))
    result = equipartition(logits, sharpness=25.0, max_iters=50)
    assert np.isfinite(np.asarray(result.log_scale)).all()
    assert np.isfinite(float(result.column_error))


def test_equipartition_says_so_when_input_is_not_finite():
    logits = jnp.zeros((8, 2)).at[0, 0].set(jnp.nan)
    assert not bool(equipartition(logits, sharpness=1.0).converged)


def test_equipartition_refuses_bfloat16():
    with pytest.raises(ValueError, match=r"float32 \[n, k\].*bfloat16"):
        equipartition(jnp.zeros((8, 2), jnp.bfloat16), sharpness=1.0)


def test_equipartition_same_on_1_and_8_devices():
    from jax.sharding import NamedSharding, PartitionSpec

    from visxp_jax.sharding import make_mesh

    lp = log_probs("sk/logits")
    rows = NamedSharding(make_mesh(jax.devices()), PartitionSpec("data"))
    one = equipartition(lp, sharpness=25.0)
    many = equipartition(jax.device_put(lp, rows), sharpness=25.0)
    np.testing.assert_allclose(one.log_scale, many.log_scale, atol=1e-3)
    np.testing.assert_array_equal(
        assign(lp, one.log_scale, sharpness=25.0),
        assign(lp, many.log_scale, sharpness=25.0),
    )
