"""Features to a tree by way of learnt points: HypHC from beginning to end."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.hierarchy.embedding import SPHERE, Form, embed, principal_points
from visxp_jax.hierarchy.metrics import dasgupta_cost, unit_rows


class Learnt(NamedTuple):
    """A tree, and the points that it was read from."""

    merges: np.ndarray  # int64 [n - 1, 2]
    points: np.ndarray  # float32 [n, d], in the Poincare ball


def learn(
    x: np.ndarray,
    *,
    dimensions: int = 2,
    restarts: int = 4,
    temperatures: Sequence[float] = (0.1,),
    form: Form = SPHERE,
    learning_rate: float = 0.01,
    steps: int = 2000,
    snapshots: int = 20,
    random_state: int = 0,
) -> Learnt:
    """Embed rows as leaves of a continuous hierarchy, and read the tree off.

    All runs are learnt side by side; every snapshot of each is decoded exactly, and the
    tree of least Dasgupta cost is the result. `build` finds trees of lower cost in less
    time, and `refine` brings these to the same: this is for the points.

    Args:
        x: [n, d], n >= 3; similarity is (1 + cosine) / 2, of which all n^2 are held.
        dimensions: Of the ball, 1 to n.
        restarts: Runs at each temperature.
        temperatures: To begin with; see `embed`.
        form: How points are parameterised.
        learning_rate: To begin with.
        steps: Of each run, a multiple of `snapshots`.
        snapshots: Trees of each run.
        random_state: Of starts and triples.

    Raises:
        ValueError: see `unit_rows` and `embed`, or a setting is out of range.
    """
    x = unit_rows(x)
    if not 1 <= dimensions <= len(x):
        raise ValueError(f"dimensions must be 1 to {len(x)} rows, got {dimensions}.")
    if min(restarts, steps, snapshots, len(temperatures)) < 1:
        raise ValueError(
            "restarts, steps, snapshots and temperatures must be one or more, got "
            f"{restarts}, {steps}, {snapshots} and {len(temperatures)}."
        )
    if min(*temperatures, learning_rate) <= 0:
        raise ValueError("temperatures and learning_rate must be above 0.")
    similarity = jnp.asarray((1 + x @ x.T) / 2, jnp.float32)
    keys = jax.random.split(jax.random.key(random_state), restarts * len(temperatures))
    starts = jax.vmap(lambda key: principal_points(key, similarity, dimensions))(keys)
    found = embed(
        keys,
        starts,
        similarity,
        jnp.repeat(jnp.asarray(temperatures, jnp.float32), restarts),
        form=form,
        steps=steps,
        snapshots=snapshots,
        learning_rate=learning_rate,
    )
    points = np.asarray(found).reshape(-1, *found.shape[2:])
    trees = [form.decode(one) for one in points]
    best = int(np.argmin([dasgupta_cost(tree, x) for tree in trees]))
    return Learnt(trees[best], points[best])
