"""Self-labelling: when labels are made, the first ones, and those by the heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from tests.small import small_config
from visxp_jax.errors import VisxpError
from visxp_jax.methods import selflabel
from visxp_jax.methods.selflabel import balanced_kmeans, relabel_steps
from visxp_jax.models.bind import Model
from visxp_jax.sharding import make_mesh, rows

HEADS, CLUSTERS = 2, 4


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


def groups(n: int, k: int = CLUSTERS, seed: int = 0) -> tuple[jax.Array, np.ndarray]:
    """k groups of n / k clips, far from each other: (features, group)."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % k
    x = 5 * np.eye(k, 8)[group] + 0.1 * rng.standard_normal((n, 8))
    return jnp.asarray(x, jnp.float32), group


@pytest.mark.parametrize("key", range(5))
def test_balanced_kmeans_finds_well_separated_groups(key):
    features, group = groups(64)
    labels, result = balanced_kmeans(
        jax.random.key(key), features, jnp.ones(64), clusters=CLUSTERS
    )
    assert labels.dtype == jnp.int32
    assert adjusted_rand_score(group, labels) == 1
    assert bool(result.converged)


def test_balanced_kmeans_makes_clusters_of_nearly_one_size_where_there_are_none():
    # Two thirds are in one heap; plain k-means makes clusters of 17 to 70 here.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((240, 8))
    x[:160] = 0.5 * x[:160] + 1
    labels, result = balanced_kmeans(
        jax.random.key(0), jnp.asarray(x, jnp.float32), jnp.ones(240), clusters=6
    )
    counts = np.bincount(labels, minlength=6)
    assert float(result.column_error) < 1e-3
    assert counts.min() >= 30
    assert counts.max() <= 50


