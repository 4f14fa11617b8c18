"""What methods with pseudo-labels share: schedule, store, loss, weights."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small import small_batch, small_config, small_model
from visxp_jax.losses import decorrelation
from visxp_jax.methods import make_method
from visxp_jax.methods.pseudo_labels import Labels, relabel_steps, sampling_weights

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")


@pytest.mark.parametrize(
    ("steps", "relabels", "power", "expected"),
    [
        (400, 5, 1.0, (0, 80, 160, 240, 320)),
        (100, 4, 2.0, (0, 6, 25, 56)),
        (100, 4, 0.5, (0, 50, 70, 86)),
        (3, 10, 1.0, (0, 1, 2)),
        (7, 1, 1.0, (0,)),
    ],
)
def test_relabel_steps_follow_the_power_and_begin_at_0(
    steps, relabels, power, expected
):
    assert relabel_steps(steps, relabels, power) == expected


def test_relabel_steps_lose_none_to_rounding():
    assert relabel_steps(100, 100, 1.0) == tuple(range(100))


@pytest.mark.parametrize(
    ("name", "epochs", "power"),
    [("sela_400_100", 400, 2.0), ("selavi_200_100", 200, 1.5)],
)
def test_relabel_steps_are_those_of_the_authors_code(name, epochs, power):
    """Theirs, in epochs, with one pass more, which falls after the end."""
    published = GOLDEN[f"sched/{name}"]
    per_epoch = 1000
    end = published[-1] / epochs  # 1.01 epochs are added, by SeLa alone
    ours = relabel_steps(round(epochs * end * per_epoch), 99, power)
    assert published[-1] >= epochs
    np.testing.assert_allclose(np.array(ours) / per_epoch, published[:-1], atol=2e-3)


def labels(rows) -> dict:
    return {"labels": jnp.asarray(rows, jnp.int32)}


def test_store_replaces_one_column_of_the_clips_named():
    before = np.full((6, 2, 3), 9)
    store = Labels(labels(before), 10)
    store.put((1, 2), jnp.array([4, -1, 0]), jnp.array([7, 5, 3]))
    expected = before.copy()
    expected[4, 1, 2], expected[0, 1, 2] = 7, 3
    np.testing.assert_array_equal(store.state["labels"], expected)
    assert (before == 9).all()


def test_store_counts_what_changed_and_new_numbers_of_old_clusters_do_not():
    old = np.array([0, 0, 1, 1, 2, 2])[:, None, None]
    new, ids = jnp.array([1, 1, 2, 2, 0, 1]), jnp.arange(6)
    for renumbered, changed in ((False, 1.0), (True, 1 / 6)):
        store = Labels(labels(old), 3)
        store.put((0, 0), ids, new, renumbered=renumbered)
        assert store.metrics["relabel/label_change"] == pytest.approx(changed)
    assert store.metrics["relabel/largest_share"] == 0.5
    assert store.metrics["relabel/clusters_in_use"] == 1


def test_store_counts_every_first_label_as_changed():
    for renumbered in (False, True):
        store = Labels(labels(-np.ones((3, 1, 1))), 2)
        store.put((0, 0), jnp.arange(3), jnp.array([0, 1, 1]), renumbered=renumbered)
        assert store.metrics["relabel/label_change"] == 1


def test_store_reports_the_worst_solution_and_means_of_the_rest():
    store = Labels(labels(np.zeros((4, 1, 2))), 2)
    ids = jnp.arange(4)
    store.put((0, 0), ids, jnp.array([0, 0, 1, 1]), column_error=jnp.float32(0.5))
    store.put((0, 1), ids, jnp.array([0, 0, 0, 0]), column_error=jnp.float32(0.25))
    assert store.metrics == {
        "relabel/column_error": 0.5,
        "relabel/label_change": 0.25,
        "relabel/clusters_in_use": 0.75,
        "relabel/largest_share": 0.75,
    }


def test_sampling_weights_make_labels_equally_frequent():
    rng = np.random.default_rng(0)
    column = np.minimum(rng.geometric(0.4, 500) - 1, 7)
    weights = np.asarray(
        sampling_weights(labels(column[:, None, None])["labels"], clusters=9)
    )
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    per_label = np.bincount(column, weights)
    np.testing.assert_allclose(per_label, 500 / len(per_label), rtol=1e-5)


def test_sampling_weights_are_means_over_columns_and_1_without_a_label():
    rows = np.full((4, 2, 1), -1)
    rows[:3, 0, 0] = [0, 0, 1]
    weights = sampling_weights(labels(rows)["labels"], clusters=2)
    np.testing.assert_allclose(weights, [(0.75 + 1) / 2] * 2 + [(1.5 + 1) / 2, 1])


def loss_of(config, state, stage="selflabel", clusters=None):
    model = small_model(config)
    params, model_state = jax.jit(model.init)(jax.random.key(0))
    method = make_method(config, stage, model)
    value, aux = jax.jit(method.loss)(
        params, model_state, state, small_batch(), jax.random.key(0)
    )
    return method, float(value), {k: float(v) for k, v in aux.metrics.items()}


@pytest.mark.parametrize("source", ["fused", "pooled", "swapped"])
def test_loss_is_the_weighted_sum_of_its_three_terms(source):
    changes = {"labels_from": source, "clustering": 2.0, "representation": 0.5}
    changes |= {"regularisation": 3.0}
    config = small_config(**{f"selflabel.{k}": v for k, v in changes.items()})
    sets = 1 + (source == "swapped")
    state = labels(np.arange(16 * sets * 2).reshape(16, sets, 2) % 4)
    method, total, metrics = loss_of(config, state)
    terms = [
        metrics[f"loss/{k}"] for k in ("clustering", "representation", "regularisation")
    ]
    assert total == pytest.approx(np.dot(terms, [2, 0.5, 3]), rel=1e-5)
    assert method.chance["loss/clustering"] == pytest.approx(math.log(4))
    assert terms[0] == pytest.approx(math.log(4), abs=1.0)  # an untrained network


@pytest.mark.parametrize("source", ["fused", "pooled"])
def test_regularisation_is_of_the_vectors_that_heads_sit_on(source):
    config = small_config(**{"selflabel.labels_from": source})
    model, batch = small_model(config), small_batch()
    params, model_state = jax.jit(model.init)(jax.random.key(0))
    (video, audio), _ = model.embed(
        params, model_state, batch.frame, batch.log_mel, train=True
    )
    expected = decorrelation(model.fuse(params, video, audio), batch.weight)
    if source == "pooled":
        both = [decorrelation(x, batch.weight) for x in (video, audio)]
        assert abs(float(both[0] - both[1])) > 1e-3
        expected = sum(both) / 2
    _, _, metrics = loss_of(config, labels(np.zeros((16, 1, 2))))
    assert metrics["loss/regularisation"] == pytest.approx(float(expected), rel=1e-3)


def test_each_modality_pays_for_the_set_it_learns():
    """Of labels swapped, those of a modality that nobody can foresee cost more."""
    config = small_config(**{"selflabel.labels_from": "swapped"})
    model = small_model(config)
    params, model_state = jax.jit(model.init)(jax.random.key(0))
    method = make_method(config, "selflabel", model)
    batch = small_batch()
    (video, audio), _ = model.embed(
        params, model_state, batch.frame, batch.log_mel, train=True
    )
    logits = {
        name: model.head(params, name, x).reshape(16, 2, 4)
        for name, x in (("clusters_video", video), ("clusters_audio", audio))
    }
    easy = {name: np.asarray(x.argmax(axis=-1)) for name, x in logits.items()}
    right = np.stack([easy["clusters_audio"], easy["clusters_video"]], axis=1)
    costs = []
    for rows in (right, right[:, ::-1]):
        _, aux = jax.jit(method.loss)(
            params, model_state, labels(rows), batch, jax.random.key(0)
        )
        costs.append(float(aux.metrics["loss/clustering"]))
    expected = -np.mean(
        [jax.nn.log_softmax(x).max(axis=-1).mean() for x in logits.values()]
    )
    assert costs[0] == pytest.approx(expected, rel=1e-4)
    assert costs[1] > costs[0]
