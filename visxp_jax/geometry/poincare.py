"""The Poincare ball of curvature -c: points x with c |x|^2 < 1.

All functions take points [..., d], float32 or float64, and broadcast as jax does; c is
one positive number. Distances to points outside are NaN; what else is asked of these
has no meaning. Lengths are measured with the
factor 2 / (1 - c |x|^2), so that d(0, x) = 2 artanh(sqrt c |x|) / sqrt c, and `exp0` of
a vector v lies at distance 2 |v|.

Everything that depends on two points is written by their difference and by

    z = c |x - y|^2 / ((1 - c |x|^2) (1 - c |y|^2)) = sinh(sqrt c d(x, y) / 2)^2,

which keeps its digits where points are close to each other or to the boundary, and has
finite derivatives where they coincide. Artanh of the length of a Mobius sum and arcosh,
the usual forms, do not.

Source: Ungar, Analytic hyperbolic geometry, 2005; Ganea et al., Hyperbolic neural
networks, 2018; Shimizu et al., Hyperbolic neural networks++, 2021.
"""

from typing import Any

import jax
import jax.numpy as jnp

from visxp_jax.geometry.smooth import (
    artanhc,
    asinhc,
    check_number,
    dot,
    safe_sqrt,
    square_asinh,
    tanhc,
)

Curvature = float | jax.Array  # c > 0


def _inside(x: jax.Array, c: Curvature) -> jax.Array:
    """1 - c |x|^2, [..., 1]."""
    check_number(c)
    return 1 - c * dot(x, x)


def _ratio(x: jax.Array, y: jax.Array, c: Curvature) -> jax.Array:
    """The z above, [..., 1]; NaN outside."""
    a, b = _inside(x, c), _inside(y, c)
    return jnp.where((a >= 0) & (b >= 0), c * dot(x - y, x - y) / (a * b), jnp.nan)


def _moderate(x: jax.Array, c: Curvature) -> jax.Array:
    """A vector whose square is finite: one far outside is shortened, still outside."""
    most = jnp.sqrt(c) * jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    return x / jax.lax.stop_gradient(jnp.maximum(most / 1e9, 1))


