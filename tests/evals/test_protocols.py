"""Protocols against numbers worked out by hand and scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from visxp_jax.evals.protocols import (
    cluster_scores,
    effective_rank,
    kmeans_clusters,
    knn,
    linear_predictions,
)


def groups(per_group: int, dims: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three well separated groups: (features, labels)."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(3), per_group)
    centres = 10 * np.eye(3, dims)
    x = centres[labels] + rng.normal(0, 0.1, (len(labels), dims))
    return x.astype(np.float32), labels


def test_cluster_scores_of_a_renamed_grouping_are_all_1():
    scores = cluster_scores(np.array([2, 2, 0, 0, 1]), np.array([0, 0, 1, 1, 2]))
    assert scores == pytest.approx((1, 1, 1, 1))


def test_cluster_scores_equal_hand_computed_ones():
    clusters = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    labels = np.array([0, 0, 1, 1, 1, 0, 1, 1])
    scores = cluster_scores(clusters, labels)
    # Votes: (2, 1), (1, 2), (0, 2). One to one: 2 + 2; each its own label: 2 + 2 + 2.
    assert scores.accuracy == pytest.approx(4 / 8)
    assert scores.purity == pytest.approx(6 / 8)
    assert scores.nmi == pytest.approx(normalized_mutual_info_score(labels, clusters))
    assert scores.ari == pytest.approx(adjusted_rand_score(labels, clusters))


def test_cluster_scores_with_fewer_clusters_than_labels():
    scores = cluster_scores(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]))
    assert scores.accuracy == pytest.approx(3 / 4)
    assert scores.purity == pytest.approx(3 / 4)


def test_cluster_scores_of_one_cluster_are_the_largest_label_and_no_information():
    scores = cluster_scores(np.zeros(4, int), np.array([0, 0, 0, 1]))
    assert scores == pytest.approx((0, 0, 3 / 4, 3 / 4))


def test_cluster_scores_of_clusters_that_are_skipped_are_not_disturbed():
    scores = cluster_scores(np.array([5, 5, 9, 9]), np.array([3, 3, 0, 0]))
    assert scores == pytest.approx((1, 1, 1, 1))


@pytest.mark.parametrize("dims", [4, 100])
def test_kmeans_clusters_finds_groups_in_unseen_clips_of_few_or_many_dimensions(dims):
    train, _ = groups(10, dims)
    test, labels = groups(5, dims, seed=1)
    found = kmeans_clusters(train, test, 3, seed=0)
    assert found.shape == (15,)
    assert adjusted_rand_score(labels, found) == 1
    np.testing.assert_array_equal(found, kmeans_clusters(train, test, 3, seed=0))


def test_kmeans_clusters_flattens_pictures():
    train, _ = groups(10, 100)
    test, _ = groups(5, 100, seed=1)
    flat = kmeans_clusters(train, test, 3, seed=0)
    train, test = (x.reshape(-1, 10, 5, 2) for x in (train, test))
    np.testing.assert_array_equal(kmeans_clusters(train, test, 3, seed=0), flat)


def test_linear_probe_counts_right_answers_on_test_clips():
    train, labels = groups(10, 4)
    test, truth = groups(5, 4, seed=1)
    predicted = linear_predictions(train, labels, test)
    np.testing.assert_array_equal(predicted, truth)
    wrong = truth.copy()
    wrong[:3] = (wrong[:3] + 1) % 3
    assert np.mean(predicted == wrong) == pytest.approx(12 / 15)


def test_linear_probe_does_not_depend_on_the_scale_of_a_feature():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    x = np.stack([1e-4 * (2 * labels - 1), 1e2 * rng.standard_normal(40)], axis=1)
    np.testing.assert_array_equal(linear_predictions(x, labels, x), labels)


def test_linear_probe_of_constant_features_answers_the_most_frequent_label():
    labels = np.array([0, 0, 0, 1])
    x = np.ones((4, 2), np.float32)
    found = linear_predictions(x, labels, x)
    assert np.mean(found == labels) == pytest.approx(3 / 4)


def test_knn_goes_by_direction_and_not_by_distance():
    train = np.array([[100.0, 0], [0, 1]])
    test = np.array([[1.0, 0.1], [0.1, 300]])
    assert knn(train, np.array([0, 1]), test, np.array([0, 1]), neighbours=1) == 1


def test_knn_votes_among_the_neighbours_asked_for_or_all_there_are():
    train = np.array([[1.0, 0], [0.9, 1], [0.8, 1]])
    labels = np.array([0, 1, 1])
    test, truth = np.array([[1.0, 0.01]]), np.array([0])
    assert knn(train, labels, test, truth, neighbours=1) == 1
    assert knn(train, labels, test, truth) == 0


def test_knn_takes_vectors_of_zeros():
    train = np.array([[0.0, 0], [1, 0]])
    assert knn(train, np.array([0, 1]), train, np.array([0, 1]), neighbours=1) == 1


def test_effective_rank_of_points_on_a_line_is_1_and_of_a_simplex_all_dimensions():
    line = np.outer(np.arange(5.0), [1, 2, 3])
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(np.eye(5)) == pytest.approx(4)  # its centre lost one


def test_effective_rank_equals_hand_computed_one_wherever_the_cloud_lies():
    cloud = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])  # singular values 3 : 1
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(cloud) == pytest.approx(expected)
    assert effective_rank(cloud + [100, -7]) == pytest.approx(expected)
    assert effective_rank(5 * cloud) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_effective_rank_of_constant_features_is_1(value):
    features = np.full((7, 3), value, np.float32)
    assert effective_rank(features) == pytest.approx(1, abs=1e-3)
    assert effective_rank(features[:1]) == 1
