"""Protocols on frozen features: (features, labels) -> numbers."""

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize


class ClusterScores(NamedTuple):
    """How well a grouping fits known labels."""

    nmi: float  # normalised mutual information, arithmetic mean of entropies
    ari: float  # adjusted Rand index
    accuracy: float  # after the best one-to-one match of clusters to labels
    purity: float  # share of clips that carry their cluster's most frequent label


def cluster_scores(clusters: np.ndarray, labels: np.ndarray) -> ClusterScores:
    """Compare a clustering with known labels.

    Args:
        clusters: int [n], >= 0.
        labels: int [n], >= 0.

    Returns:
        `ClusterScores`. With more clusters than labels, `accuracy` counts the clips of
        unmatched clusters as wrong.
    """
    votes = np.zeros((clusters.max() + 1, labels.max() + 1), np.int64)
    np.add.at(votes, (clusters, labels), 1)
    matched = linear_sum_assignment(votes, maximize=True)
    return ClusterScores(
        nmi=float(normalized_mutual_info_score(labels, clusters)),
        ari=float(adjusted_rand_score(labels, clusters)),
        accuracy=float(votes[matched].sum() / len(labels)),
        purity=float(votes.max(axis=1).sum() / len(labels)),
    )


def kmeans_clusters(
    train: np.ndarray, test: np.ndarray, k: int, *, seed: int
) -> np.ndarray:
    """K-means on training clips, ten restarts; the nearest centre of each test clip.

    Args:
        train: [n, ...], flattened to vectors, of which at most 64 principal components
            are kept.
        test: [t, ...], likewise.
        k: Number of clusters.
        seed: Of restarts and components.

    Returns:
        int [t].
    """
    flat = np.asarray(train, np.float32).reshape(len(train), -1)
    restarts: Any = 10  # its annotation knows only "auto"
    steps: list = [KMeans(k, n_init=restarts, random_state=seed)]
    if flat.shape[1] > 64:
        parts = min(64, len(flat))
        steps.insert(0, PCA(parts, svd_solver="randomized", random_state=seed))
    model = make_pipeline(*steps).fit(flat)
    return model.predict(np.asarray(test, np.float32).reshape(len(test), -1))


def linear_predictions(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """What logistic regression on standardised features says of `test`.

    Args:
        train: [n, d].
        train_labels: int [n].
        test: [t, d], of other videos.

    Returns:
        int [t]. Regularisation is scikit-learn's C = 1, not tuned.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return probe.fit(train, train_labels).predict(test)


def knn(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    *,
    neighbours: int = 10,
) -> float:
    """Accuracy on `test` of a vote among the nearest by cosine.

    Args:
        train: [n, d].
        train_labels: int [n].
        test: [t, d], of other videos.
        test_labels: int [t].
        neighbours: That vote.
    """
    votes = KNeighborsClassifier(min(neighbours, len(train)))
    votes.fit(normalize(train), train_labels)
    return float(votes.score(normalize(test), test_labels))


def effective_rank(features: np.ndarray) -> float:
    """Exponential of the entropy of the singular values: 1 when all lie on a line.

    Args:
        features: [n, d].

    Returns:
        Between 1 and min(n, d).

    Source: RankMe (Garrido et al., 2023), eq. 1, on centred features.
    """
    centred = features - features.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    if values.sum() <= 0:
        return 1.0
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))
