"""Float32 beside float64, operation by operation: values and derivatives.

Inputs are the same float32 numbers; the same code in float64, which
`test_textbook.py` holds against textbooks, says what is right. To see the figures:
`python -m tests.geometry.test_errors`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.geometry.reference import FUNCTIONS, points
from visxp_jax.geometry import lorentz, poincare

LENGTHS = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
# Median and largest relative error of values, and of derivatives.
LIMITS = {
    0.5: (3e-7, 5e-6, 2e-5, 5e-5),
    0.9: (4e-7, 7e-6, 2e-5, 5e-5),
    0.99: (2.5e-6, 8e-5, 2e-5, 1e-4),
    0.999: (3e-5, 2e-4, 5e-5, 5e-4),
    # From here on 1 - |x|^2 itself has few digits.
    0.9999: (3e-4, 2.5e-3, 5e-4, 2e-2),
    0.99999: (3e-3, 3e-2, 6e-3, 5e-2),
}
EYE = np.eye(3, dtype=np.float32)


def near(x: jax.Array, y: jax.Array) -> jax.Array:
    """A vector at x about as long as 1, however close the boundary."""
    return y / poincare.conformal_factor(x)


OPERATIONS = FUNCTIONS | {
    "exp": lambda x, y: poincare.exp(x, near(x, y)),
    "project": lambda x, y: poincare.project((x + y) / 3),
    "linear": lambda x, y: poincare.linear(x, jnp.asarray(0.3 * EYE, x.dtype), y / 10),
    "multinomial_logits": lambda x, y: poincare.multinomial_logits(
        x, jnp.asarray(EYE, x.dtype), y
    ),
    "gyration": lambda x, y: poincare.gyration(x, y, x),
    "conformal_factor": lambda x, y: poincare.conformal_factor(x),
    "pairwise_distance": lambda x, y: poincare.pairwise_distance(
        jnp.stack([x, y]), jnp.stack([y, x])
    ),
    "lorentz.from_poincare": lambda x, y: lorentz.from_poincare(x),
    "lorentz.time": lambda x, y: lorentz.time(x),
    "lorentz.inner": lambda x, y: lorentz.inner(x, y, y),
    "lorentz.to_poincare": lambda x, y: lorentz.to_poincare(10 * x),
}
del OPERATIONS["zero normals"]  # their logits are 0: no error is relative to that


def inputs(each: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """So many pairs at every length."""
    rng, pair = np.random.default_rng(0), []
    for seed in (1, 2):
        x = points(each * len(LENGTHS), seed=seed)
        length = 1 - (1 - np.repeat(LENGTHS, each)) * rng.uniform(1.0, 1.5, len(x))
        x *= (length / np.linalg.norm(x, axis=1))[:, None].astype(np.float32)
        pair.append(x)
    return pair[0], pair[1]


def found(name: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values [n, ...] and derivatives [n, ...], flat, in the type of the points."""
    operation = OPERATIONS[name]

    def one(x: jax.Array, y: jax.Array) -> tuple:
        def total(x: jax.Array, y: jax.Array) -> tuple:
            value = operation(x, y)
            # In a direction of its own, so that no part of a derivative is lost.
            way = jnp.cos(jnp.arange(value.size, dtype=x.dtype)).reshape(value.shape)
            return jnp.sum(value * way), value

        grads, value = jax.grad(total, argnums=(0, 1), has_aux=True)(x, y)
        return value, jnp.concatenate(grads)

    both = jax.jit(jax.vmap(one))(x, y)
    value, grads = (np.asarray(v, np.float64).reshape(len(x), -1) for v in both)
    return value, grads


def errors(name: str) -> dict[float, tuple[float, ...]]:
    """Median and largest relative error of values and derivatives, by length."""
    x, y = inputs()
    single = found(name, x, y)
    with jax.enable_x64(True):
        double = found(name, np.float64(x), np.float64(y))
    error = [
        (np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).reshape(
            len(LENGTHS), -1
        )
        for a, b in zip(single, double, strict=True)
    ]
    return {
        length: tuple(float(f(e[i])) for e in error for f in (np.median, np.max))
        for i, length in enumerate(LENGTHS)
    }


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_float32s_digits(name):
    for length, error in errors(name).items():
        if name == "exp" and length > 0.9999:
            error = error[:2]  # what ends beyond has no derivative
        assert np.all(np.array(error) < LIMITS[length][: len(error)]), (length, error)


@pytest.mark.parametrize("name", ["exp", "midpoint", "lca_depth", "lorentz.log"])
def test_one_pair_at_a_time_gives_the_same(name):
    x, y = inputs(2)
    expected, _ = found(name, x, y)
    for i in range(len(x)):
        value = np.ravel(OPERATIONS[name](jnp.asarray(x[i]), jnp.asarray(y[i])))
        np.testing.assert_allclose(value, expected[i], rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    for operation in OPERATIONS:
        for length, error in errors(operation).items():
            print(f"{operation:22} {length:5}", *(f"{e:.1e}" for e in error))
