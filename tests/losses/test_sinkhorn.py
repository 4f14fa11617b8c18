"""Equipartition against float64 golden values, the linear programme, and its laws."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from visxp_jax.losses import (
    assign,
    assign_in_blocks,
    equipartition,
    equipartition_in_blocks,
    transport_plan,
)
from visxp_jax.sharding import make_mesh

ROOT = Path(__file__).parent.parent.parent
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


def test_equipartition_same_on_1_and_8_devices():
    lp = log_probs("sk/logits")
    rows = NamedSharding(make_mesh(jax.devices()), PartitionSpec("data"))
    one = equipartition(lp, sharpness=25.0)
    many = equipartition(jax.device_put(lp, rows), sharpness=25.0)
    np.testing.assert_allclose(one.log_scale, many.log_scale, atol=1e-3)
    np.testing.assert_array_equal(
        assign(lp, one.log_scale, sharpness=25.0),
        assign(lp, many.log_scale, sharpness=25.0),
    )


def sure_of_itself(n: int, k: int, seed: int = 0) -> np.ndarray:
    """Logits as of a trained head: clusters of unequal size, wide gaps between them."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.2, 1, k)
    centre = rng.normal(size=(k, 16))
    which = rng.choice(k, n, p=size / size.sum())
    point = centre[which] + rng.normal(size=(n, 16))
    return (point @ centre.T).astype(np.float32)


def masses(logits, log_scale, sharpness, rows=None) -> np.ndarray:
    """Of the clusters, in float64."""
    scores = sharpness * np.asarray(logits, np.float64) + np.asarray(log_scale)
    plan = np.exp(scores - scores.max(axis=1, keepdims=True))
    plan /= plan.sum(axis=1, keepdims=True)
    rows = np.ones(len(plan)) if rows is None else np.asarray(rows, np.float64)
    return rows @ plan / rows.sum()


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


def test_all_heads_at_once_by_vmap():
    logits = jnp.stack([jnp.asarray(sure_of_itself(500, 6, s)) for s in range(3)])
    many = jax.vmap(partial(equipartition, sharpness=5.0))(logits)
    for i in range(3):
        one = equipartition(logits[i], sharpness=5.0)
        np.testing.assert_allclose(many.log_scale[i], one.log_scale, atol=1e-3)


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


def test_masses_padding_and_an_earlier_result_on_8_devices():
    """The last two devices hold nothing but padding, which is NaN."""
    logits = jnp.asarray(sure_of_itself(1600, 10)).at[1100:].set(jnp.nan)
    rows = jnp.where(jnp.arange(1600) < 1100, 1.0 + jnp.arange(1600.0) % 3, 0.0)
    wanted = jnp.linspace(0.5, 1.5, 10)
    settings = {"sharpness": 5.0, "cluster_mass": wanted, "tol": 1e-5}
    one = equipartition(logits, row_mass=rows, **settings)

    def solve(x, axis_name, start=None):
        return equipartition(
            x[0], row_mass=x[1], log_scale=start, axis_name=axis_name, **settings
        )

    mesh = make_mesh(jax.devices())
    many = split(solve, mesh)((logits, rows))
    again = split(partial(solve, start=many.log_scale), mesh)((logits, rows))
    assert bool(one.converged & many.converged & again.converged)
    np.testing.assert_allclose(many.log_scale, one.log_scale, atol=1e-3)
    assert int(again.iterations) <= 2