def test_balanced_kmeans_depends_on_its_key_alone():
    x = jax.random.normal(jax.random.key(9), (64, 8))
    a, b, c = (
        np.asarray(balanced_kmeans(jax.random.key(k), x, jnp.ones(64), clusters=8)[0])
        for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_balanced_kmeans_does_not_see_padded_rows():
    features, _ = groups(64)
    real = np.arange(64) % 3 > 0
    results = []
    for padding in (0.0, 1e3):
        x = jnp.where(real[:, None], features, padding)
        labels, result = balanced_kmeans(
            jax.random.key(0), x, jnp.asarray(real, jnp.float32), clusters=CLUSTERS
        )
        results.append((np.asarray(labels)[real], np.asarray(result.log_scale)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-4)


def test_balanced_kmeans_ignores_a_shift_and_a_stretch_of_all_features():
    features, _ = groups(64)
    labels = [
        np.asarray(
            balanced_kmeans(jax.random.key(0), x, jnp.ones(64), clusters=CLUSTERS)[0]
        )
        for x in (features, 10 * features + 7)
    ]
    np.testing.assert_array_equal(labels[0], labels[1])


def test_balanced_kmeans_of_equal_features_is_finite():
    _, result = balanced_kmeans(
        jax.random.key(0), jnp.ones((16, 3)), jnp.ones(16), clusters=2
    )
    assert np.isfinite(float(result.column_error))


def method():
    """Self-labelling of a network whose logits are params * the fused vectors."""

    def unused(*args, **kwargs):
        raise AssertionError("labels are made from fused vectors alone")

    def head(params, name, fused):
        assert name == "clusters"
        return params * fused

    model = Model(init=unused, embed=unused, fuse=unused, head=head)
    config = small_config().selflabel
    assert config is not None
    config = dataclasses.replace(config, heads=HEADS, clusters=CLUSTERS)
    return selflabel.make(config, model, 16)


def relabelled(features, clip_id, labels, params=1.0):
    made = method()
    assert made.relabel is not None
    return made.relabel(
        jnp.float32(params),
        {"labels": labels},
        jax.device_put(np.asarray(features, np.float32), rows(make_mesh())),
        np.asarray(clip_id, np.int32),
        jax.random.key(0),
    )


def no_labels(n: int) -> np.ndarray:
    state = method().init_state(n, jax.random.key(0))
    return np.asarray(state["labels"])


def logits_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Fused vectors with which head 0 is sure of `first`, head 1 of `second`."""
    return 5 * np.concatenate([np.eye(CLUSTERS)[x] for x in (first, second)], axis=1)


def test_first_labels_come_from_features_and_are_for_real_clips_only():
    _, group = groups(16)
    ids = np.full(24, -1)
    ids[:16] = np.arange(16) + 3
    features = np.zeros((24, 8))
    # Apart by more than rounding: centres that begin at equal clips stay together.
    features[:16] = logits_of(group, group) + 0.1 * np.sin(np.arange(128)).reshape(
        16, 8
    )
    before = no_labels(24)
    result = relabelled(features, ids, before)
    labels = result.method_state["labels"]
    assert labels.shape == (24, HEADS)
    assert labels.dtype == np.int32
    assert (labels[:3] == -1).all()
    assert (labels[19:] == -1).all()
    for head in range(HEADS):
        assert adjusted_rand_score(group, labels[3:19, head]) == 1
    assert (before == -1).all()
    assert result.metrics["relabel/label_change"] == 1


def test_later_labels_come_from_each_head_for_its_own_column():
    group = np.arange(16) % CLUSTERS
    order = np.random.default_rng(0).permutation(16)
    first, second = group, group[order]
    ids = order.astype(np.int32)
    labels = np.zeros((16, HEADS), np.int32)
    result = relabelled(logits_of(first, second), ids, labels)
    np.testing.assert_array_equal(result.method_state["labels"][ids, 0], first)
    np.testing.assert_array_equal(result.method_state["labels"][ids, 1], second)
    assert result.metrics["relabel/label_change"] == pytest.approx(12 / 16)


def test_later_labels_are_balanced_though_the_head_prefers_one_cluster():
    rng = np.random.default_rng(0)
    logits = 0.1 * rng.standard_normal((64, HEADS * CLUSTERS))
    logits[:, 0] += 3
    result = relabelled(logits, np.arange(64), np.zeros((64, HEADS), np.int32))
    counts = np.bincount(result.method_state["labels"][:, 0], minlength=CLUSTERS)
    assert counts.min() >= 13
    assert counts.max() <= 19


def test_relabel_metrics_say_what_the_labels_are():
    group = np.arange(16) % CLUSTERS
    labels = np.stack([group, group], axis=1).astype(np.int32)
    metrics = relabelled(logits_of(group, group), np.arange(16), labels).metrics
    assert metrics.keys() == {
        "relabel/column_error",
        "relabel/sweeps",
        "relabel/label_change",
        "relabel/clusters_in_use",
        "relabel/largest_share",
    }
    assert metrics["relabel/label_change"] == 0
    assert metrics["relabel/clusters_in_use"] == 1
    assert metrics["relabel/largest_share"] == pytest.approx(1 / CLUSTERS)
    assert metrics["relabel/column_error"] < 1e-3
    assert all(type(value) is float for value in metrics.values())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("known", [False, True])
def test_relabel_refuses_logits_and_features_that_are_not_finite(value, known):
    group = np.arange(16) % CLUSTERS
    features = logits_of(group, group)
    features[3, 0] = value
    labels = np.zeros((16, HEADS), np.int32) if known else no_labels(16)
    with pytest.raises(VisxpError, match=r"head 0.*not finite; lower"):
        relabelled(features, np.arange(16), labels)


def test_relabel_names_the_head_that_is_not_finite():
    group = np.arange(16) % CLUSTERS
    features = logits_of(group, group)
    features[3, CLUSTERS] = np.nan
    with pytest.raises(VisxpError, match="head 1"):
        relabelled(features, np.arange(16), np.zeros((16, HEADS), np.int32))
