"""Judge features of a set of clips: correspondence, clusters, probes, chance."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.evals import protocols
from visxp_jax.evals.hierarchical import lca_error, taxonomy
from visxp_jax.losses import cross_modal_nce
from visxp_jax.methods import avc
from visxp_jax.methods.base import Clusters
from visxp_jax.methods.contrastive import HEADS
from visxp_jax.models.bind import Model
from visxp_jax.types import Batch, Features

Scores = dict[str, float | None]
# Clips among which the own must be nearest: a number, so that figures compare.
GROUP = 64


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
    judge = jax.jit(
        lambda p, v, a: avc.correspondence(model, p, v, a, rows, shifts=1)[1]
    )
    return float(judge(params, features.video[order], features.audio[order]))


def common_space(model: Model, params: Any, features: Features) -> Scores:
    """How often pictures and sounds are nearest to their own in the common space.

    Clips are taken in a fixed random order, up to `GROUP` at a time; others of the same
    video do not count.

    Args:
        model: With the heads of stage 'contrastive'.
        params: Its parameters.
        features: Of the clips.

    Returns:
        common_accuracy, and chance_common_accuracy, which is higher in smaller groups.
    """
    n = len(features.clip_id)
    order = np.random.default_rng(0).permutation(n)
    groups = np.array_split(order, -(-n // GROUP))

    @jax.jit
    def judge(params: Any, video: Any, audio: Any, video_id: Any) -> jax.Array:
        seen = model.head(params, HEADS["video"], video)
        heard = model.head(params, HEADS["audio"], audio)
        weight = jnp.ones(len(video_id))
        return cross_modal_nce(seen, heard, video_id, weight, temperature=1.0).accuracy

    columns = (features.video, features.audio, features.video_id)
    shares = [float(judge(params, *(x[rows] for x in columns))) for rows in groups]
    return {
        "common_accuracy": float(np.average(shares, weights=[*map(len, groups)])),
        "chance_common_accuracy": len(groups) / n,
    }


def cluster_probs(clusters: Clusters, params: Any, features: Features) -> np.ndarray:
    """Probability of each cluster by each head, float32 [n, c, k]; no transport."""
    probs = jax.jit(lambda p, x: jnp.exp(clusters.log_probs(p, x)))
    return np.asarray(probs(params, vectors(features)))


def vectors(features: Features) -> dict[str, np.ndarray]:
    """As `Clusters` wants them."""
    return {name: getattr(features, name) for name in ("video", "audio", "fused")}


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
    match = jax.jit(partial(avc.match_probability, model))
    return np.asarray(match(params, video, audio))


def modality_agreement(
    clusters: Clusters, params: Any, features: Features
) -> Agreement | None:
    """Whether picture alone and sound alone put a clip in the same cluster.

    By chance 1 / k where clusters are of equal size, and 1 where there is but one. None
    if the method numbers their clusters differently.
    """
    if clusters.by_modality is None:
        return None
    both = jax.jit(clusters.by_modality)(params, vectors(features))
    a, b = (np.asarray(log_probs).argmax(axis=-1) for log_probs in both)
    k = clusters.number
    rates = [
        np.bincount(x, minlength=k) @ np.bincount(y, minlength=k)
        for x, y in zip(a.T, b.T, strict=True)
    ]
    return Agreement(float(np.mean(a == b)), float(np.mean(rates)) / len(a) ** 2)


def clustering(clusters: Clusters, params: Any, features: Features) -> Scores:
    """Health of the clusters, and their fit to labels where there are any.

    Scores are means over heads: picking the best head would use the labels.
    """
    assigned = cluster_probs(clusters, params, features).argmax(axis=-1)
    counts = [np.bincount(column, minlength=clusters.number) for column in assigned.T]
    agreement = modality_agreement(clusters, params, features)
    scores: Scores = {
        "clusters_in_use": float(np.mean([np.mean(c > 0) for c in counts])),
        "largest_share": float(np.mean([c.max() / c.sum() for c in counts])),
        "modality_agreement": agreement.share if agreement else None,
        "chance_modality_agreement": agreement.by_chance if agreement else None,
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


def probes(
    train: Features,
    test: Features,
    k: int,
    *,
    seed: int,
    label_names: Sequence[str] = (),
) -> Scores:
    """Linear probe, neighbours and k-means on both modalities' vectors together.

    Args:
        train: What they are fitted on.
        test: What they are judged on.
        k: Of k-means.
        seed: Of k-means.
        label_names: Where they are paths, such as family/kind, the probe's `lca_error`
            is told, too.

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
    predicted = protocols.linear_predictions(*known[:3])
    deep: Scores = {}
    if any("/" in name for name in label_names):
        deep["lca_error"] = lca_error(predicted, known[3], taxonomy(label_names))
    return {
        "linear_probe": float(np.mean(predicted == known[3])),
        **deep,
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
