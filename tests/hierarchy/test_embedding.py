"""Leaves on a circle: the loss by hand, decoding beside scipy, a tree that is found."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.cluster.hierarchy import linkage

from tests.hierarchy.test_trees import leaves, random_tree, vectors
from visxp_jax.geometry import poincare
from visxp_jax.hierarchy import dasgupta_cost, dendrogram_purity, learn, refine
from visxp_jax.hierarchy.decode import decode, decode_by_depth, on_circle
from visxp_jax.hierarchy.embedding import (
    BALL,
    SPHERE,
    _offsets,
    by_offset,
    embed,
    equal_depth,
    principal_points,
    sampled_loss,
    triplet_loss,
)
from visxp_jax.hierarchy.metrics import unit_rows
from visxp_jax.hierarchy.riemannian import riemannian_adam


def groups_of(merges: np.ndarray) -> set[frozenset]:
    return {frozenset(below) for below in leaves(merges)}


def circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize("length", [0.2, 0.9, 0.999])
@pytest.mark.parametrize("d", [2, 5])
def test_depth_at_equal_lengths_is_that_of_the_geometry(length, d):
    u, v = (unit_rows(vectors(500, d, seed)).astype(np.float32) for seed in (0, 1))
    found = equal_depth(u, v, jnp.float32(length))
    expected = poincare.lca_depth(length * u, length * v)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-4)
    # Of a leaf with itself: its own distance from the origin; finite, and so is the
    # derivative, there and where two are opposite.
    own = equal_depth(u, u, jnp.float32(length))
    np.testing.assert_allclose(own, 2 * np.arctanh(length), rtol=1e-4)
    for other in (u, -u):
        gradient = jax.grad(lambda u, w: jnp.sum(equal_depth(u, w, jnp.float32(0.9))))
        assert np.isfinite(np.asarray(gradient(u, other))).all()


def test_loss_of_a_decided_triple_is_the_similarity_of_the_other_pairs():
    near = jnp.array([[0.9, 0.3, 0.2]])
    decided = triplet_loss(jnp.array([[2.0, 1.0, 1.0]]), near, 0.01)
    assert decided == pytest.approx(0.5, abs=1e-6)
    undecided = triplet_loss(jnp.ones((1, 3)), near, 0.01)
    assert undecided == pytest.approx(1.4 * 2 / 3, rel=1e-6)


def test_offsets_are_every_two_distinct_ones_as_often():
    n, pairs = 60, 1_000
    a, b = jax.vmap(lambda key: jnp.stack(_offsets(key, pairs, n)), out_axes=1)(
        jax.random.split(jax.random.key(0), 4_000)
    )
    count = np.zeros((n, n))
    np.add.at(count, (np.asarray(a), np.asarray(b)), 1)
    drawn = count[1:, 1:]
    assert count.sum() == drawn.sum()
    assert (np.diag(drawn) == 0).all()
    rest = drawn[~np.eye(n - 1, dtype=bool)]
    mean = 4_000 * pairs / rest.size
    assert np.abs(rest - mean).max() < 5 * mean**0.5
    assert rest.var() == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize("n", [3, 4, 9])
def test_where_all_triples_fit_the_loss_is_of_them_all(n):
    x = unit_rows(vectors(n, 4))
    similarity = jnp.asarray((1 + x @ x.T) / 2, jnp.float32)
    points = jax.jit(principal_points)(jax.random.key(0), similarity)
    params, apart = SPHERE.parameters(points), by_offset(similarity)
    i, j, k = np.array(list(itertools.combinations(range(n), 3))).T
    pairs = ((i, j), (i, k), (j, k))

    @jax.jit
    def of_all(points):
        depth = [poincare.lca_depth(points[a], points[b]) for a, b in pairs]
        near = [similarity[a, b] for a, b in pairs]
        return triplet_loss(jnp.stack(depth, -1), jnp.stack(near, -1), 0.1)

    wanted, loss = of_all(points), jax.jit(sampled_loss)
    for seed in range(2):
        found = loss(jax.random.key(seed), params, apart, 0.1)
        assert found == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("d", [2, 4])
def test_decoding_is_single_linkage_by_angle(d):
    x = unit_rows(vectors(60, d))
    expected = linkage(np.clip(1 - x @ x.T, 0, None)[np.triu_indices(60, 1)], "single")
    found = decode(3 * x)
    assert groups_of(found) == groups_of(expected[:, :2].astype(int))


@pytest.mark.parametrize("n", [1, 2, 3, 200])
def test_every_tree_has_a_place_on_the_circle(n):
    merges = random_tree(n)
    found = decode(circle(on_circle(merges)))
    assert groups_of(found) == groups_of(merges)


@pytest.mark.parametrize("form", [SPHERE, BALL], ids=["sphere", "ball"])
def test_embedding_finds_groups_in_groups(form):
    """Four groups of eight in two, of which decoding and refining make the tree."""
    rng = np.random.default_rng(0)
    group = np.arange(32) % 4
    centre = np.eye(6)[group] + 1.2 * np.eye(6)[4 + group // 2]
    x = unit_rows(centre + 0.1 * rng.standard_normal((32, 6)))
    settings = {"form": form, "steps": 400, "snapshots": 4, "learning_rate": 0.02}
    found = learn(x, restarts=2, temperatures=(0.1, 0.05), **settings)
    assert found.points.shape == (32, 2)
    lengths = np.linalg.norm(found.points, axis=-1)
    assert (lengths < 1).all()
    assert (np.ptp(lengths) < 1e-5) == (form is SPHERE)
    best = found.merges
    assert groups_of(form.decode(found.points)) == groups_of(best)
    refined = refine(best, x)
    assert dendrogram_purity(refined, group) == 1
    if form is SPHERE:  # the other's depths do not tell the uppermost merges apart
        assert dendrogram_purity(best, group // 2) == 1
        assert dasgupta_cost(best, x) < 1.05 * dasgupta_cost(refined, x)


def test_runs_side_by_side_are_those_alone():
    x = unit_rows(vectors(12, 4))
    similarity = jnp.asarray((1 + x @ x.T) / 2, jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    starts = jax.vmap(lambda key: principal_points(key, similarity))(keys)
    settings = {"steps": 40, "snapshots": 2, "learning_rate": 0.02}
    both = embed(keys, starts, similarity, jnp.array([0.1, 0.1, 0.05]), **settings)
    assert both.shape == (3, 2, 12, 2)
    one = embed(keys[2:], starts[2:], similarity, jnp.full(1, 0.05), **settings)
    np.testing.assert_allclose(both[2], one[0], atol=2e-3)


@pytest.mark.parametrize("length", [0.3, 0.95])
def test_decoding_by_depth_is_that_by_angle_at_one_length(length):
    x = unit_rows(vectors(40, 3))
    found = decode_by_depth((length * x).astype(np.float32))
    assert groups_of(found) == groups_of(decode(x))


@pytest.mark.parametrize("d", [2, 3])
def test_one_leaf_is_a_tree_and_no_direction_is_none(d):
    for read in (decode, decode_by_depth):
        assert read(np.full((1, d), 0.2)).shape == (0, 2)
    for bad in (0.0, np.nan):
        with pytest.raises(ValueError, match="finite and not 0"):
            decode(np.full((3, d), bad))
    for bad in (1.0, np.nan):
        with pytest.raises(ValueError, match="in the ball"):
            decode_by_depth(np.full((3, d), bad, np.float32))


def test_starts_part_equal_leaves_and_are_of_one_length():
    similarity = jnp.ones((5, 5))
    found = principal_points(jax.random.key(0), similarity)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=1), 0.5, rtol=1e-5)
    assert len(np.unique(np.asarray(found), axis=0)) == 5


@pytest.mark.parametrize(("n", "steps"), [(2, 20), (5, 21)])
def test_what_cannot_be_embedded_is_refused(n, steps):
    with pytest.raises(ValueError, match="3 leaves or more.*multiple of snapshots"):
        embed(
            jax.random.split(jax.random.key(0), 1),
            jnp.zeros((1, n, 2)),
            jnp.ones((n, n)),
            jnp.ones(1),
            steps=steps,
        )


@pytest.mark.parametrize("c", [1.0, 0.3])
def test_riemannian_adam_comes_to_the_frechet_mean(c):
    points = poincare.exp0(0.8 * vectors(12, 3, 1).astype(np.float32), c=c)
    optimizer = riemannian_adam(optax.exponential_decay(0.1, 100, 0.5), c=c, b2=0.99)

    def loss(x):
        return jnp.mean(poincare.squared_distance(x["at"], points, c=c))

    @jax.jit
    def step(x, state):
        updates, state = optimizer.update(jax.grad(loss)(x), state, x)
        return optax.apply_updates(x, updates), state

    x = {"at": poincare.exp0(jnp.array([[2.0, -1.0, 1.0]]), c=c)}
    state = optimizer.init(x)
    for _ in range(800):
        x, state = step(x, state)
    expected = poincare.frechet_mean(points, c=c)
    assert poincare.distance(x["at"][0], expected, c=c) < 1e-3


def test_a_riemannian_step_is_as_long_as_its_rate_wherever_the_point():
    """The first step of Adam has the length of the rate, here along the geodesic."""
    x = jnp.array([[0.0, 0.0], [0.5, 0.1], [0.99, 0.0], [0.0, -0.9999]])
    grad = jnp.array([[1.0, 2.0], [-3.0, 0.1], [1e3, 5.0], [0.2, 4e4]])
    optimizer = riemannian_adam(0.01)
    updates, state = optimizer.update(grad, optimizer.init(x), x)
    moved = optax.apply_updates(x, updates)
    np.testing.assert_allclose(poincare.distance(x, moved), 0.01, rtol=5e-2)
    assert (jnp.linalg.norm(moved, axis=-1) < 1).all()
    assert state.count == 1
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(grad, state)


def test_riemannian_adam_steps_where_nothing_pulls_or_the_point_is_the_origin():
    x = jnp.zeros((2, 3))
    optimizer = riemannian_adam(0.1)
    updates, _ = optimizer.update(jnp.zeros_like(x), optimizer.init(x), x)
    np.testing.assert_array_equal(updates, 0)


def test_riemannian_adam_takes_what_optax_partition_leaves_of_a_tree():
    optimizer = riemannian_adam(0.1)
    state = optimizer.init({})
    assert optimizer.update({}, state, {})[0] == {}
