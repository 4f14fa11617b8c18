"""Judging features with a network simple enough to work out its answers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from visxp_jax.evals import protocols
from visxp_jax.evals.judge import (
    avc_accuracy,
    chance_clusters,
    cluster_probs,
    clustering,
    common_space,
    kmeans_scores,
    match_probability,
    modality_agreement,
    probes,
)
from visxp_jax.methods.base import Clusters
from visxp_jax.models.bind import Model
from visxp_jax.types import Features

PROBE_KEYS = {"linear_probe", "knn"} | {
    f"kmeans_{name}" for name in ("nmi", "ari", "accuracy", "purity")
}
LABEL_KEYS = {"nmi", "ari", "cluster_accuracy", "purity"}


def sum_model() -> Model:
    """Fused vector: video + audio, then video . audio.

    The log odds of a match are params * (video . audio - 1 / 2).
    """

    def fuse(params, video, audio):
        return jnp.concatenate(
            [video + audio, (video * audio).sum(-1, keepdims=True)], -1
        )

    def head(params, name, fused):
        odds = params * (fused[:, -1:] - 0.5)
        return jnp.concatenate([jnp.zeros_like(odds), odds], axis=-1)

    def unused(*args, **kwargs):
        raise AssertionError("frozen features need no tower")

    return Model(unused, unused, fuse, head, *5 * [unused])


MODEL = sum_model()


def by_sum(heads: int, k: int) -> Clusters:
    """Logits are the sum of both vectors; by each modality, its own."""

    def log_probs(params, x):
        return jax.nn.log_softmax(x.reshape(-1, heads, k))

    return Clusters(
        number=k,
        log_probs=lambda params, v: log_probs(params, v["video"] + v["audio"]),
        by_modality=lambda params, v: (
            log_probs(params, v["video"]),
            log_probs(params, v["audio"]),
        ),
    )


def clips(video, audio, *, label=None, video_id=None) -> Features:
    video, audio = np.asarray(video, np.float32), np.asarray(audio, np.float32)
    n = np.arange(len(video), dtype=np.int32)
    return Features(
        clip_id=n,
        video_id=n if video_id is None else np.asarray(video_id),
        label=np.full(len(n), -1) if label is None else np.asarray(label),
        video=video,
        audio=audio,
        fused=np.asarray(MODEL.fuse(None, jnp.asarray(video), jnp.asarray(audio))),
    )


def one_hot(ids, k: int) -> np.ndarray:
    return np.eye(k, dtype=np.float32)[np.asarray(ids)]


def blobs(n: int, seed: int, label=None) -> Features:
    """Three groups that sight tells apart in part and sound in the rest."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    video = one_hot(1 * (kind == 1), 2) + rng.normal(0, 0.05, (n, 2))
    audio = one_hot(1 * (kind == 2), 2) + rng.normal(0, 0.05, (n, 2))
    return clips(video, audio, label=kind if label is None else label)


@pytest.mark.parametrize(("sign", "right"), [(1.0, 1.0), (-1.0, 0.0)])
def test_avc_accuracy_of_a_judge_always_right_and_always_wrong(sign, right):
    x = one_hot(range(6), 6)
    assert avc_accuracy(MODEL, sign, clips(x, x)) == right


def test_avc_accuracy_of_a_judge_with_one_answer_is_a_half_whatever_the_pairs():
    x = np.ones((9, 4))
    ids = [0, 0, 0, 0, 0, 0, 1, 1, 2]
    assert avc_accuracy(MODEL, 1.0, clips(x, x, video_id=ids)) == pytest.approx(0.5)


def test_avc_accuracy_leaves_out_pairs_from_one_video():
    ids = np.repeat([0, 1, 2], 4)
    x = one_hot(ids, 3)
    assert avc_accuracy(MODEL, 1.0, clips(x, x, video_id=ids)) == pytest.approx(1.0)


def test_avc_accuracy_of_one_video_or_one_clip_is_none():
    x = one_hot(range(4), 4)
    assert avc_accuracy(MODEL, 1.0, clips(x, x, video_id=[7] * 4)) is None
    assert avc_accuracy(MODEL, 1.0, clips(x[:1], x[:1])) is None


def test_cluster_probs_are_a_softmax_per_head():
    logits = np.log([[1.0, 3, 1, 1], [3, 1, 1, 7]]).astype(np.float32)
    probs = cluster_probs(by_sum(2, 2), 1.0, clips(logits, np.zeros((2, 4))))
    expected = [[[1 / 4, 3 / 4], [1 / 2, 1 / 2]], [[3 / 4, 1 / 4], [1 / 8, 7 / 8]]]
    np.testing.assert_allclose(probs, expected, rtol=1e-5)
    assert probs.dtype == np.float32


