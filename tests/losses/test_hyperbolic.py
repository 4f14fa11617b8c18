"""Losses towards leaves in the ball: by hand, at hard points, and by kinship."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.geometry import poincare
from visxp_jax.losses import kinship, leaf_logits, leaf_loss

LEAVES = 0.8 * jnp.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
Z = jnp.array([[0.1, 0.2], [0.8, 0.0], [-0.3, 0.5]])


def loss(z, labels, form, leaves=LEAVES):
    return leaf_loss(
        z, leaves, labels, form=form, temperature=0.5, tree_temperature=0.2
    )


def test_logits_are_distances_over_the_temperature():
    expected = [[-float(poincare.distance(z, e)) / 0.5 for e in LEAVES] for z in Z]
    np.testing.assert_allclose(leaf_logits(Z, LEAVES, 0.5), expected, atol=1e-5)


def test_relatives_share_a_deep_ancestor():
    share = np.asarray(kinship(LEAVES, 0.2))
    np.testing.assert_allclose(share.sum(axis=1), 1, rtol=1e-6)
    assert (share.argmax(axis=1) == np.arange(3)).all()
    assert share[0, 1] > 5 * share[0, 2]
    np.testing.assert_allclose(kinship(LEAVES, 0.01), np.eye(3), atol=1e-6)


def test_forms_by_hand():
    labels = jnp.array([1, 0, 2])
    log_probs = np.asarray(jax.nn.log_softmax(leaf_logits(Z, LEAVES, 0.5)))
    rows = np.arange(3)
    np.testing.assert_allclose(
        loss(Z, labels, "ce"), -log_probs[rows, labels], rtol=1e-5
    )
    wanted = np.asarray(kinship(LEAVES, 0.2))[labels]
    np.testing.assert_allclose(
        loss(Z, labels, "tree"), -(wanted * log_probs).sum(axis=1), rtol=1e-5
    )
    square = poincare.distance(Z, LEAVES[labels]) ** 2
    np.testing.assert_allclose(loss(Z, labels, "dist"), square, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["ce", "tree", "dist"])
def test_clips_without_a_label_cost_and_move_nothing(form):
    labels = jnp.array([-1, 0, -1])
    value, gradient = jax.value_and_grad(lambda z: jnp.sum(loss(z, labels, form)))(Z)
    assert loss(Z, labels, form)[0] == 0
    assert np.isfinite(value)
    np.testing.assert_array_equal(np.asarray(gradient)[[0, 2]], 0)


@pytest.mark.parametrize("form", ["ce", "tree", "dist"])
def test_hard_points_are_finite(form):
    """A clip on its leaf, at 0, at the boundary; leaves that coincide."""
    leaves = LEAVES.at[1].set(LEAVES[0])
    z = jnp.stack([LEAVES[0], jnp.zeros(2), poincare.project(jnp.array([0.0, 5.0]))])
    labels = jnp.array([0, 1, 2])

    def total(z, leaves):
        return jnp.sum(loss(z, labels, form, leaves))

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(z, leaves)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.isfinite(np.asarray(gradient)).all()


def test_a_wrong_relative_costs_less_than_a_stranger_by_the_tree():
    z = 0.75 * LEAVES / 0.8
    cost = loss(jnp.stack([z[1], z[2]]), jnp.array([0, 0]), "tree")
    assert cost[0] < cost[1]


def test_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="ce, dist, tree, got 'other'"):
        loss(Z, jnp.zeros(3, int), "other")
