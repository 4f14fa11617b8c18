"""The hyperboloid of curvature -c: -t^2 + |x|^2 = -1 / c, t > 0, by its x alone.

All functions take the space part x [..., d] of points, any vector, and the space part
of tangent vectors; the time part follows from it (`time`), so that no rounding ever
takes a point off the hyperboloid. There is no boundary: points that are further away
than float32 reaches in the ball are still apart here, up to distance 43 from the
origin, where the squares of their coordinates overflow; derivatives are right up to 20.
Close pairs keep more digits in the ball.

Source: Nickel and Kiela, Learning continuous hierarchies in the Lorentz model of
hyperbolic geometry, 2018. Differs in: distances by differences, not by arcosh.
"""

import jax
import jax.numpy as jnp

from visxp_jax.geometry.poincare import Curvature
from visxp_jax.geometry.smooth import (
    asinhc,
    check_number,
    dot,
    safe_sqrt,
    sinhc,
    square_asinh,
)


def _time(x: jax.Array, c: Curvature) -> jax.Array:
    return jnp.sqrt(1 / c + dot(x, x))


def _unit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Direction and length."""
    length = safe_sqrt(dot(x, x))
    return x / jnp.where(length > 0, length, 1), length


def _ratio(x: jax.Array, y: jax.Array, c: Curvature) -> jax.Array:
    """sinh(sqrt c d / 2)^2, [..., 1], as in `poincare`.

    Far from the origin by the difference of distances from there, and by the angle:
    differences of coordinates would cancel.
    """
    check_number(c)
    root = jnp.sqrt(c)
    (u, p), (v, q) = _unit(root * x), _unit(root * y)
    near, far = jnp.minimum(p, q), jnp.maximum(p, q)
    plain = _near_ratio(x, y, c)
    # One of them near the origin, the other not: nothing cancels.
    across = (c * _time(x, c) * _time(y, c) - c * dot(x, y) - 1) / 2
    gap = dot(root * (x - y), u * p + v * q)  # p^2 - q^2
    sides = p * jnp.sqrt(1 + q**2) + q * jnp.sqrt(1 + p**2)
    gap = gap / jnp.where(near > 1, sides, 1)
    along = gap**2 / (2 + 2 * jnp.sqrt(1 + gap**2))
    cosine = dot(u, v)
    aside = root * (y - x)
    aside = aside - u * dot(u, aside)
    small = (near > 1) & (cosine > 0)
    aside = jnp.where(small, aside, 0.0)
    narrow = dot(aside, aside * (p / jnp.where(small, q * (1 + cosine), 1)))
    turn = jnp.where(small, narrow, p * q * (1 - cosine))
    return jnp.where(near > 1, along + turn / 2, jnp.where(far > 10, across, plain))


def _near_ratio(x: jax.Array, y: jax.Array, c: Curvature) -> jax.Array:
    space = y - x
    time = dot(space, x + y) / (_time(x, c) + _time(y, c))
    return jnp.maximum(c / 4 * (dot(space, space) - time**2), 0.0)


def time(x: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """Time part of points, [...].

    Args:
        x: [..., d].
        c: Curvature is -c.
    """
    return _time(x, c)[..., 0]


def from_poincare(x: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """The point [..., d] that is x in the ball.

    Args:
        x: [..., d] in the ball.
        c: Curvature is -c.
    """
    length = safe_sqrt(c * dot(x, x))
    return 2 * x / ((1 - length) * (1 + length))


def to_poincare(x: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """The point in the ball, [..., d]; far points may be rounded onto its boundary.

    Args:
        x: [..., d].
        c: Curvature is -c.
    """
    return x / (1 + jnp.sqrt(c) * _time(x, c))


def squared_distance(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """d(x, y)^2, [...]; smooth everywhere, also where x = y.

    Args:
        x: [..., d].
        y: [..., d].
        c: Curvature is -c.
    """
    return 4 / c * square_asinh(_ratio(x, y, c))[..., 0]


def distance(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """d(x, y), [...]; where x = y its derivative is taken as 0.

    Args:
        x: [..., d].
        y: [..., d].
        c: Curvature is -c.
    """
    return safe_sqrt(squared_distance(x, y, c=c))


def inner(x: jax.Array, u: jax.Array, v: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """Product [...] of two tangent vectors at x.

    Args:
        x: [..., d].
        u: [..., d], space part.
        v: [..., d], space part.
        c: Curvature is -c.
    """
    t = _time(x, c)
    plain = dot(u, v) - dot(x, u) / t * (dot(x, v) / t)
    # Far from the origin by the parts along x, which nearly vanish, and the others.
    unit, length = _unit(x)
    a, b = dot(unit, u), dot(unit, v)
    apart = dot(u - a * unit, v - b * unit) + a / t * (b / t) / c
    return jnp.where(c * length**2 > 1, apart, plain)[..., 0]


def exp(x: jax.Array, v: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """End [..., d] of the geodesic that leaves x with velocity v, after unit time.

    Args:
        x: [..., d].
        v: [..., d], space part.
        c: Curvature is -c.
    """
    square = c * jnp.maximum(inner(x, v, v, c=c), 0.0)[..., None]
    # cosh = 1 + 2 sinh(half)^2, without a square root at 0.
    half = sinhc(square / 4) ** 2 * square / 4
    return x + 2 * half * x + sinhc(square) * v


def log(x: jax.Array, y: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """The v of which `exp` from x is y, [..., d], space part.

    Args:
        x: [..., d].
        y: [..., d].
        c: Curvature is -c.
    """
    z = _ratio(x, y, c)
    factor = asinhc(z)  # z alone times x would overflow where the result does not
    return factor * (y - x) - 2 * (factor * z) * x


def exp0(v: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """Point [..., d] at distance |v| from the origin in the direction of v.

    Args:
        v: [..., d], any vector.
        c: Curvature is -c.
    """
    return sinhc(c * dot(v, v)) * v


def log0(x: jax.Array, *, c: Curvature = 1.0) -> jax.Array:
    """The v of which `exp0` is x, [..., d].

    Args:
        x: [..., d].
        c: Curvature is -c.
    """
    square = c * dot(x, x)
    return jnp.sqrt(1 + square) * asinhc(square) * x


def transport(
    x: jax.Array, y: jax.Array, v: jax.Array, *, c: Curvature = 1.0
) -> jax.Array:
    """A vector v at x moved to y along the geodesic, [..., d]; its length stays.

    Args:
        x: [..., d].
        y: [..., d].
        v: [..., d], space part.
        c: Curvature is -c.
    """
    along = dot(y, v) - _time(y, c) * dot(x, v) / _time(x, c)
    return v + c * along / (2 + 2 * _ratio(x, y, c)) * (x + y)


def mean(
    x: jax.Array, weights: jax.Array | None = None, *, c: Curvature = 1.0
) -> jax.Array:
    """Weighted sum brought back to the hyperboloid, [..., d] of [..., n, d].

    The same point as `poincare.einstein_mean`; of two, the midpoint.

    Args:
        x: [..., n, d].
        weights: [..., n] >= 0, of any positive sum; None for equal ones.
        c: Curvature is -c.
    """
    w = jnp.ones(x.shape[:-1], x.dtype) if weights is None else weights
    w = jnp.broadcast_to(w, x.shape[:-1])[..., None]
    w = w / jnp.sum(w, axis=-2, keepdims=True)
    space = jnp.sum(w * x, axis=-2, keepdims=True)
    later = jnp.sum(w * _time(x, c), axis=-2, keepdims=True)
    norm = jnp.sqrt(jnp.maximum(c * (later**2 - dot(space, space)), 1.0))
    # The norm anew, by what the points are aside from a first mean: nothing cancels.
    first = jax.lax.stop_gradient(space / norm)
    z = _ratio(first, x, c)
    ahead = jnp.sum(w * (1 + 2 * z), axis=-2, keepdims=True)
    aside = jnp.sum(w * (x - first - 2 * z * first), axis=-2, keepdims=True)
    square = c * inner(first, aside, aside, c=c)[..., None]
    norm = jnp.sqrt(jnp.maximum(ahead**2 - square, 1.0))
    return (space / norm)[..., 0, :]
