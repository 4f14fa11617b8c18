"""Cross-entropy to pseudo-labels and the decorrelation penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.losses import decorrelation, pseudo_label_cross_entropy


def test_pseudo_label_cross_entropy_equals_optax_per_head():
    import optax

    logits = jax.random.normal(jax.random.key(0), (5, 3, 7))
    labels = jax.random.randint(jax.random.key(1), (5, 3), 0, 7)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(
        pseudo_label_cross_entropy(logits, labels), expected.mean(1), rtol=1e-6
    )


def test_pseudo_label_cross_entropy_skips_unlabelled_clips_in_value_and_gradient():
    logits = jax.random.normal(jax.random.key(0), (2, 1, 7))
    labels = jnp.array([[-1], [3]])
    assert pseudo_label_cross_entropy(logits, labels)[0] == 0
    grad = jax.grad(lambda x: pseudo_label_cross_entropy(x, labels).sum())(logits)
    assert np.abs(grad[0]).max() == 0
    assert np.abs(grad[1]).max() > 0


def test_pseudo_label_cross_entropy_refuses_heads_that_do_not_fit():
    with pytest.raises(ValueError, match="labels"):
        pseudo_label_cross_entropy(jnp.zeros((5, 3, 7)), jnp.zeros((5, 2), jnp.int32))


def test_decorrelation_is_0_for_independent_and_1_for_equal_dimensions():
    x = jnp.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    ones = jnp.ones(4)
    np.testing.assert_allclose(decorrelation(x, ones), 0.0, atol=1e-6)
    np.testing.assert_allclose(
        decorrelation(x[:, :1] + jnp.zeros((4, 2)), ones), 1.0, atol=1e-5
    )


def test_decorrelation_of_independent_dimensions_is_1_over_b_minus_1():
    rows, ones = 9, jnp.ones(9)
    x = jax.random.normal(jax.random.key(0), (2000, rows, 8))
    values = jax.vmap(lambda batch: decorrelation(batch, ones))(x)
    np.testing.assert_allclose(values.mean(), 1 / (rows - 1), rtol=0.02)


def test_decorrelation_equals_numpy_and_ignores_padding():
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    corr = np.corrcoef(x.T)
    expected = (np.sum(corr**2) - 4) / 12
    padded = jnp.concatenate([jnp.asarray(x), 100 * jnp.ones((3, 4))])
    weight = jnp.concatenate([jnp.ones(20), jnp.zeros(3)])
    np.testing.assert_allclose(decorrelation(padded, weight), expected, rtol=1e-4)


def test_decorrelation_has_finite_gradient_at_collapse():
    grad = jax.grad(decorrelation)(jnp.ones((8, 4)), jnp.ones(8))
    assert np.isfinite(np.asarray(grad)).all()