def test_match_probability_of_rows_and_of_one_against_all():
    x = one_hot(range(3), 3)
    sure = 1 / (1 + np.exp(-2.0))
    own = match_probability(MODEL, 4.0, x, x)
    np.testing.assert_allclose(own, [sure] * 3, rtol=1e-5)
    expected = [1 - sure, sure, 1 - sure]
    np.testing.assert_allclose(match_probability(MODEL, 4.0, x[1], x), expected, 1e-5)
    np.testing.assert_allclose(match_probability(MODEL, 4.0, x, x[1]), expected, 1e-5)


def test_common_accuracy_is_over_groups_of_clips_of_other_videos():
    class Heads:
        def head(self, params, name, vectors):
            return vectors @ params[name]

    params = {f"common_{name}": jnp.eye(100) for name in ("video", "audio")}
    video = one_hot(range(100), 100)
    audio = video.copy()
    audio[:25] = audio[25:50]  # a quarter is as near to another's sound, or nearer
    found = common_space(Heads(), params, clips(video, audio))
    assert 0.6 < found["common_accuracy"] < 0.9
    assert found["chance_common_accuracy"] == 1 / 50
    one = clips(video, video)
    assert common_space(Heads(), params, one)["common_accuracy"] == 1


def test_modality_agreement_is_the_share_of_clips_that_both_put_alike():
    video, audio = one_hot([0, 1, 0, 1], 2), one_hot([0, 1, 1, 0], 2)
    assert modality_agreement(by_sum(1, 2), 1.0, clips(video, video)).share == 1
    assert modality_agreement(by_sum(1, 2), 1.0, clips(video, 1 - video)).share == 0
    assert modality_agreement(by_sum(1, 2), 1.0, clips(video, audio)).share == 0.5


def test_modality_agreement_by_chance_follows_the_sizes_of_the_clusters():
    video, audio = one_hot([0, 1, 0, 1], 2), one_hot([0, 1, 1, 0], 2)
    assert modality_agreement(by_sum(1, 2), 1.0, clips(video, audio)).by_chance == 0.5
    one = one_hot([0, 0, 0, 0], 2)
    assert modality_agreement(by_sum(1, 2), 1.0, clips(one, one)).by_chance == 1
    skewed = clips(one_hot([0, 0, 0, 1], 2), one_hot([0, 0, 0, 1], 2))
    expected = (3 / 4) ** 2 + (1 / 4) ** 2
    assert modality_agreement(by_sum(1, 2), 1.0, skewed).by_chance == expected


def test_modality_agreement_counts_every_head():
    video, other = one_hot([0, 1, 0, 1], 2), one_hot([1, 0, 1, 0], 2)
    both = np.concatenate([video, video], axis=1)
    half = np.concatenate([video, other], axis=1)
    assert modality_agreement(by_sum(2, 2), 1.0, clips(both, half)).share == 0.5


def test_modalities_that_number_their_clusters_differently_cannot_agree():
    clusters = by_sum(1, 2)._replace(by_modality=None)
    x = one_hot([0, 1], 2)
    assert modality_agreement(clusters, 1.0, clips(x, x)) is None
    scores = clustering(clusters, 1.0, clips(x, x))
    assert scores["modality_agreement"] is scores["chance_modality_agreement"] is None


def test_clustering_scores_are_means_over_heads():
    labels = np.array([0, 0, 1, 1])
    good, bad = one_hot(labels, 3), one_hot([0, 0, 0, 0], 3)
    x = np.concatenate([good, bad], axis=1)
    scores = clustering(by_sum(2, 3), 1.0, clips(x, x, label=labels))
    assert scores == pytest.approx(
        {
            "clusters_in_use": (2 / 3 + 1 / 3) / 2,
            "largest_share": (1 / 2 + 1) / 2,
            "modality_agreement": 1,
            "chance_modality_agreement": (1 / 2 + 1) / 2,
            "nmi": 1 / 2,
            "ari": 1 / 2,
            "cluster_accuracy": (1 + 1 / 2) / 2,
            "purity": (1 + 1 / 2) / 2,
        }
    )


def test_clustering_judges_labelled_clips_only_and_health_by_all():
    x = one_hot([0, 0, 1, 1, 2, 0, 0, 0], 3)
    label = [4, 4, 2, 2, -1, -1, -1, -1]
    scores = clustering(by_sum(1, 3), 1.0, clips(x, x, label=label))
    assert {name: scores[name] for name in LABEL_KEYS} == dict.fromkeys(LABEL_KEYS, 1)
    assert scores["clusters_in_use"] == 1
    assert scores["largest_share"] == pytest.approx(5 / 8)


def test_clustering_without_any_label_has_no_fit_to_labels():
    x = one_hot([0, 1], 2)
    scores = clustering(by_sum(1, 2), 1.0, clips(x, x))
    assert {name for name, value in scores.items() if value is None} == LABEL_KEYS


def test_clustering_of_collapsed_features_says_so():
    x = np.ones((6, 3))
    features = clips(x, x, label=[0, 0, 0, 1, 1, 1])
    scores = clustering(by_sum(1, 3), 1.0, features)
    assert scores["largest_share"] == 1
    assert scores["clusters_in_use"] == pytest.approx(1 / 3)
    assert scores["nmi"] == pytest.approx(0)
    assert scores["cluster_accuracy"] == 0.5


