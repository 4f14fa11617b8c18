"""Judge features of a set of clips: correspondence, clusters, probes, chance."""

from typing import Any, NamedTuple

import jax
import numpy as np

from visxp_jax.evals import protocols
from visxp_jax.methods.avc import correspondence
from visxp_jax.methods.selflabel import cluster_logits
from visxp_jax.models.bind import Model
from visxp_jax.types import Batch, Features

Scores = dict[str, float | None]


class Agreement(NamedTuple):
    """How often two ways of clustering name the same cluster, means over heads."""

    share: float  # of the clips
    by_chance: float  # the share if they chose independently, each as often as it does


def avc_accuracy(model: Model, params: Any, features: Features) -> float | None:
    """Share of pairs judged right: each clip with its own sound, and with another's.

    Clips are paired along a fixed random order, since neighbours in time share a video;
    pairs from one video are left out, and both kinds of pairs count the same. Chance:
    0.5. None if all clips are of one video.
    """
    if len(set(features.video_id.tolist())) < 2:
        return None
    order = np.random.default_rng(0).permutation(len(features.clip_id))
    shape = (len(order),)
    rows = Batch(
        frame=np.zeros(shape),
        log_mel=np.zeros(shape),
        clip_id=features.clip_id[order],
        video_id=features.video_id[order],
        label=features.label[order],
        weight=np.ones(shape, np.float32),
    )
    judge = jax.jit(lambda p, v, a: correspondence(model, p, v, a, rows, shifts=1)[1])
    return float(judge(params, features.video[order], features.audio[order]))


def cluster_labels(
    model: Model, params: Any, fused: np.ndarray, heads: int, clusters: int
) -> np.ndarray:
    """Most likely cluster of each clip and head, int [n, r]; no transport involved."""
    return cluster_probs(model, params, fused, heads, clusters).argmax(axis=-1)


def cluster_probs(
    model: Model, params: Any, fused: np.ndarray, heads: int, clusters: int
) -> np.ndarray:
    """Probability of each cluster, float32 [n, r, k]."""
    probs = jax.jit(
        lambda p, x: jax.nn.softmax(cluster_logits(model, p, x, heads, clusters), -1)
    )
    return np.asarray(probs(params, fused))


def match_probability(
    model: Model, params: Any, video: np.ndarray, audio: np.ndarray
) -> np.ndarray:
    """Probability that picture and sound belong together, float32 [n].

    Args:
        model: With a head 'avc'.
        params: Its parameters.
        video: [n, d], or [d] for one picture against all sounds.
        audio: [n, d], or [d] for one sound against all pictures.
    """
    video, audio = np.broadcast_arrays(np.atleast_2d(video), np.atleast_2d(audio))
    match = jax.jit(
        lambda p, v, a: jax.nn.softmax(model.head(p, "avc", model.fuse(p, v, a)))[:, 1]
    )
    return np.asarray(match(params, video, audio))


def modality_agreement(
    model: Model, params: Any, features: Features, heads: int, clusters: int
) -> Agreement:
    """Whether picture alone and sound alone put a clip in the same cluster.

    The other modality is replaced by its mean over the clips. By chance 1 / k where
    clusters are of equal size, and 1 where there is but one.
    """
    mean_video = np.broadcast_to(features.video.mean(0), features.video.shape)
    mean_audio = np.broadcast_to(features.audio.mean(0), features.audio.shape)
    fuse = jax.jit(model.fuse)
    by_sight = fuse(params, features.video, mean_audio)
    by_sound = fuse(params, mean_video, features.audio)
    a = cluster_labels(model, params, by_sight, heads, clusters)
    b = cluster_labels(model, params, by_sound, heads, clusters)
    rates = [
        np.bincount(x, minlength=clusters) @ np.bincount(y, minlength=clusters)
        for x, y in zip(a.T, b.T, strict=True)
    ]
    return Agreement(float(np.mean(a == b)), float(np.mean(rates)) / len(a) ** 2)


def clustering(
    model: Model, params: Any, features: Features, heads: int, clusters: int
) -> Scores:
    """Health of the clusters, and their fit to labels where there are any.

    Scores are means over heads: picking the best head would use the labels.
    """
    assigned = cluster_labels(model, params, features.fused, heads, clusters)
    counts = [np.bincount(column, minlength=clusters) for column in assigned.T]
    agreement = modality_agreement(model, params, features, heads, clusters)
    scores: Scores = {
        "clusters_in_use": float(np.mean([np.mean(c > 0) for c in counts])),
        "largest_share": float(np.mean([c.max() / c.sum() for c in counts])),
        "modality_agreement": agreement.share,
        "chance_modality_agreement": agreement.by_chance,
        "nmi": None,
        "ari": None,
        "cluster_accuracy": None,
        "purity": None,
    }
    known = features.label >= 0
    if known.any():
        labels = features.label[known]
        rows = [protocols.cluster_scores(c, labels) for c in assigned[known].T]
        mean = protocols.ClusterScores(*np.mean(rows, axis=0).tolist())
        scores |= {
            "nmi": mean.nmi,
            "ari": mean.ari,
            "cluster_accuracy": mean.accuracy,
            "purity": mean.purity,
        }
    return scores


def probes(train: Features, test: Features, k: int, *, seed: int) -> Scores:
    """Linear probe, neighbours and k-means on both modalities' vectors together.

    Args:
        train: What they are fitted on.
        test: What they are judged on.
        k: Of k-means.
        seed: Of k-means.

    Returns:
        linear_probe, knn, and kmeans_ with nmi, ari, accuracy and purity; None where
        there are fewer than two labels.
    """
    names = [f"kmeans_{name}" for name in protocols.ClusterScores._fields]
    a, b = train.label >= 0, test.label >= 0
    if len(set(train.label[a])) < 2 or not b.any():
        return dict.fromkeys(["linear_probe", "knn", *names])
    x = np.concatenate([train.video, train.audio], axis=1)[a]
    y = np.concatenate([test.video, test.audio], axis=1)[b]
    known = (x, train.label[a], y, test.label[b])
    grouped = kmeans_scores(*known, k, seed=seed)
    return {
        "linear_probe": protocols.linear_probe(*known),
        "knn": protocols.knn(*known),
        **dict(zip(names, grouped or (None,) * len(names), strict=True)),
    }


def kmeans_scores(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    k: int,
    *,
    seed: int,
) -> protocols.ClusterScores | None:
    """Scores on `test` of k-means fitted on `train`; None for fewer than two labels."""
    known = test_labels >= 0
    if len(set(train_labels[train_labels >= 0])) < 2 or not known.any():
        return None
    k = min(k, len(train))
    clusters = protocols.kmeans_clusters(train, test[known], k, seed=seed)
    return protocols.cluster_scores(clusters, test_labels[known])


def chance_clusters(labels: np.ndarray, k: int) -> protocols.ClusterScores | None:
    """Scores of k random clusters: far from 0 where clips are few."""
    known = labels[labels >= 0]
    if not len(known):
        return None
    draws = np.random.default_rng(0).integers(0, k, (10, len(known)))
    rows = [protocols.cluster_scores(draw, known) for draw in draws]
    return protocols.ClusterScores(*np.mean(rows, axis=0).tolist())
