"""sHHC: labels by transport, their hierarchy, and the loss that leads clips to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from configs import shhc as config_file
from tests.clusters import clip_vectors, small_method
from tests.small import (
    assert_same_on_1_and_8_devices,
    small_batch,
    small_model,
    small_stage,
)
from visxp_jax.config import from_dict
from visxp_jax.errors import VisxpError
from visxp_jax.geometry import poincare
from visxp_jax.hierarchy.decode import decode
from visxp_jax.losses import directions
from visxp_jax.methods.base import SHARED, Encoding
from visxp_jax.methods.shhc import clips_of, heads, leaves_of
from visxp_jax.models.audiovisual import Points
from visxp_jax.models.bind import Linear
from visxp_jax.sharding import make_mesh, to_global

K = 4


def config(**changes):
    values = config_file.get_config("debug")
    values.update_from_flattened_dict(changes)
    return from_dict(values)


def families(n: int = 64, noise: float = 0.05):
    """Vectors of four kinds in two families: (vectors, kind)."""
    kind = np.arange(n) % K
    centre = np.eye(6)[kind] + 1.5 * np.eye(6)[4 + kind // 2]
    return centre + noise * np.random.default_rng(0).standard_normal((n, 6)), kind


def first_params(section, d: int = 6):
    rng = np.random.default_rng(1)
    params = {}
    for name, head in heads(section).items():
        if isinstance(head, Points):
            params[name] = jnp.full(tuple(head), 0.1)
        else:
            kernel = rng.normal(size=(d, head.outputs)) / d**0.5
            params[name] = Linear(
                kernel.astype(np.float32), np.zeros(head.outputs, np.float32)
            )
    return params


def relabelled(number=0, *, params=None, mesh=None, clip_id=None, vectors=None, **more):
    changes = {"clusters": K, "embedding_steps": 200, **more}
    method = small_method("shhc", **changes)
    section = config().shhc
    section = type(section)(**{**section.__dict__, **changes})
    x, _ = families()
    x = x if vectors is None else vectors
    ids = np.arange(len(x)) if clip_id is None else clip_id
    clips = clip_vectors(ids, mesh, video=x, audio=x, fused=x)
    state = method.init_state(80, jax.random.key(0))
    made = method.relabel.make(
        params or first_params(section),
        state,
        Encoding(lambda key: clips, lambda: None),
        jax.random.key(0),
        number,
    )
    return method, made


@pytest.mark.parametrize(
    ("source", "sets"), [("fused", 1), ("pooled", 1), ("swapped", 2)]
)
def test_first_labels_and_their_hierarchy_are_those_of_the_families(source, sets):
    _, kind = families()
    _, made = relabelled(labels_from=source)
    labels = np.asarray(made.method_state["labels"])
    similarity = np.asarray(made.method_state[SHARED]["similarity"])
    assert labels.shape == (80, sets, 1)
    assert similarity.shape == (sets, K, K)
    for of_set in range(sets):
        column = labels[:64, of_set, 0]
        assert adjusted_rand_score(kind, column) == 1
        np.testing.assert_allclose(np.diag(similarity[of_set]), 1, atol=1e-5)
        # The two clusters of a family are merged before the families are.
        leaves = made.params[f"hierarchy_{of_set}"]
        first = {frozenset(pair) for pair in decode(leaves)[:2].tolist()}
        family = {frozenset(column[kind // 2 == f].tolist()) for f in (0, 1)}
        assert first == family
        assert (np.linalg.norm(leaves, axis=1) < 1).all()


def test_later_labels_follow_the_nearest_leaf_and_balance():
    _, made = relabelled()
    _, again = relabelled(1, params=made.params)
    sizes = np.bincount(np.asarray(again.method_state["labels"])[:64, 0, 0])
    assert sizes.tolist() == [16] * 4
    assert "relabel/column_error" in again.metrics


def test_labels_are_the_same_on_1_and_8_devices_and_do_not_see_what_fills_up():
    x, _ = families(noise=0.4)
    filled = np.full((72, 6), np.nan)
    filled[:64] = x
    ids = np.where(np.arange(72) < 64, np.arange(72), -1)
    found = []
    for devices in (1, 8):
        mesh = make_mesh(jax.devices()[:devices])
        _, made = relabelled(mesh=mesh, vectors=filled, clip_id=ids)
        found.append(made)
    one, many = found
    np.testing.assert_array_equal(*(m.method_state["labels"] for m in found))
    assert (np.asarray(one.method_state["labels"])[64:] == -1).all()
    np.testing.assert_allclose(
        *(m.method_state[SHARED]["similarity"] for m in found), atol=1e-5
    )
    np.testing.assert_allclose(
        one.params["hierarchy_0"], many.params["hierarchy_0"], atol=1e-2
    )


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(VisxpError, match="labels of head 0 cannot be made"):
        relabelled(vectors=np.full((64, 6), np.nan))


def test_clusters_of_any_clips_are_the_nearest_leaves():
    method, made = relabelled()
    x, _ = families()
    log_probs = method.clusters.log_probs(made.params, {"fused": x})
    assert log_probs.shape == (64, 1, K)
    z = clips_of(made.params["shhc_clusters"], jnp.asarray(x, jnp.float32))
    far = poincare.pairwise_distance(z, made.params["hierarchy_0"])
    np.testing.assert_array_equal(
        np.asarray(log_probs)[:, 0].argmax(axis=1), np.asarray(far).argmin(axis=1)
    )


def test_directions_of_short_rows_pass_finite_gradients():
    rows = jnp.array([[0.0, 0, 0], [1e-16, 0, 0], [1e-8, 0, 1e-8], [3, 4, 0]])
    gradient = jax.grad(lambda x: jnp.sum(directions(x) * jnp.arange(3.0)[None]))(rows)
    assert np.isfinite(np.asarray(gradient)).all()
    np.testing.assert_array_equal(directions(rows)[0], 0)
    np.testing.assert_allclose(directions(rows)[3], [0.6, 0.8, 0], rtol=1e-6)


def stage(devices: int = 1, **changes):
    made = config(**changes)
    mesh = make_mesh(jax.devices()[:devices])
    method, step, state = small_stage(made, "shhc", mesh)
    sets = state.method_state["labels"].shape[1]
    labels = jnp.broadcast_to((jnp.arange(16) % K)[:, None, None], (16, sets, 1))
    near = (1 + jnp.eye(K) + jnp.kron(jnp.eye(2), jnp.ones((2, 2)))) / 3
    fresh = {
        "labels": labels.astype(jnp.int32),
        SHARED: {"similarity": jnp.broadcast_to(near, (sets, K, K))},
    }
    placed = jax.tree.map(
        lambda x, y: jax.device_put(x, y.sharding), fresh, state.method_state
    )
    return made, method, step, state._replace(method_state=placed), mesh


@pytest.mark.parametrize("form", ["ce", "dist", "tree"])
def test_terms_are_weighted_and_logged(form):
    weights = {"clustering": 0.5, "embedding": 2.0, "representation": 0.25}
    changes = {f"shhc.{k}": v for k, v in weights.items()} | {"shhc.form": form}
    _, method, _, state, _ = stage(**changes)
    total, aux = jax.jit(method.loss)(
        *(state.params, state.model_state, state.method_state, small_batch()),
        jax.random.key(0),
    )
    expected = sum(w * float(aux.metrics[f"loss/{k}"]) for k, w in weights.items())
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert ("loss/clustering" in method.chance) == (form != "dist")


def test_leaves_learn_from_the_embedding_alone():
    made, method, _, state, _ = stage(**{"shhc.embedding": 0.0})
    model = small_model(made)
    gradient, _ = jax.jit(jax.grad(method.loss, has_aux=True))(
        *(state.params, state.model_state, state.method_state, small_batch()),
        jax.random.key(0),
    )
    assert not np.any(model.points(gradient, "hierarchy_0"))
    assert np.any(model.weights(gradient, "shhc_clusters").kernel)


def test_steps_lower_both_terms_and_leaves_stay_in_the_ball():
    made, _, step, state, mesh = stage(**{"shhc.steps": 60, "data.mask": 0.0})
    history = []
    for _ in range(60):
        state, metrics = step(state, to_global(small_batch(), mesh), jax.random.key(7))
        history.append(jax.device_get(metrics))
    for term in ("loss/clustering", "loss/embedding"):
        assert history[-1][term] < history[0][term]
    leaves = leaves_of(small_model(made), state.params, 0)
    assert (np.linalg.norm(leaves, axis=1) < 1).all()


def test_step_same_on_1_and_8_devices():
    changes = {"shhc.labels_from": "swapped", "shhc.optim.name": "sgd"}
    assert_same_on_1_and_8_devices(
        lambda devices: stage(devices, **changes)[2:], atol=1e-5
    )


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("form", "other", "one of ce, dist, tree"),
        ("dimensions", 5, "2 to clusters=4"),
        ("clusters", 2, "at least 3"),
        ("temperature", 0.0, "above 0"),
        ("labels_from", "video", "one of fused, pooled, swapped"),
        ("embedding_steps", 0, "at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(key, value, line):
    with pytest.raises(VisxpError, match=f"shhc.{key} must be .*{line}"):
        config(**{f"shhc.{key}": value})
