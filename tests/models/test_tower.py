"""Pooling equals the library's, and its gradient is finite whatever is rounded."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.models.tower import ConvTower, block_max, gelu, peak


def test_gelu_is_the_exact_one_in_value_and_gradient():
    x = jnp.concatenate([jnp.linspace(-8, 8, 801), jnp.array([-1e30, 1e30])])
    exact = partial(nn.gelu, approximate=False)
    np.testing.assert_allclose(gelu(x), exact(x), rtol=1e-6, atol=5e-7)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(gelu))(x), jax.vmap(jax.grad(exact))(x), rtol=1e-6, atol=5e-7
    )
    half = gelu(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact(x), rtol=0.02, atol=0.02)


def test_block_max_equals_max_pool_in_value_and_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    weight = jax.random.normal(jax.random.key(1), (2, 3, 3, 3))

    def ours(x):
        return jnp.sum(weight * block_max(x, (2, 2)))

    def library(x):
        return jnp.sum(weight * nn.max_pool(x, (2, 2), (2, 2)))

    np.testing.assert_allclose(ours(x), library(x), rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(ours)(x), jax.grad(library)(x))


def test_block_max_gives_all_gradient_to_the_first_of_equals_and_hides_no_nan():
    x = jnp.zeros((1, 3, 4, 1)).at[0, 0, 2, 0].set(jnp.nan)
    np.testing.assert_array_equal(block_max(x, (2, 2))[0, 0, :, 0], [0, jnp.nan])
    flat = jnp.zeros((1, 3, 4, 1))
    grad = jax.grad(lambda x: jnp.sum(block_max(x, (2, 1))))(flat)
    np.testing.assert_array_equal(grad[0, ..., 0], [[1] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_peak_equals_max_along_an_axis_of_any_length(n):
    x = jax.random.normal(jax.random.key(n), (3, n, 2))
    np.testing.assert_array_equal(peak(x, 1), x.max(1))
    np.testing.assert_array_equal(
        jax.grad(lambda x: jnp.sum(peak(x, 1) ** 2))(x),
        jax.grad(lambda x: jnp.sum(x.max(1) ** 2))(x),
    )


def test_peak_gives_all_gradient_to_the_first_of_equal_values():
    grad = jax.grad(lambda x: peak(x, 0))(jnp.array([1.0, 3.0, 3.0]))
    np.testing.assert_array_equal(grad, [0, 1, 0])


def test_tower_refuses_input_smaller_than_its_last_pool():
    tower = ConvTower(
        width=2,
        double_convolution=False,
        activation="relu",
        last_pool=(14, 14),
        momentum=0.9,
    )
    with pytest.raises(ValueError, match=r"at least 14 x 14 cells.*leaves 4 x 4"):
        tower.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
