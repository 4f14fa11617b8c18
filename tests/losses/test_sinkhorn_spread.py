"""Equipartition over devices, in blocks, of many heads, with 64 bits enabled."""

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

from tests.losses.scores import log_probs, sure_of_itself
from visxp_jax.losses import (
    assign,
    assign_in_blocks,
    equipartition,
    equipartition_in_blocks,
)
from visxp_jax.sharding import make_mesh

ROOT = Path(__file__).parent.parent.parent


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


def test_all_heads_at_once_by_vmap():
    logits = jnp.stack([jnp.asarray(sure_of_itself(500, 6, s)) for s in range(3)])
    many = jax.vmap(partial(equipartition, sharpness=5.0))(logits)
    for i in range(3):
        one = equipartition(logits[i], sharpness=5.0)
        np.testing.assert_allclose(many.log_scale[i], one.log_scale, atol=1e-3)


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
