"""Means of points, and how deep the common ancestor of two leaves is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.geometry.reference import (
    CURVATURES,
    Book,
    lorentz,
    poincare,
    points,
    wide,
)


@pytest.mark.parametrize("r", [0.9, 0.999, 0.9999])
def test_means_of_close_points_near_the_boundary_are_among_them(r):
    x = points(200, 4, most=1)
    x = (r * x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    same = jnp.stack([x, x, x], axis=1)
    rounding = 3e-7 / (1 - r)
    for mean in (poincare.einstein_mean, poincare.frechet_mean):
        assert poincare.distance(mean(same), x).max() < rounding
    there = lorentz.from_poincare(x)
    same = jnp.stack([there, there, there], axis=1)
    assert lorentz.distance(lorentz.mean(same), there).max() < 1e-3


def test_weights_may_be_the_same_for_many_sets_of_points():
    x = points(15).reshape(5, 3, 3)
    w = jnp.array([0.2, 0.5, 0.3])
    for mean in (poincare.einstein_mean, poincare.frechet_mean, lorentz.mean):
        np.testing.assert_allclose(mean(x, w)[2], mean(x[2], w), rtol=1e-5, atol=1e-6)


def test_frechet_mean_is_the_least_sum_and_its_derivative_is_exact():
    with jax.enable_x64(True):
        x = jnp.asarray(points(12, 2, c=0.5, seed=3), jnp.float64)
        w = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, 12))

        @jax.jit
        def mean(x, w):
            return poincare.frechet_mean(x, w, c=0.5, tol=1e-13)

        @jax.jit
        def cost(at):
            far = poincare.squared_distance(at[None], x, c=0.5)
            return jnp.sum(w * far)

        found = mean(x, w)
        assert np.abs(jax.jit(jax.grad(cost))(found)).max() < 1e-10
        assert cost(found) < cost(poincare.einstein_mean(x, w, c=0.5))
        for i, args in ((0, (x, w)), (1, (x, w))):
            exact = jax.jit(jax.jacobian(mean, argnums=i))(*args)
            step = np.random.default_rng(1).standard_normal(args[i].shape)
            there = [
                mean(*(a + s * step if j == i else a for j, a in enumerate(args)))
                for s in (1e-5, -1e-5)
            ]
            expected = (there[0] - there[1]) / 2e-5
            along = jnp.tensordot(exact, jnp.asarray(step), step.ndim)
            np.testing.assert_allclose(along, expected, rtol=1e-6)
        many = jnp.stack([x, x[::-1]])
        both = poincare.frechet_mean(many, jnp.stack([w, w[::-1]]), c=0.5, tol=1e-13)
        np.testing.assert_allclose(both, jnp.stack([found, found]), rtol=1e-9)


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("most", [0.9, 0.999])
def test_depth_of_the_ancestor_is_that_of_the_chord(c, most):
    x, y = points(5000, c=c, most=most), points(5000, c=c, most=most, seed=1)
    expected = Book(c).depth(*wide(x, y))
    np.testing.assert_allclose(
        poincare.lca_depth(x, y, c=c), expected, rtol=1e-4, atol=1e-4
    )
    # Not deeper than either leaf.
    ends = [poincare.distance(0 * p, p, c=c) for p in (x, y)]
    assert (poincare.lca_depth(x, y, c=c) <= np.minimum(*ends) + 1e-5).all()


@pytest.mark.parametrize(("r", "largest"), [(0.5, 5e-7), (0.9, 1.5e-6), (0.999, 6e-5)])
def test_depth_keeps_its_digits_at_equal_lengths(r, largest):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 20_000, 2))
    x, y = (r * p / np.linalg.norm(p, axis=1, keepdims=True) for p in (x, y))
    x, y = x.astype(np.float32), y.astype(np.float32)
    found = np.asarray(poincare.lca_depth(x, y), np.float64)
    assert np.abs(found - Book(1.0).depth(*wide(x, y))).max() < largest


def test_depth_of_coincident_leaves_is_theirs_and_so_is_its_derivative():
    x = jnp.array([0.3, 0.4])
    both = jax.jit(jax.value_and_grad(poincare.lca_depth, (0, 1)))
    value, (of_x, of_y) = both(x, x)
    assert value == pytest.approx(2 * np.arctanh(0.5), rel=1e-6)
    np.testing.assert_array_equal(of_x, of_y)
    np.testing.assert_allclose(of_x + of_y, 2 / 0.75 * x / 0.5, rtol=1e-5)
