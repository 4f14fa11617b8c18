"""Both models against textbook formulas in float64, their laws, and hard points."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.geometry import lorentz, poincare

CURVATURES = [1.0, 0.3, 4.0]


def points(n: int, d: int = 3, *, c: float = 1.0, most: float = 0.9, seed: int = 0):
    """Float32, at lengths up to `most` of the radius."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    x *= most * rng.uniform(0, 1, (n, 1)) / np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.sqrt(c)).astype(np.float32)


def dot(x, y):
    return (x * y).sum(-1, keepdims=True)


class Book:
    """The usual formulas, NumPy float64."""

    def __init__(self, c: float) -> None:
        self.c = c

    def add(self, x, y):
        c, xy, xx, yy = self.c, dot(x, y), dot(x, x), dot(y, y)
        top = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
        return top / (1 + 2 * c * xy + c**2 * xx * yy)

    def distance(self, x, y):
        c = self.c
        length = np.linalg.norm(self.add(-x, y), axis=-1)
        return 2 / np.sqrt(c) * np.arctanh(np.sqrt(c) * length)

    def factor(self, x):
        return 2 / (1 - self.c * dot(x, x))

    def exp(self, x, v):
        root, length = np.sqrt(self.c), np.linalg.norm(v, axis=-1, keepdims=True)
        step = np.tanh(root * self.factor(x) * length / 2) * v / (root * length)
        return self.add(x, step)

    def log(self, x, y):
        root, w = np.sqrt(self.c), self.add(-x, y)
        length = np.linalg.norm(w, axis=-1, keepdims=True)
        return 2 / (root * self.factor(x)) * np.arctanh(root * length) * w / length

    def gyration(self, x, y, v):
        add = self.add
        return add(-add(x, y), add(x, add(y, v)))

    def hyperboloid(self, x):
        """All d + 1 coordinates, the time last."""
        factor = self.factor(x)
        return np.concatenate([factor * x, (factor - 1) / np.sqrt(self.c)], axis=-1)

    def depth(self, x, y):
        """Of the chord in Klein's model, cut off at its ends."""
        kx, ky = (2 * p / (1 + self.c * dot(p, p)) for p in (x, y))
        way = ky - kx
        at = np.clip(-dot(kx, way) / np.maximum(dot(way, way), 1e-300), 0, 1)
        foot = np.linalg.norm(kx + at * way, axis=-1)
        return np.arctanh(np.sqrt(self.c) * foot) / np.sqrt(self.c)


def wide(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


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
        found = jax.vmap(lambda c, f=function: f(x[0], x[1], c=c))(c)
        np.testing.assert_allclose(found[1], function(x[0], x[1], c=0.5), rtol=1e-6)


@pytest.mark.parametrize("c", [1.0, 1e-12])
def test_what_is_very_far_stays_on_its_side(c):
    far = jnp.array([1e30, -1e30], jnp.float32)
    for point in (poincare.project(far, c=c), poincare.exp0(far, c=c)):
        side = (1 - 1e-5) * np.sqrt(0.5 / c) * np.array([1, -1])
        np.testing.assert_allclose(point, side, rtol=1e-5)


def test_projection_of_short_floats_is_inside():
    for kind in (jnp.bfloat16, jnp.float16):
        point = poincare.project(jnp.array([5.0, 0.0], kind))
        assert point.dtype == kind
        assert float(point[0]) < 1
        assert np.isfinite(float(poincare.distance(point, 0 * point)))


def test_float64_from_numpy_is_taken():
    x, y = np.array([0.1, 0.2]), np.array([0.0, 0.3])
    for function in (poincare.lca_depth, lorentz.distance, poincare.distance):
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
FUNCTIONS = {
    "squared_distance": poincare.squared_distance,
    "distance": poincare.distance,
    "mobius_add": poincare.mobius_add,
    "exp": poincare.exp,
    "log": poincare.log,
    "exp0": lambda x, y: poincare.exp0(x),
    "log0": lambda x, y: poincare.log0(x),
    "transport": lambda x, y: poincare.transport(x, y, x),
    "midpoint": poincare.midpoint,
    "project": lambda x, y: poincare.project(x + y),
    "einstein_mean": lambda x, y: poincare.einstein_mean(jnp.stack([x, y], axis=-2)),
    "frechet_mean": lambda x, y: poincare.frechet_mean(jnp.stack([x, y], axis=-2)),
    "lca_depth": poincare.lca_depth,
    "linear": lambda x, y: poincare.linear(x, jnp.eye(2), y[:2]),
    "zero normals": lambda x, y: poincare.linear(x, jnp.zeros((2, 2)), y[:2]),
    "lorentz.distance": lambda x, y: lorentz.distance(
        lorentz.from_poincare(x), lorentz.from_poincare(y)
    ),
    "lorentz.exp": lorentz.exp,
    "lorentz.log": lorentz.log,
    "lorentz.log0": lambda x, y: lorentz.log0(x),
    "lorentz.exp0": lambda x, y: lorentz.exp0(x),
    "lorentz.mean": lambda x, y: lorentz.mean(jnp.stack([x, y], axis=-2)),
    "lorentz.transport": lambda x, y: lorentz.transport(x, y, x),
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
            found = jax.hessian(function)(x)
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
    hessian = jax.hessian(poincare.squared_distance)(x, x)
    factor = poincare.conformal_factor(x)[0]
    np.testing.assert_allclose(hessian, 2 * factor**2 * np.eye(2), rtol=1e-4, atol=1e-3)


def test_frechet_mean_is_the_least_sum_and_its_derivative_is_exact():
    with jax.enable_x64(True):
        x = jnp.asarray(points(12, 2, c=0.5, seed=3), jnp.float64)
        w = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, 12))

        def mean(x, w):
            return poincare.frechet_mean(x, w, c=0.5, tol=1e-13)

        def cost(at):
            far = poincare.squared_distance(at[None], x, c=0.5)
            return jnp.sum(w * far)

        found = mean(x, w)
        assert np.abs(jax.grad(cost)(found)).max() < 1e-10
        assert cost(found) < cost(poincare.einstein_mean(x, w, c=0.5))
        for i, args in ((0, (x, w)), (1, (x, w))):
            exact = jax.jacobian(mean, argnums=i)(*args)
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
    value, (of_x, of_y) = jax.value_and_grad(poincare.lca_depth, (0, 1))(x, x)
    assert value == pytest.approx(2 * np.arctanh(0.5), rel=1e-6)
    np.testing.assert_array_equal(of_x, of_y)
    np.testing.assert_allclose(of_x + of_y, 2 / 0.75 * x / 0.5, rtol=1e-5)


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
