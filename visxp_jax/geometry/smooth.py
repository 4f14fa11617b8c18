"""Functions of squared lengths that are smooth at 0, where their usual form is 0 / 0.

Most come in two branches; the one that is not taken is evaluated at a harmless place,
since the derivative of `jnp.where` is that of both.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

# Below this the series; what it leaves out there is less than float64 rounds away.
SMALL = 1e-3


def _branches(
    x: jax.Array,
    series: Sequence[float],
    function: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    near = x < SMALL
    at = jnp.where(near, x, 0.0)
    total = jnp.full_like(at, series[-1])
    for term in series[-2::-1]:
        total = total * at + term
    return jnp.where(near, total, function(jnp.where(near, 0.5, x)))


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Products over the last axis, which stays, [..., 1]."""
    return jnp.sum(x * y, axis=-1, keepdims=True)


def check_number(c: float | jax.Array) -> None:
    """Curvatures of many are for `jax.vmap`.

    Raises:
        ValueError: c is not one number.
    """
    if jnp.ndim(c):
        raise ValueError(f"c must be one number, got shape {jnp.shape(c)}; use vmap.")


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root of x >= 0, with derivative 0 at 0; NaN of what is negative or NaN."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, x)))


def tanhc(x: jax.Array) -> jax.Array:
    """tanh(sqrt x) / sqrt x of x >= 0."""

    def usual(x: jax.Array) -> jax.Array:
        root = jnp.sqrt(x)
        return jnp.tanh(root) / root

    return _branches(x, (1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835), usual)


def artanhc(x: jax.Array) -> jax.Array:
    """artanh(sqrt x) / sqrt x of 0 <= x < 1."""

    def usual(x: jax.Array) -> jax.Array:
        root = jnp.sqrt(x)
        return jnp.arctanh(root) / root

    return _branches(x, (1, 1 / 3, 1 / 5, 1 / 7, 1 / 9), usual)


def sinhc(x: jax.Array) -> jax.Array:
    """sinh(sqrt x) / sqrt x of x >= 0."""

    def usual(x: jax.Array) -> jax.Array:
        root = jnp.sqrt(x)
        return jnp.sinh(root) / root

    return _branches(x, (1, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880), usual)


def asinhc(x: jax.Array) -> jax.Array:
    """asinh(sqrt x) / sqrt(x (1 + x)) of x >= 0: the derivative of `square_asinh`."""

    def usual(x: jax.Array) -> jax.Array:
        root = jnp.sqrt(x)
        return jnp.arcsinh(root) / (root * jnp.sqrt(1 + x))

    return _branches(x, (1, -2 / 3, 8 / 15, -16 / 35, 128 / 315), usual)


@jax.custom_jvp
def square_asinh(x: jax.Array) -> jax.Array:
    """asinh(sqrt x)^2 of x >= 0; finite derivatives of every order at 0."""
    return jnp.square(jnp.arcsinh(jnp.sqrt(x)))


@square_asinh.defjvp
def _square_asinh_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    return square_asinh(x), asinhc(x) * dx
