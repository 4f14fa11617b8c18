"""Both models against textbook formulas in float64, and their laws."""

from functools import partial

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


@pytest.mark.parametrize("c", CURVATURES)
def test_ball_equals_textbook_formulas_in_float64(c):
    x, y = points(500, c=c), points(500, c=c, seed=1)
    v = 0.5 * points(500, c=c, seed=2)
    book, (x_, y_, v_) = Book(c), wide(x, y, v)
    close = partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5)
    close(poincare.distance(x, y, c=c), book.distance(x_, y_))
    close(poincare.squared_distance(x, y, c=c), book.distance(x_, y_) ** 2, rtol=4e-5)
    close(poincare.mobius_add(x, y, c=c), book.add(x_, y_))
    close(poincare.conformal_factor(x, c=c), book.factor(x_))
    close(poincare.exp(x, v, c=c), book.exp(x_, v_))
    close(poincare.log(x, y, c=c), book.log(x_, y_))
    close(poincare.exp0(v, c=c), book.exp(0 * x_, v_))
    close(poincare.log0(x, c=c), book.log(0 * x_, x_))
    close(poincare.gyration(x, y, v, c=c), book.gyration(x_, y_, v_), atol=1e-4)
    moved = book.gyration(y_, -x_, v_) * book.factor(x_) / book.factor(y_)
    close(poincare.transport(x, y, v, c=c), moved, atol=1e-4)
    pairs = book.distance(x_[:40, None], y_[None, :30])
    close(poincare.pairwise_distance(x[:40], y[:30], c=c), pairs)


@pytest.mark.parametrize("c", CURVATURES)
def test_hyperboloid_says_the_same_as_the_ball(c):
    x, y = points(500, c=c), points(500, c=c, seed=1)
    to, back = partial(lorentz.from_poincare, c=c), partial(lorentz.to_poincare, c=c)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
    full = Book(c).hyperboloid(*wide(x))
    close(to(x), full[:, :-1])
    close(lorentz.time(to(x), c=c), full[:, -1])
    close(back(to(x)), x)
    close(lorentz.distance(to(x), to(y), c=c), poincare.distance(x, y, c=c))

    @jax.jit
    def pushed(x, v):
        """A tangent vector in the other model."""
        return jax.jvp(to, (x,), (v,))[1]

    v = 0.3 * points(500, c=c, seed=2)
    u = pushed(x, v)
    lengths = np.linalg.norm(v, axis=1) * poincare.conformal_factor(x, c=c)[:, 0]
    close(jnp.sqrt(lorentz.inner(to(x), u, u, c=c)), lengths, rtol=1e-3)
    close(back(lorentz.exp(to(x), u, c=c)), poincare.exp(x, v, c=c), atol=1e-4)
    log = pushed(x, poincare.log(x, y, c=c))
    close(lorentz.log(to(x), to(y), c=c), log, rtol=1e-3, atol=1e-3)
    moved = pushed(y, poincare.transport(x, y, v, c=c))
    close(lorentz.transport(to(x), to(y), u, c=c), moved, rtol=2e-3, atol=2e-3)
    close(back(lorentz.exp0(2 * v, c=c)), poincare.exp0(v, c=c))
    close(lorentz.log0(to(x), c=c), 2 * poincare.log0(x, c=c))
    weights = np.random.default_rng(0).uniform(size=500).astype(np.float32)
    mean = back(lorentz.mean(to(x), weights, c=c))
    close(mean, poincare.einstein_mean(x, weights, c=c))


@pytest.mark.parametrize("c", CURVATURES)
def test_laws_of_the_ball(c):
    x, y, a = (points(300, c=c, seed=i) for i in range(3))
    distance = partial(poincare.distance, c=c)
    add = partial(poincare.mobius_add, c=c)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    close(distance(add(a, x), add(a, y)), distance(x, y))
    assert (distance(x, y) <= distance(x, a) + distance(a, y) + 1e-4).all()
    close(poincare.exp(x, poincare.log(x, y, c=c), c=c), y)
    log = poincare.log(x, y, c=c)
    length = np.linalg.norm(log, axis=1) * poincare.conformal_factor(x, c=c)[:, 0]
    close(length, distance(x, y))
    # The velocity of a geodesic, moved along it, is that at its end.
    ahead = -poincare.log(y, x, c=c)
    close(poincare.transport(x, y, log, c=c), ahead, atol=1e-3)
    middle = poincare.midpoint(x, y, c=c)
    close(distance(x, middle), distance(x, y) / 2)
    close(distance(middle, y), distance(x, y) / 2)
    close(poincare.midpoint(y, x, c=c), middle, rtol=1e-6, atol=1e-6)
    pair = jnp.stack([x, y], axis=1)
    close(poincare.einstein_mean(pair, c=c), middle)
    close(poincare.frechet_mean(pair, c=c), middle)


def test_space_is_flat_where_curvature_vanishes():
    x, y = points(100), points(100, seed=1)
    flat = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    c = 1e-7
    flat(poincare.distance(x, y, c=c), 2 * np.linalg.norm(x - y, axis=1))
    flat(poincare.mobius_add(x, y, c=c), x + y)
    flat(poincare.exp(x, y, c=c), x + y)
    flat(poincare.log(x, y, c=c), y - x)
    flat(poincare.frechet_mean(x, c=c), x.mean(axis=0))
    flat(lorentz.distance(x, y, c=c), np.linalg.norm(x - y, axis=1))


@pytest.mark.parametrize("c", CURVATURES)
def test_logits_are_signed_distances_to_planes(c):
    """Of a plane orthogonal to the first axis, found by search along it."""
    x = points(50, 2, c=c)
    normal, offset = jnp.array([[3.0, 0.0]]).T, jnp.array([0.2])
    logits = poincare.multinomial_logits(x, normal, offset, c=c)[:, 0]
    root = np.sqrt(c)
    foot = np.array([np.tanh(root * 0.2) / root, 0.0])
    # The plane: all points whose geodesic from the foot leaves it at a right angle.
    up = np.linspace(-6, 6, 20_001)[:, None] * np.array([[0.0, 1.0]])
    plane = Book(c).exp(foot[None], up)
    for point, logit in zip(np.asarray(x, np.float64), logits, strict=True):
        nearest = Book(c).distance(point[None], plane).min()
        assert abs(logit) == pytest.approx(2 * 3 * nearest, rel=5e-3, abs=5e-3)
        side = Book(c).add(-foot[None], point[None])[0, 0]
        assert np.sign(logit) == np.sign(side)


@pytest.mark.parametrize("c", CURVATURES)
def test_coordinates_after_a_linear_layer_are_its_logits(c):
    x = points(50, 3, c=c)
    rng = np.random.default_rng(0)
    normals = (0.3 * rng.standard_normal((3, 4))).astype(np.float32)
    offsets = (0.1 * rng.standard_normal(4)).astype(np.float32)
    y = poincare.linear(x, normals, offsets, c=c)
    logits = poincare.multinomial_logits(x, normals, offsets, c=c)
    space = lorentz.from_poincare(y, c=c)
    distances = np.arcsinh(np.sqrt(c) * np.asarray(space)) / np.sqrt(c)
    np.testing.assert_allclose(distances, logits, rtol=2e-4, atol=1e-5)
    same = poincare.linear(x, 0.5 * np.eye(3, dtype=np.float32), jnp.zeros(3), c=c)
    np.testing.assert_allclose(same, x, rtol=1e-4, atol=1e-6)
