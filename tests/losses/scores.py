"""Scores to be shared out among clusters, and the masses that a plan gives these."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")


def log_probs(name: str) -> jax.Array:
    return jax.nn.log_softmax(jnp.asarray(GOLDEN[name], jnp.float32), axis=1)


def sure_of_itself(n: int, k: int, seed: int = 0) -> np.ndarray:
    """Logits as of a trained head: clusters of unequal size, wide gaps between them."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.2, 1, k)
    centre = rng.normal(size=(k, 16))
    which = rng.choice(k, n, p=size / size.sum())
    point = centre[which] + rng.normal(size=(n, 16))
    return (point @ centre.T).astype(np.float32)


def masses(logits, log_scale, sharpness, rows=None) -> np.ndarray:
    """Of the clusters, in float64."""
    scores = sharpness * np.asarray(logits, np.float64) + np.asarray(log_scale)
    plan = np.exp(scores - scores.max(axis=1, keepdims=True))
    plan /= plan.sum(axis=1, keepdims=True)
    rows = np.ones(len(plan)) if rows is None else np.asarray(rows, np.float64)
    return rows @ plan / rows.sum()
