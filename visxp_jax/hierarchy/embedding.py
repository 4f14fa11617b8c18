"""Leaves of a tree as points in the Poincare ball, by a loss over triples (HypHC).

All points lie at one distance from 0; their directions and that distance are learnt. A
triple is pulled towards the tree whose deepest lowest common ancestor, see
`poincare.lca_depth`, is of its two most similar leaves. Triples are (i, i + a, i + b)
for all i, of drawn offsets: similarities are then rows of one table and leaves are
rolled, so that nothing is gathered or scattered. Whole runs are one compiled scan,
several of them side by side.

Source: Chami et al., From trees to continuous embeddings and back: hyperbolic
hierarchical clustering, 2020. Differs in: the closed form of the depth at equal
lengths, offsets that are distinct and not 0, Adam on directions.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

# Of temperature and rate, evenly over a run.
HALVINGS = 3
# Triples of one step, at least, where there are as many.
BATCH = 4096


class Embedding(NamedTuple):
    """Points as directions and one length; leading axes are runs and snapshots."""

    directions: jax.Array  # float32 [..., n, d], of length 1
    length: jax.Array  # float32 [...], in (0, 1)


def equal_depth(u: jax.Array, v: jax.Array, length: jax.Array) -> jax.Array:
    """`poincare.lca_depth` of points of one length, [...].

    artanh(cos(angle / 2) * 2 r / (1 + r^2)), by differences: float32 keeps its digits
    near the boundary.

    Args:
        u: [..., d], of length 1.
        v: [..., d], of length 1.
        length: [], of both, in (0, 1).
    """
    square = jnp.minimum(jnp.sum((u - v) ** 2, axis=-1) / 4, 1 - 1e-7)
    cosine = jnp.sqrt(1 - square)  # of half the angle
    rest = (1 - length) ** 2 / (1 + length**2)
    short = square / (1 + cosine) + cosine * rest
    return (jnp.log1p(cosine * (1 - rest)) - jnp.log(short)) / 2


def triplet_loss(
    depths: jax.Array, similarities: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    """Mean over triples of the similarity that a soft tree of each leaves higher up.

    Args:
        depths: [..., 3], of the ancestors of a triple's three pairs.
        similarities: [..., 3], of the same pairs.
        temperature: > 0; towards 0 a tree is decided.
    """
    share = jax.nn.softmax(depths / temperature, axis=-1)
    return jnp.mean(jnp.sum(similarities * (1 - share), axis=-1))


@partial(jax.jit, static_argnames=("rank", "steps", "snapshots"))
def embed(
    keys: jax.Array,
    similarity: jax.Array,
    temperatures: jax.Array,
    *,
    rank: int = 2,
    steps: int = 2000,
    snapshots: int = 20,
    learning_rate: float = 0.05,
) -> Embedding:
    """Learn embeddings from random ones, one for each key and temperature.

    Args:
        keys: [r], of the runs.
        similarity: float32 [n, n], symmetric.
        temperatures: float32 [r], to begin with; halved thrice, as is the rate.
        rank: d, dimensions of the ball.
        steps: Of each run, a multiple of `snapshots`.
        snapshots: s, embeddings that are kept of each run.
        learning_rate: Of Adam on directions.

    Returns:
        `Embedding` with leading axes [r, s].

    Raises:
        ValueError: there are no triples, or `snapshots` does not divide `steps`.
    """
    n = len(similarity)
    if n < 3 or steps % snapshots:
        raise ValueError(
            "similarity must be of 3 leaves or more, and steps a multiple of snapshots,"
            f" got {n} leaves, {steps} steps and {snapshots} snapshots."
        )
    pairs = max(1, BATCH // n)
    place = jnp.arange(n)
    # Row a: similarities of each leaf to the one a further on.
    apart = similarity[place[None], (place[None] + place[:, None]) % n]
    optimizer = optax.adam(learning_rate)

    def loss(params: tuple, key: jax.Array, temperature: jax.Array) -> jax.Array:
        unit, length = _points(params)
        a, b = _offsets(key, pairs, n)

        def of_pair(a: jax.Array, b: jax.Array) -> jax.Array:
            x, y, z = unit, jnp.roll(unit, -a, axis=0), jnp.roll(unit, -b, axis=0)
            depth = [equal_depth(u, v, length) for u, v in ((x, y), (x, z), (y, z))]
            near = (apart[a], apart[b], jnp.roll(apart[(b - a) % n], -a))
            return triplet_loss(
                jnp.stack(depth, axis=-1), jnp.stack(near, axis=-1), temperature
            )

        return jnp.mean(jax.vmap(of_pair)(a, b))

    def run(key: jax.Array, temperature: jax.Array) -> Embedding:
        first, key = jax.random.split(key)
        params = (jax.random.normal(first, (n, rank)), jnp.float32(0.0))

        def step(state: tuple, i: jax.Array) -> tuple[tuple, None]:
            params, opt_state = state
            cooled = 0.5 ** jnp.floor(i * (HALVINGS + 1) / steps)
            grads = jax.grad(loss)(
                params, jax.random.fold_in(key, i), temperature * cooled
            )
            change, opt_state = optimizer.update(grads, opt_state)
            change = jax.tree.map(lambda x: x * cooled, change)
            return (optax.apply_updates(params, change), opt_state), None

        def stretch(state: tuple, steps: jax.Array) -> tuple[tuple, Embedding]:
            state, _ = jax.lax.scan(step, state, steps)
            return state, Embedding(*_points(state[0]))

        numbers = jnp.arange(steps).reshape(snapshots, -1)
        begin = (params, optimizer.init(params))
        return jax.lax.scan(stretch, begin, numbers)[1]

    return jax.vmap(run)(keys, temperatures)


def _points(params: tuple) -> tuple[jax.Array, jax.Array]:
    direction, length = params
    unit = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)
    return unit, 0.01 + 0.989 * jax.nn.sigmoid(length)


def _offsets(key: jax.Array, pairs: int, n: int) -> tuple[jax.Array, jax.Array]:
    """Distinct ones in [1, n), every two as likely."""
    first, second = jax.random.split(key)
    a = jax.random.randint(first, (pairs,), 1, n)
    b = jax.random.randint(second, (pairs,), 1, n - 1)
    return a, b + (b >= a)
