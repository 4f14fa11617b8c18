"""Textbook formulas in float64, points to try, and what is tried on them."""

from importlib import import_module
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np


def programs(name: str) -> SimpleNamespace:
    """Each function as one program: operation by operation it would be dozens."""
    module = import_module(f"visxp_jax.geometry.{name}")
    return SimpleNamespace(
        **{
            name: jax.jit(function)
            for name, function in vars(module).items()
            if getattr(function, "__module__", None) == module.__name__
            and not name.startswith("_")
        }
    )


poincare, lorentz = programs("poincare"), programs("lorentz")
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