def test_probes_use_both_modalities():
    scores = probes(blobs(30, 0), blobs(12, 1), 3, seed=0)
    assert scores == pytest.approx(dict.fromkeys(PROBE_KEYS, 1))


def test_probes_tell_how_far_off_they_are_where_labels_are_paths():
    train, test = blobs(30, 0), blobs(12, 1)
    names = ["a/x", "a/y", "b/z"]
    assert probes(train, test, 3, seed=0, label_names=names)["lca_error"] == 0
    # Of what is 0 some is said to be 1, its sibling: one level up they meet.
    wrong = test._replace(label=np.where(test.label == 0, 1, test.label))
    found = probes(train, wrong, 3, seed=0, label_names=names)
    assert found["lca_error"] == pytest.approx(np.mean(test.label == 0))
    assert "lca_error" not in probes(
        train, test, 3, seed=0, label_names=["a", "b", "c"]
    )


def test_probes_leave_out_unlabelled_clips_on_both_sides():
    train, test = blobs(30, 0), blobs(12, 1)
    expected = probes(train, test, 3, seed=0)

    def with_strangers(features: Features) -> Features:
        strange = Features(*(x[:5] for x in features))
        strange = strange._replace(
            label=np.full(5, -1), video=10 - strange.video, audio=-strange.audio
        )
        both = zip(strange, features, strict=True)
        return Features(*(np.concatenate(x) for x in both))

    mixed = probes(with_strangers(train), with_strangers(test), 3, seed=0)
    assert mixed == pytest.approx(expected)


@pytest.mark.parametrize(
    ("train_label", "test_label"),
    [([0] * 6, None), ([-1] * 6, None), ([0, -1] * 3, None), (None, [-1] * 6)],
)
def test_probes_without_two_labels_to_learn_or_one_to_test_are_none(
    train_label, test_label
):
    scores = probes(blobs(6, 0, train_label), blobs(6, 1, test_label), 3, seed=0)
    assert scores == dict.fromkeys(PROBE_KEYS)


def test_kmeans_equals_scikit_learn_on_labelled_test_clips():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((2, 40, 3))
    train_labels, labels = rng.integers(0, 4, (2, 40))
    labels[:10] = -1
    scores = kmeans_scores(train, train_labels, test, labels, 7, seed=3)
    assert scores is not None
    found = protocols.kmeans_clusters(train, test, 7, seed=3)[10:]
    expected = normalized_mutual_info_score(labels[10:], found)
    assert scores.nmi == pytest.approx(expected)


def test_kmeans_learns_from_unlabelled_clips():
    train, test = blobs(30, 0), blobs(12, 1)
    x = np.concatenate([train.video, train.audio], axis=1)
    y = np.concatenate([test.video, test.audio], axis=1)
    few = np.where(np.arange(30) < 3, train.label, -1)
    scores = kmeans_scores(x, few, y, test.label, 3, seed=0)
    assert scores == pytest.approx((1, 1, 1, 1))


def test_kmeans_without_two_labels_to_learn_or_one_to_test_is_none():
    x = np.arange(8.0)[:, None]
    two, one, none = np.arange(8) % 2, np.where(np.arange(8), -1, 5), np.full(8, -1)
    assert kmeans_scores(x, one, x, two, 2, seed=0) is None
    assert kmeans_scores(x, none, x, two, 2, seed=0) is None
    assert kmeans_scores(x, two, x, none, 2, seed=0) is None


def test_kmeans_of_more_clusters_than_clips_has_as_many_as_clips():
    x, two = np.arange(8.0)[:, None], np.arange(8) % 2
    scores = kmeans_scores(x, two, x, two, 50, seed=0)
    assert scores is not None
    assert scores.purity == 1
    assert scores.accuracy == 2 / 8


def test_chance_is_far_from_0_for_few_clips_and_near_it_for_many():
    few = chance_clusters(np.arange(20) % 5, 10)
    many = chance_clusters(np.arange(4000) % 5, 10)
    assert few is not None
    assert many is not None
    assert few.nmi > 0.2
    assert many.nmi < 0.01


def test_chance_ignores_unlabelled_clips():
    labels = np.arange(20) % 5
    padded = np.concatenate([np.full(7, -1), labels])
    assert chance_clusters(padded, 4) == chance_clusters(labels, 4)
    assert chance_clusters(np.full(3, -1), 4) is None


def test_chance_of_one_label_is_0():
    assert chance_clusters(np.zeros(50, int), 4).nmi == pytest.approx(0)


def test_judging_a_batch_leaves_features_as_they_were():
    features = blobs(12, 0)
    before = jax.tree.map(np.copy, features)
    clustering(by_sum(1, 2), 1.0, features)
    avc_accuracy(MODEL, 1.0, features)
    for a, b in zip(before, features, strict=True):
        np.testing.assert_array_equal(a, b)
