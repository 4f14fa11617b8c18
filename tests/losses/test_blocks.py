"""Sums and maps in blocks: the same as at once, whatever the sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from visxp_jax.losses.blocks import (
    gathered,
    map_in_blocks,
    sample_by_mass,
    sum_in_blocks,
)
from visxp_jax.sharding import make_mesh

FEATURES = {
    "a": jnp.arange(26.0).reshape(13, 2),
    "b": jnp.arange(13, dtype=jnp.int32),
}


@pytest.mark.parametrize("block", [1, 4, 13, 100])
def test_sum_counts_every_row_once(block):
    def of_block(part, mass):
        return {
            "weighted": mass @ part["a"],
            "count": jnp.sum((mass > 0).astype(jnp.int32)),
        }

    mass = jnp.where(jnp.arange(13) == 5, 0.0, 0.5)
    total = sum_in_blocks(of_block, FEATURES, mass, block=block)
    np.testing.assert_allclose(total["weighted"], mass @ FEATURES["a"])
    assert int(total["count"]) == 12


@pytest.mark.parametrize("block", [1, 4, 13, 100])
def test_map_gives_each_row_its_own(block):
    def of_block(part):
        assert part["a"].ndim == 2
        return part["a"].sum(axis=1), part["b"] * jnp.int32(2)

    sums, doubled = map_in_blocks(of_block, FEATURES, block=block)
    np.testing.assert_allclose(sums, FEATURES["a"].sum(axis=1))
    np.testing.assert_array_equal(doubled, 2 * np.arange(13))
    assert doubled.dtype == jnp.int32


def test_blocks_take_no_more_memory_than_a_block():
    features = jax.ShapeDtypeStruct((100_000, 8), jnp.float32)

    def run(x):
        return sum_in_blocks(
            lambda part, mass: jnp.sum(jnp.exp(part[:, :, None] + part[:, None])),
            x,
            jnp.ones(100_000),
            block=100,
        )

    memory = jax.jit(run).lower(features).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1_000_000  # of 25.6 MB for all rows at once


def test_sample_of_equal_masses_is_one_row_of_each_stretch():
    at, mass = sample_by_mass(jax.random.key(0), jnp.full(1000, 0.5), 64)
    edges = np.arange(65) * 1000 / 64
    rows = np.asarray(at)
    assert (edges[:-1] - 1 <= rows).all()
    assert (rows <= edges[1:]).all()
    assert len(np.unique(np.diff(rows))) > 5  # not at one place in all stretches
    np.testing.assert_allclose(mass, 500 / 64)


def test_sample_is_where_the_mass_is():
    """Three rows of a hundred thousand have any."""
    mass = np.zeros(100_000, np.float32)
    mass[[7, 500, 99_990]] = [1, 2, 1]
    at, share = sample_by_mass(jax.random.key(0), jnp.asarray(mass), 4096)
    rows, count = np.unique(at, return_counts=True)
    assert rows.tolist() == [7, 500, 99_990]
    np.testing.assert_allclose(count, [1024, 2048, 1024], atol=1)
    assert float(share.sum()) == pytest.approx(4, rel=1e-5)


def test_sample_as_large_as_all_rows_is_all_rows():
    mass = jnp.arange(5.0)
    at, share = sample_by_mass(jax.random.key(0), mass, 5)
    np.testing.assert_array_equal(at, np.arange(5))
    np.testing.assert_array_equal(share, mass)


def test_devices_sample_their_own_rows_and_gather_the_same():
    """One has no mass at all."""
    mass = jnp.where(jnp.arange(800) < 700, 1.0, 0.0)

    def run(mass):
        at, share = sample_by_mass(jax.random.key(0), mass, 8, "data")
        own = at + 100 * jax.lax.axis_index("data")
        return gathered(own, "data"), gathered(share, "data")

    split = jax.shard_map(
        run,
        mesh=make_mesh(jax.devices()),
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(),
    )
    at, share = split(mass)
    assert at.shape == (64,)
    assert (np.asarray(at) // 100 == np.repeat(np.arange(8), 8)).all()
    np.testing.assert_allclose(share, np.repeat([100 / 8, 0], [56, 8]))
