"""Leaves of a tree as points in the Poincare ball, by a loss over triples (HypHC).

A triple is pulled towards the tree whose deepest lowest common ancestor, see
`poincare.lca_depth`, is of its two most similar leaves. Triples are (i, i + a, i + b)
for all i, of drawn offsets: similarities are then rows of one table and leaves are
rolled, so that nothing is gathered or scattered. Whole runs are one compiled scan,
several of them side by side.

Source: Chami et al., From trees to continuous embeddings and back: hyperbolic
hierarchical clustering, 2020. Differs in: the closed form of the depth at equal
lengths, offsets that are distinct and not 0, Adam on directions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from visxp_jax.geometry import poincare
from visxp_jax.hierarchy.decode import decode, decode_by_depth
from visxp_jax.hierarchy.riemannian import riemannian_adam

# Of temperature and rate, evenly over a run.
HALVINGS = 3
# Triples of one step. More bring next to nothing: all 500,000 of 101 leaves 0.01 % of
# the cost, in 80 times the time.
BATCH = 4096
# Of points at equal lengths; float32 tells depths apart up to there.
LEAST, MOST = 0.01, 0.999


class Form(NamedTuple):
    """A parameterisation of n points of the ball."""

    parameters: Callable[[jax.Array], Any]  # of points [n, d]
    points: Callable[[Any], jax.Array]  # [n, d], of parameters
    # Of parameters: an array [n, ...] of what each point has, and what all share.
    leaves: Callable[[Any], tuple[jax.Array, Any]]
    depth: Callable[[jax.Array, jax.Array, Any], jax.Array]  # of the same, [n]
    optimizer: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]
    decode: Callable[[np.ndarray], np.ndarray]  # merges [n - 1, 2], of points


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


def _on_sphere(points: jax.Array) -> tuple[jax.Array, jax.Array]:
    length = jnp.mean(jnp.linalg.norm(points, axis=-1))
    share = jnp.clip((length - LEAST) / (MOST - LEAST), 1e-3, 1 - 1e-3)
    return points / length, jnp.log(share / (1 - share))


def _directions(params: tuple) -> tuple[jax.Array, jax.Array]:
    direction, logit = params
    unit = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)
    return unit, LEAST + (MOST - LEAST) * jax.nn.sigmoid(logit)


def _points(params: tuple) -> jax.Array:
    unit, length = _directions(params)
    return length * unit


# All points at one distance from 0, which is learnt, as are their directions: what a
# tree whose leaves are alike needs.
SPHERE = Form(
    parameters=_on_sphere,
    points=_points,
    leaves=_directions,
    depth=equal_depth,
    optimizer=optax.adam,
    decode=decode,
)
# Points wherever they want to be, by steps on the manifold.
BALL = Form(
    parameters=lambda points: points,
    points=lambda params: params,
    leaves=lambda params: (params, None),
    depth=lambda x, y, _: poincare.lca_depth(x, y),
    optimizer=riemannian_adam,
    decode=decode_by_depth,
)


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


def by_offset(similarity: jax.Array) -> jax.Array:
    """[n, n] of [n, n]: row a has the similarity of each leaf to the one a further."""
    place = jnp.arange(len(similarity))
    return similarity[place[None], (place[None] + place[:, None]) % len(place)]


def sampled_loss(
    key: jax.Array,
    params: Any,
    apart: jax.Array,
    temperature: float | jax.Array,
    *,
    form: Form = SPHERE,
    batch: int = BATCH,
) -> jax.Array:
    """`triplet_loss` of triples of distinct leaves: all, or so many as a batch holds.

    Args:
        key: Draws the offsets.
        params: Of the points, see `Form`.
        apart: float32 [n, n], similarities `by_offset`; n >= 3.
        temperature: See `triplet_loss`.
        form: How points are parameterised.
        batch: Number of triples, rounded down to a multiple of n that is not 0. All
            are (n - 1) (n - 2) n / 2, each from its three sides.
    """
    n = len(apart)
    leaves, shared = form.leaves(params)

    def of_pair(a: jax.Array, b: jax.Array) -> jax.Array:
        x, y, z = leaves, jnp.roll(leaves, -a, axis=0), jnp.roll(leaves, -b, axis=0)
        depth = [form.depth(u, v, shared) for u, v in ((x, y), (x, z), (y, z))]
        near = (apart[a], apart[b], jnp.roll(apart[(b - a) % n], -a))
        return triplet_loss(
            jnp.stack(depth, axis=-1), jnp.stack(near, axis=-1), temperature
        )

    return jnp.mean(jax.vmap(of_pair)(*_offsets(key, max(1, batch // n), n)))


def principal_points(
    key: jax.Array, similarity: jax.Array, d: int = 2, length: float = 0.5
) -> jax.Array:
    """Starts for `embed`: [n, d] in the ball, by the first principal coordinates.

    Args:
        key: Of a little noise, by which starts differ and equal leaves part.
        similarity: float32 [n, n], symmetric.
        d: Dimensions, at most n.
        length: Of all points, in (0, 1).
    """
    centred = similarity - jnp.mean(similarity, axis=0, keepdims=True)
    centred = centred - jnp.mean(centred, axis=1, keepdims=True)
    values, vectors = jnp.linalg.eigh(centred)
    point = vectors[:, -d:] * jnp.sqrt(jnp.maximum(values[None, -d:], 0.0))
    spread = jnp.sqrt(jnp.mean(point**2)) + 1e-6
    point = point + 0.03 * spread * jax.random.normal(key, point.shape)
    return length * point / jnp.linalg.norm(point, axis=-1, keepdims=True)


@partial(jax.jit, static_argnames=("form", "steps", "snapshots"))
def embed(
    keys: jax.Array,
    starts: jax.Array,
    similarity: jax.Array,
    temperatures: jax.Array,
    *,
    form: Form = SPHERE,
    steps: int = 2000,
    snapshots: int = 20,
    learning_rate: float | jax.Array = 0.05,
) -> jax.Array:
    """Learn embeddings side by side, one for each key, start and temperature.

    Args:
        keys: [r], of the runs.
        starts: float32 [r, n, d], points in the ball.
        similarity: float32 [n, n], symmetric.
        temperatures: float32 [r], to begin with; halved thrice, as is the rate.
        form: How points are parameterised.
        steps: Of each run, a multiple of `snapshots`.
        snapshots: s, embeddings that are kept of each run.
        learning_rate: Of the form's optimiser.

    Returns:
        float32 [r, s, n, d], points in the ball.

    Raises:
        ValueError: there are no triples, or `snapshots` does not divide `steps`.
    """
    n = len(similarity)
    if n < 3 or steps % snapshots:
        raise ValueError(
            "similarity must be of 3 leaves or more, and steps a multiple of snapshots,"
            f" got {n} leaves, {steps} steps and {snapshots} snapshots."
        )
    apart = by_offset(similarity)

    def cooled(i: Any) -> jax.Array:
        return 0.5 ** jnp.floor(i * (HALVINGS + 1) / steps)

    optimizer = form.optimizer(lambda i: learning_rate * cooled(i))

    def run(key: jax.Array, start: jax.Array, temperature: jax.Array) -> jax.Array:
        def step(state: tuple, i: jax.Array) -> tuple[tuple, None]:
            params, opt_state = state
            grads = jax.grad(sampled_loss, argnums=1)(
                jax.random.fold_in(key, i),
                params,
                apart,
                temperature * cooled(i),
                form=form,
            )
            change, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, change), opt_state), None

        def stretch(state: tuple, steps: jax.Array) -> tuple[tuple, jax.Array]:
            state, _ = jax.lax.scan(step, state, steps)
            return state, form.points(state[0])

        params = form.parameters(start)
        numbers = jnp.arange(steps).reshape(snapshots, -1)
        return jax.lax.scan(stretch, (params, optimizer.init(params)), numbers)[1]

    return jax.vmap(run)(keys, starts, temperatures)


def _offsets(key: jax.Array, pairs: int, n: int) -> tuple[jax.Array, jax.Array]:
    """Distinct ones in [1, n): so many, every two as likely, or once each if fewer."""
    if (n - 1) * (n - 2) // 2 <= pairs:
        a, b = jnp.triu_indices(n - 1, 1)
        return a + 1, b + 1
    first, second = jax.random.split(key)
    a = jax.random.randint(first, (pairs,), 1, n)
    b = jax.random.randint(second, (pairs,), 1, n - 1)
    return a, b + (b >= a)