X64 = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
from visxp_jax.losses import (
    assign, balanced_kmeans, equipartition, equipartition_in_blocks, kmeans
)
key = jax.random.key(0)
x = jax.random.normal(key, (50, 4), jnp.float32)
start = jnp.zeros(4, jnp.float64)
found = equipartition(x, sharpness=5.0, log_scale=start, cluster_mass=[1, 2, 3, 4])
assert found.log_scale.dtype == jnp.float32
assert assign(x, found.log_scale, sharpness=5.0).dtype == jnp.int32
assert equipartition(x.astype(float), sharpness=5.0, tol=1e-12).converged
assert equipartition_in_blocks(x, lambda r: r, sharpness=5.0, clusters=4).converged
assert kmeans(key, x, clusters=3).centres.dtype == jnp.float32
assert balanced_kmeans(key, x, clusters=3)[1].converged
"""


def test_all_of_it_with_64_bits_enabled():
    done = subprocess.run(
        [sys.executable, "-c", X64], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


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


@pytest.mark.parametrize("block", [100, 4096])
def test_in_blocks_equals_in_memory(block):
    """Of half floats, with padded rows, and a last block that is not full."""
    keys = jax.random.split(jax.random.key(0), 3)
    features = jax.random.normal(keys[0], (1000, 8)).astype(jnp.float16)
    head = jax.random.normal(keys[1], (8, 10))
    rows = jnp.where(jnp.arange(1000) < 950, jax.random.uniform(keys[2], (1000,)), 0)
    features = features.at[950:].set(jnp.nan)

    def log_probs_of(part):
        return jax.nn.log_softmax(part.astype(jnp.float32) @ head, axis=1)

    settings = {"sharpness": 10.0, "row_mass": rows, "tol": 3e-6}
    whole = equipartition(log_probs_of(features), **settings)

    @jax.jit
    def by_block(features):
        return equipartition_in_blocks(
            features, log_probs_of, clusters=10, block=block, **settings
        )

    parts = by_block(features)
    assert bool(parts.converged)
    np.testing.assert_allclose(parts.log_scale, whole.log_scale, atol=1e-4)
    labels = assign_in_blocks(
        features, log_probs_of, whole.log_scale, sharpness=10.0, block=block
    )
    expected = assign(log_probs_of(features), whole.log_scale, sharpness=10.0)
    np.testing.assert_array_equal(labels[:950], expected[:950])


def test_memory_in_blocks_grows_with_rows_but_not_with_their_scores():
    """But by some ten numbers of each row: masses, places in the sample, labels."""
    head = jnp.ones((16, 64))

    @jax.jit
    def run(features):
        def score(part):
            return jax.nn.log_softmax(part.astype(jnp.float32) @ head, axis=1)

        result = equipartition_in_blocks(
            features, score, clusters=64, sharpness=10.0, block=256
        )
        return assign_in_blocks(
            features, score, result.log_scale, sharpness=10.0, block=256
        )

    def beside(n):
        features = jax.ShapeDtypeStruct((n, 16), jnp.float16)
        return run.lower(features).compile().memory_analysis().temp_size_in_bytes

    fewer, more = beside(100_000), beside(120_000)
    assert (more - fewer) / 20_000 < 48  # bytes; scores of a row are 256
    assert fewer < 100_000 * 48 + 3 * 4096 * 256  # and the sample


def split(function, mesh):
    """`function` of rows that are split over devices."""
    return jax.jit(
        jax.shard_map(
            partial(function, axis_name="data"),
            mesh=mesh,
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec(),
        )
    )


@pytest.mark.parametrize("in_blocks", [False, True])
def test_rows_split_over_8_devices_give_the_same_and_only_k_numbers_cross(in_blocks):
    n, k = 8000, 24
    logits = jnp.asarray(sure_of_itself(n, k))
    settings = {"sharpness": 10.0, "tol": 1e-5}
    one = equipartition(logits, **settings)

    def solve(logits, axis_name):
        if not in_blocks:
            return equipartition(logits, axis_name=axis_name, **settings)
        return equipartition_in_blocks(
            logits, lambda x: x, clusters=k, block=256, axis_name=axis_name, **settings
        )

    mesh = make_mesh(jax.devices())
    rows = jax.device_put(logits, NamedSharding(mesh, PartitionSpec("data")))
    many = split(solve, mesh)(rows)
    np.testing.assert_allclose(many.log_scale, one.log_scale, atol=3e-3)
    np.testing.assert_array_equal(
        assign(logits, many.log_scale, sharpness=10.0),
        assign(logits, one.log_scale, sharpness=10.0),
    )
    text = split(solve, mesh).lower(rows).compile().as_text()
    crossing = [
        line
        for line in text.splitlines()
        if re.search(
            r"= .*\b(all-reduce|all-gather|collective-permute|all-to-all)", line
        )
        and "while" in line
    ]
    assert crossing
    for line in crossing:
        assert re.search(rf"= f32\[{k}\]\S* all-reduce", line), line
