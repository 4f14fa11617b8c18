"""Sums and maps in blocks: the same as at once, whatever the sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.losses.blocks import map_in_blocks, sum_in_blocks

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
