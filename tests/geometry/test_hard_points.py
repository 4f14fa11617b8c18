"""Points near the boundary, close to each other, far out, and none at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.geometry.reference import (
    CURVATURES,
    FUNCTIONS,
    Book,
    dot,
    lorentz,
    poincare,
    points,
    wide,
)
from visxp_jax.geometry import lorentz as hyperboloid
from visxp_jax.geometry import poincare as ball


def test_projection_moves_points_outside_and_no_others():
    x = np.array([[0.3, 0.4], [3.0, 4.0], [0.0, 0.0], [0.6, 0.8]], np.float32)
    found = np.asarray(poincare.project(x))
    np.testing.assert_array_equal(found[[0, 2]], x[[0, 2]])
    np.testing.assert_allclose(found[1], (1 - 1e-5) * x[3], rtol=1e-6)
    assert (np.linalg.norm(found, axis=1) < 1).all()
    half = poincare.project(x, c=4.0, margin=0.1)
    np.testing.assert_allclose(half[1], [0.27, 0.36], rtol=1e-6)
    assert np.isfinite(poincare.distance(found[:1], found[1:2])).all()


def test_curvature_is_one_number():
    x, c = points(2), jnp.array([1.0, 0.5])
    for function in (poincare.distance, lorentz.distance):
        with pytest.raises(ValueError, match="c must be one number, got shape"):
            function(x, x, c=c)
        found = jax.jit(jax.vmap(lambda c, f=function: f(x[0], x[1], c=c)))(c)
        np.testing.assert_allclose(found[1], function(x[0], x[1], c=0.5), rtol=1e-6)


@pytest.mark.parametrize("c", [1.0, 1e-12])
def test_what_is_very_far_stays_on_its_side(c):
    far = jnp.array([1e30, -1e30], jnp.float32)
    for point in (poincare.project(far, c=c), poincare.exp0(far, c=c)):
        side = (1 - 1e-5) * np.sqrt(0.5 / c) * np.array([1, -1])
        np.testing.assert_allclose(point, side, rtol=1e-5)


def test_projection_of_short_floats_is_inside():
    for kind in (jnp.bfloat16, jnp.float16):
        point = ball.project(jnp.array([5.0, 0.0], kind))
        assert point.dtype == kind
        assert float(point[0]) < 1
        assert np.isfinite(float(ball.distance(point, 0 * point)))


def test_float64_from_numpy_is_taken():
    x, y = np.array([0.1, 0.2]), np.array([0.0, 0.3])
    for function in (ball.lca_depth, hyperboloid.distance, ball.distance):
        expected = function(jnp.float32(x), jnp.float32(y))
        np.testing.assert_allclose(function(x, y), expected, rtol=1e-6)


# Float32 against the same points in float64: median and largest relative error. Of
# points at one length r, in random directions or `apart` (as an angle) of each other.
@pytest.mark.parametrize(
    ("r", "apart", "median", "largest"),
    [
        (0.9, None, 1e-7, 1e-6),
        (0.9, 1e-3, 2e-7, 1.5e-6),
        (0.99, 1e-6, 2e-6, 1.2e-5),
        (0.999, None, 4e-6, 3e-5),
        (0.9999, None, 3e-5, 1.5e-4),
    ],
)
def test_distances_keep_their_digits_near_the_boundary(r, apart, median, largest):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 20_000, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    if apart is not None:
        y = x + apart * y
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    x, y = (r * x).astype(np.float32), (r * y).astype(np.float32)
    kept = (x != y).any(axis=1)
    x, y = x[kept], y[kept]
    x_, y_ = wide(x, y)
    inside = (1 - dot(x_, x_)) * (1 - dot(y_, y_))
    expected = 2 * np.arcsinh(np.sqrt(dot(x_ - y_, x_ - y_) / inside))[:, 0]
    error = np.abs(np.asarray(poincare.distance(x, y), np.float64) / expected - 1)
    assert np.median(error) < median
    assert error.max() < largest


HARD = {
    "origin": ([0.0, 0.0], [0.0, 0.0]),
    "coincident": ([0.6, 0.5], [0.6, 0.5]),
    "close": ([0.6, 0.5], [0.6, 0.5000001]),
    "opposite": ([0.6, 0.5], [-0.6, -0.5]),
    "one behind the other": ([0.3, 0.3], [0.6, 0.6]),
    "one at the origin": ([0.0, 0.0], [0.6, 0.5]),
    "boundary": ([0.99999, 0.0], [0.0, 0.99999]),
    "boundary, coincident": ([0.99999, 0.0], [0.99999, 0.0]),
    "tiny": ([1e-20, 0.0], [0.0, 1e-20]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_finite_at_hard_points(name):
    def total(x, y):
        return jnp.sum(FUNCTIONS[name](x, y))

    x, y = (jnp.array(p, jnp.float32) for p in zip(*HARD.values(), strict=True))
    run = jax.jit(jax.vmap(jax.value_and_grad(total, argnums=(0, 1))))
    value, gradients = run(x, y)
    for i, point in enumerate(HARD):
        assert np.isfinite(value[i]), point
        for gradient in gradients:
            assert np.isfinite(np.asarray(gradient[i])).all(), point


@pytest.mark.parametrize("at", [[0.0, 0.0], [0.3, 0.2]])
def test_second_derivatives_are_those_of_finite_differences(at):
    with jax.enable_x64(True):
        x, y = jnp.array(at), jnp.array([0.5, -0.1])
        functions = {
            "distance": lambda x: poincare.squared_distance(x, y),
            "factor": lambda x: poincare.conformal_factor(x)[0],
            "log": lambda x: jnp.sum(poincare.log(x, y)),
            "exp0": lambda x: jnp.sum(poincare.exp0(x)),
            "hyperboloid": lambda x: lorentz.squared_distance(x, y),
        }
        for name, function in functions.items():
            steps = 1e-5 * np.eye(2)
            gradient = jax.jit(jax.grad(function))
            expected = [(gradient(x + s) - gradient(x - s)) / 2e-5 for s in steps]
            found = jax.jit(jax.hessian(function))(x)
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


def test_points_that_are_none_give_nan():
    inside = np.array([0.5, 0.0], np.float32)
    for bad in ([np.nan, 0.0], [1.01, 0.0]):
        x = np.array(bad, np.float32)
        for other in (inside, -x):
            assert np.isnan(poincare.distance(x, other)), bad
    x = np.array([np.nan, 0.0], np.float32)
    assert np.isnan(poincare.lca_depth(x, inside))
    assert np.isnan(lorentz.distance(x, inside))


@pytest.mark.parametrize(
    ("r", "largest"), [(0.99, 1e-4), (0.999, 1e-3), (0.9999, 0.02)]
)
def test_vectors_keep_their_digits_on_the_way_near_the_boundary(r, largest):
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((2, 2000, 4))
    y = x + 1e-3 * rng.standard_normal((2000, 4)) * (1 - r) / 0.001
    x, y = (r * p / np.linalg.norm(p, axis=1, keepdims=True) for p in (x, y))
    x, y, v = (p.astype(np.float32) for p in (x, y, v))
    book, (x_, y_, v_) = Book(1.0), wide(x, y, v)
    moved = book.gyration(y_, -x_, v_) * book.factor(x_) / book.factor(y_)
    found = np.asarray(poincare.transport(x, y, v), np.float64)
    error = np.linalg.norm(found - moved, axis=1) / np.linalg.norm(moved, axis=1)
    assert error.max() < largest
    np.testing.assert_allclose(poincare.transport(x, x, v), v, rtol=1e-6)


@pytest.mark.parametrize("c", CURVATURES)
def test_what_is_too_far_for_float32_stays_in_the_ball(c):
    far = jnp.array([[8.0, 0.0], [300.0, 400.0]]) / np.sqrt(c)
    x = points(2, 2, c=c)
    for point in (
        poincare.exp0(far, c=c),
        poincare.exp(x, far, c=c),
        poincare.linear(x, 30 * jnp.eye(2), jnp.array([50.0, -50.0]), c=c),
    ):
        assert (np.sqrt(c) * np.linalg.norm(point, axis=1) < 1).all()
        assert np.isfinite(poincare.distance(point, x, c=c)).all()
        assert np.isfinite(poincare.log0(point, c=c)).all()
        assert (poincare.distance(point, 0 * point, c=c) * np.sqrt(c) > 2).all()


@pytest.mark.parametrize("length", [0.5, 3.0])
def test_hyperboloid_keeps_close_points_apart(length):
    """Arcosh of 1 + 1e-6 would have one digit."""
    x = points(500)
    x *= length / np.linalg.norm(x, axis=1, keepdims=True)
    y = x + 1e-3 * points(500, seed=1)
    x_, y_ = wide(x, y)
    time = np.sqrt(1 + dot(x_, x_)), np.sqrt(1 + dot(y_, y_))
    square = dot(x_ - y_, x_ - y_) - (time[0] - time[1]) ** 2
    expected = 2 * np.arcsinh(np.sqrt(square) / 2)[:, 0]
    np.testing.assert_allclose(lorentz.distance(x, y), expected, rtol=2e-3)


def test_hyperboloid_reaches_as_far_as_it_says():
    """Values everywhere, derivatives up to 20."""
    length = np.repeat([15.0, 20.0, 32.0, 42.0], 2)
    angle = np.tile([0.7, 1.6], 4)
    way = np.stack(
        [
            np.stack([np.ones(8), np.zeros(8)], axis=1),
            np.stack([np.cos(angle), np.sin(angle)], axis=1),
        ],
        axis=1,
    )
    with jax.enable_x64(True):
        far = length[:, None, None] * np.array([1, 0.9])[None, :, None]
        pair = lorentz.exp0(jnp.asarray(way * far))
    pair = np.asarray(pair, np.float32)

    def total(pair, length):
        x, y = pair
        value = jnp.concatenate(
            [
                lorentz.distance(x, y)[None] / length,
                lorentz.log(x, y) / lorentz.time(x),
                lorentz.log0(x) / length,
                lorentz.mean(pair) / lorentz.time(pair[0]),
            ]
        )
        return jnp.sum(value * jnp.cos(jnp.arange(7, dtype=value.dtype))), value

    def both(pair, length):
        slope, value = jax.jit(jax.vmap(jax.grad(total, has_aux=True)))(pair, length)
        return np.asarray(value, np.float64), np.asarray(slope, np.float64)

    value, slope = both(pair, np.float32(length))
    with jax.enable_x64(True):
        value_, slope_ = both(np.float64(pair), length)
    np.testing.assert_allclose(value, value_, rtol=1e-5, atol=1e-6)
    scale = np.abs(slope_).max(axis=2, keepdims=True)
    near = length <= 20
    np.testing.assert_allclose((slope / scale)[near], (slope_ / scale)[near], atol=1e-4)


@pytest.mark.parametrize("c", CURVATURES)
def test_hyperboloid_keeps_far_points_apart(c):
    """Where the ball has long rounded them onto its boundary."""
    way = jnp.array([[0.6, 0.8], [0.6, 0.8], [-0.8, 0.6], [0.6, 0.8]])
    a, b = jnp.array([10.0, 8, 15, 20]), jnp.array([11.0, 9, 16, 0.3])
    other = jnp.array([[0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.8, -0.6]])
    x = lorentz.exp0(way * a[:, None] / np.sqrt(c), c=c)
    y = lorentz.exp0(other * b[:, None] / np.sqrt(c), c=c)
    cosine = np.sum(way * other, axis=1)
    a_, b_ = wide(a, b)
    cosh = np.cosh(a_ - b_) + np.sinh(a_) * np.sinh(b_) * (1 - cosine)
    expected = np.arccosh(cosh) / np.sqrt(c)
    np.testing.assert_allclose(lorentz.distance(x, y, c=c), expected, rtol=1e-4)
    # The unit vector that points away from the origin.
    x, way = x[:2], way[:2]
    out = np.sqrt(c) * lorentz.time(x, c=c)[:, None] * way
    np.testing.assert_allclose(lorentz.inner(x, out, out, c=c), 1.0, rtol=1e-3)


def test_squared_distance_is_smooth_where_points_coincide():
    x = jnp.array([0.6, 0.5])
    hessian = jax.jit(jax.hessian(poincare.squared_distance))(x, x)
    factor = poincare.conformal_factor(x)[0]
    np.testing.assert_allclose(hessian, 2 * factor**2 * np.eye(2), rtol=1e-4, atol=1e-3)