def conformal_factor(x: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """2 / (1 - c |x|^2), [..., 1]: how long a unit vector at x is.

    Args:
        x: [..., d] in the ball.
        c: Curvature is -c.
    """
    return 2 / _inside(x, c)


def project(
    x: jax.Array, *, c: Curvature = 1.0, margin: float | None = None
) -> jax.Array:
    """The point itself, or the nearest that is `margin` of the radius off the boundary.

    Args:
        x: [..., d], anywhere.
        c: Curvature is -c.
        margin: In (0, 1); None for 1e-5 in float32 (distance 12.2 from 0, if c is 1),
            1e-12 in float64, and what shorter types can tell from 1.
    """
    x = _moderate(jnp.asarray(x), c)
    if margin is None:
        least = 1e-12 if x.dtype == jnp.float64 else 1e-5
        margin = max(least, 2 * float(jnp.finfo(x.dtype).eps))
    length = safe_sqrt(c * dot(x, x))
    outside = length > 1 - margin
    return jnp.where(outside, x * (1 - margin) / jnp.where(outside, length, 1), x)


def squared_distance(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """d(x, y)^2, [...]; smooth everywhere, also where x = y.

    Args:
        x: [..., d] in the ball.
        y: [..., d] in the ball.
        c: Curvature is -c.
    """
    return 4 / c * square_asinh(_ratio(x, y, c))[..., 0]


def distance(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """d(x, y), [...]; where x = y its derivative is taken as 0.

    Args:
        x: [..., d] in the ball.
        y: [..., d] in the ball.
        c: Curvature is -c.
    """
    return safe_sqrt(squared_distance(x, y, c=c))


def pairwise_squared_distance(
    x: jax.Array, y: jax.Array, *, c: Curvature = 1.0
) -> jax.Array:
    """d(x_i, y_j)^2, [n, m].

    By differences, not by a matrix product, which loses close pairs. Compiled, no array
    [n, m, d] is made; but its gradient makes one.

    Args:
        x: [n, d] in the ball.
        y: [m, d] in the ball.
        c: Curvature is -c.
    """
    return squared_distance(x[:, None], y[None], c=c)


def pairwise_distance(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """d(x_i, y_j), [n, m], see `pairwise_squared_distance`.

    Args:
        x: [n, d] in the ball.
        y: [m, d] in the ball.
        c: Curvature is -c.
    """
    return safe_sqrt(pairwise_squared_distance(x, y, c=c))


def mobius_add(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """Mobius sum [..., d]: y carried along by the isometry that takes 0 to x.

    Args:
        x: [..., d] in the ball.
        y: [..., d] in the ball.
        c: Curvature is -c.
    """
    # By x + y, the difference of y and -x: both terms are small where they cancel.
    total = x + y
    rest = c * dot(total, total)
    denominator = _inside(x, c) * _inside(y, c) + rest
    return (_inside(x, c) * total + rest * x) / denominator


def exp0(v: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """Point [..., d] at distance 2 |v| from 0 in the direction of v, see `project`.

    Args:
        v: [..., d], any vector.
        c: Curvature is -c.
    """
    v = _moderate(v, c)
    return project(tanhc(c * dot(v, v)) * v, c=c)


def log0(x: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """The v of which `exp0` is x, [..., d].

    Args:
        x: [..., d] in the ball.
        c: Curvature is -c.
    """
    return artanhc(c * dot(x, x)) * x


def exp(x: jax.Array, v: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """End [..., d] of the geodesic that leaves x with velocity v, see `project`.

    Args:
        x: [..., d] in the ball.
        v: [..., d], of length |v| * `conformal_factor(x)`.
        c: Curvature is -c.
    """
    half = v / _inside(x, c)
    return project(mobius_add(x, tanhc(c * dot(half, half)) * half, c=c), c=c)


def log(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """The v of which `exp` from x is y, [..., d].

    Args:
        x: [..., d] in the ball.
        y: [..., d] in the ball.
        c: Curvature is -c.
    """
    # artanhc of the squared length of the Mobius sum, z / (1 + z), by z.
    z = _ratio(x, y, c)
    return _inside(x, c) * (1 + z) * asinhc(z) * mobius_add(-x, y, c=c)


def transport(
    x: jax.Array, y: jax.Array, v: jax.Array, *, c: Curvature = 1.0
) -> jax.Array:
    """A vector v at x moved to y along the geodesic, [..., d]; its length stays.

    Args:
        x: [..., d] in the ball.
        y: [..., d] in the ball.
        v: [..., d].
        c: Curvature is -c.
    """
    return gyration(y, -x, v, c=c) * _inside(y, c) / _inside(x, c)


def gyration(
    x: jax.Array, y: jax.Array, v: jax.Array, *, c: Curvature = 1.0
) -> jax.Array:
    """The rotation gyr[x, y] v = -(x (+) y) (+) (x (+) (y (+) v)), [..., d].

    Args:
        x: [..., d] in the ball.
        y: [..., d] in the ball.
        v: [..., d], any vector.
        c: Curvature is -c.
    """
    # By twice the angle of 1 + c x y* in the plane of x and y, and its sine and cosine
    # by sums that do not cancel.
    total = x + y

    def turned(v: jax.Array) -> jax.Array:
        return c * (x * dot(total, v) - total * dot(x, v))

    inside, rest = _inside(x, c) * _inside(y, c), c * dot(total, total)
    cosine = (_inside(x, c) + _inside(y, c) + rest) / 2
    once = turned(v)
    return v + 2 * (cosine * once + turned(once)) / (inside + rest)


def midpoint(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """Halfway on the geodesic, [..., d]: the same for (y, x).

    Args:
        x: [..., d] in the ball.
        y: [..., d] in the ball.
        c: Curvature is -c.
    """
    a, b = conformal_factor(x, c=c), conformal_factor(y, c=c)
    return (a * x + b * y) / (2 * jnp.sqrt(1 + _ratio(x, y, c)) + a + b - 2)


def einstein_mean(
    x: jax.Array, weights: jax.Array | None = None, *, c: Curvature = 1.0
) -> jax.Array:
    """Weighted sum on the hyperboloid, brought back to it: [..., d] of [..., n, d].

    In closed form; also called gyromidpoint, or Klein mean. `frechet_mean` is nearer
    to all points.

    Args:
        x: [..., n, d] in the ball.
        weights: [..., n] >= 0, of any positive sum; None for equal ones.
        c: Curvature is -c.
    """
    w = jnp.ones(x.shape[:-1], x.dtype) if weights is None else weights
    w = jnp.broadcast_to(w, x.shape[:-1])[..., None]
    w = w / jnp.sum(w, axis=-2, keepdims=True)
    # Seen from a point among them, where they are not all near the boundary, the sum
    # keeps its digits. Which point that is changes nothing else.
    zero = jnp.zeros_like(x[..., :1, :])
    begin = jax.lax.stop_gradient(project(_mean_from(zero, x, w, c), c=c))
    return _mean_from(begin, x, w, c)[..., 0, :]


def _mean_from(at: jax.Array, x: jax.Array, w: jax.Array, c: Curvature) -> jax.Array:
    """Einstein mean [..., 1, d] of points as they are seen from one, [..., 1, d]."""
    # The factor 2 / (1 - c |y|^2) of what is seen at y is 2 (1 + z).
    z = _ratio(at, x, c)
    space = jnp.sum(w * 2 * (1 + z) * mobius_add(-at, x, c=c), axis=-2, keepdims=True)
    time = jnp.sum(w * (1 + 2 * z), axis=-2, keepdims=True)
    # Lorentz norm of the sum: 1 if all points are the same, more otherwise.
    norm = jnp.sqrt(jnp.maximum(time**2 - c * dot(space, space), 1.0))
    return mobius_add(at, space / (norm + time), c=c)


def frechet_mean(
    x: jax.Array,
    weights: jax.Array | None = None,
    *,
    c: Curvature = 1.0,
    tol: float = 1e-6,
    max_iters: int = 100,
) -> jax.Array:
    """Point of least weighted sum of squared distances, [..., d] of [..., n, d].

    That sum is a concave function of -<X_i, M> on the hyperboloid, so that the Einstein
    mean with weights w_i * d / sinh(d) of the last distances d never makes it worse: no
    step size (a majorisation; Lou et al., Differentiating through the Frechet mean,
    2020, have another). Derivatives are those of the exact mean, by the implicit
    function theorem, in time of d^3.

    Args:
        x: [..., n, d] in the ball.
        weights: [..., n] >= 0, of any positive sum; None for equal ones.
        c: Curvature is -c.
        tol: Stop once no mean moves further than this, as a distance.
        max_iters: Largest number of iterations.
    """
    w = jnp.ones(x.shape[:-1], x.dtype) if weights is None else weights
    w = jnp.broadcast_to(w / jnp.sum(w, axis=-1, keepdims=True), x.shape[:-1])
    if x.ndim > 2:
        mean = _frechet_mean
        for _ in range(x.ndim - 2):
            mean = jax.vmap(mean, in_axes=(0, 0, None, None, None))
        return mean(x, w, c, tol, max_iters)
    return _frechet_mean(x, w, c, tol, max_iters)


def _frechet_mean(
    x: jax.Array, w: jax.Array, c: Curvature, tol: float, max_iters: int
) -> jax.Array:
    def gradient(mean: jax.Array) -> jax.Array:
        return jnp.sum(w[:, None] * log(mean[None], x, c=c), axis=0)

    def solve(_: Any, begin: jax.Array) -> jax.Array:
        def move(state: tuple) -> tuple:
            mean, _, i = state
            new = einstein_mean(x, w * asinhc(_ratio(mean[None], x, c))[:, 0], c=c)
            return new, distance(mean, new, c=c), i + 1

        def unfinished(state: tuple) -> jax.Array:
            return (state[1] > tol) & (state[2] < max_iters)

        far = jnp.asarray(jnp.inf, x.dtype)
        return jax.lax.while_loop(unfinished, move, (begin, far, jnp.int32(0)))[0]

    def invert(linear: Any, y: jax.Array) -> jax.Array:
        return jnp.linalg.solve(jax.jacobian(linear)(jnp.zeros_like(y)), y)

    begin = jax.lax.stop_gradient(einstein_mean(x, w, c=c))
    return jax.lax.custom_root(gradient, begin, solve, invert)


def lca_depth(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """Distance [...] from 0 of the point of the geodesic x-y that is nearest to 0.

    That point is what stands for the lowest common ancestor of two leaves (Chami et
    al., From trees to continuous embeddings and back, 2020). There it is of the whole
    line through x and y; here of the segment, which differs where one of them lies
    nearly behind the other: an ancestor is never deeper than its descendants.

    Args:
        x: [..., d] in the ball.
        y: [..., d] in the ball.
        c: Curvature is -c.
    """
    root = jnp.sqrt(c)
    p, q = safe_sqrt(c * dot(x, x)), safe_sqrt(c * dot(y, y))
    near, far = jnp.minimum(p, q), jnp.maximum(p, q)
    # By differences: p - q, and of the angle, 4 p q times the squared sine and cosine
    # of its half.
    gap = jnp.abs(c * dot(x - y, x + y)) / jnp.where(far > 0, p + q, 1)
    sine = jnp.maximum(c * dot(x - y, x - y) - gap**2, 0.0)
    cosine = jnp.maximum(c * dot(x + y, x + y) - gap**2, 0.0)
    # The foot of 0 lies between x and y if the angle is wide enough.
    between = sine * (1 + near**2) > 2 * near * gap * (1 - near * far)
    # sine cosine / (z (1 + z)), without the factors that both have.
    apart = c * dot(x - y, x - y)
    across = cosine / (_inside(x, c) * _inside(y, c) + apart)
    square = sine / jnp.where(between, apart, 1.0) * across
    foot = safe_sqrt(square_asinh(jnp.where(between, square, 0.0)))
    return (jnp.where(between, foot, 2 * jnp.arctanh(near)) / root)[..., 0]


def multinomial_logits(
    x: jax.Array, normals: jax.Array, offsets: jax.Array, *, c: Curvature = 1.0
) -> jax.Array:
    """Logits [..., k] of hyperbolic multinomial regression: HNN++, eq. 6.

    Signed distances to k hyperbolic hyperplanes, times twice the lengths of normals.

    Args:
        x: [..., d] in the ball.
        normals: [d, k], any vectors.
        offsets: [k], half the distance of each plane from 0, along its normal.
        c: Curvature is -c.
    """
    root = jnp.sqrt(c)
    length = safe_sqrt(jnp.sum(normals**2, axis=0))
    unit = normals / jnp.where(length > 0, length, 1)[None]
    factor = conformal_factor(x, c=c)
    shape = (1,) * (x.ndim - 1) + offsets.shape
    # Planes further away than float32 reaches are all the same.
    shift = jnp.clip(2 * root * offsets, -30, 30).reshape(shape)
    along = root * factor * jnp.matmul(x, unit, precision=jax.lax.Precision.HIGHEST)
    inner = along * jnp.cosh(shift) - (factor - 1) * jnp.sinh(shift)
    return (2 * length / root).reshape(shape) * jnp.arcsinh(inner)


def linear(
    x: jax.Array, normals: jax.Array, offsets: jax.Array, *, c: Curvature = 1.0
) -> jax.Array:
    """Layer from the ball of d to that of k dimensions, [..., k]: HNN++, eq. 7.

    The result is kept off the boundary, see `project`.

    The i-th logit of x is the signed distance of the result to the i-th coordinate
    plane.

    Args:
        x: [..., d] in the ball.
        normals: [d, k].
        offsets: [k].
        c: Curvature is -c.
    """
    root = jnp.sqrt(c)
    logits = multinomial_logits(x, normals, offsets, c=c)
    # sinh(15) is the boundary in float32.
    space = jnp.sinh(jnp.clip(root * logits, -15, 15)) / root
    return project(space / (1 + jnp.sqrt(1 + c * dot(space, space))), c=c)
