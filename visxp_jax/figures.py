"""The figures of a run, on held-out videos, beside what they must be compared with."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from sklearn.preprocessing import normalize

from visxp_jax.data.dataset import SPLITS
from visxp_jax.evals import judge, protocols, trees
from visxp_jax.hierarchy import build, heights
from visxp_jax.hierarchy.tree import sorted_by_height
from visxp_jax.methods import heads_of, make_method
from visxp_jax.methods.base import Clusters
from visxp_jax.methods.contrastive import has_common_space
from visxp_jax.session import Session
from visxp_jax.train.step import TrainState
from visxp_jax.types import Batch, Features

PyTree = Any
# Probes are fitted on at most this many training clips, spread over all of them.
MAX_PROBE_CLIPS = 20_000
# K-means on raw input looks at most at this many clips.
MAX_RAW_CLIPS = 1_000  # of a split


def monitor(session: Session, stage: str, state: TrainState) -> dict[str, float]:
    """Figures on the validation videos while training."""
    features = session.features(state.params, state.model_state, "validation")
    numbers = score(session, stage, state.params, features)
    numbers["feature_rank"] = protocols.effective_rank(features.fused)
    return {f"validation/{k}": v for k, v in numbers.items() if v is not None}


def held_out(session: Session, stage: str, state: TrainState) -> judge.Scores:
    """Figures on the test videos after a stage."""
    features = session.features(state.params, state.model_state, "test")
    return score(session, stage, state.params, features)


def score(
    session: Session, stage: str, params: PyTree, features: Features
) -> judge.Scores:
    """What was taught of the correspondence and the common space, and the clusters."""
    model, config = session.model, session.config
    numbers: judge.Scores = {}
    heads = heads_of(config, stage)
    if "avc" in heads:
        numbers["avc_accuracy"] = judge.avc_accuracy(model, params, features)
    if has_common_space(heads):
        numbers |= judge.common_space(model, params, features)
    clusters = make_method(config, stage, model).clusters
    if clusters is not None:
        numbers |= judge.clustering(clusters, params, features)
    return numbers


def final_figures(
    session: Session, state: TrainState, scores: dict[str, judge.Scores]
) -> tuple[judge.Scores, Features]:
    """All figures on held-out videos, beside random weights, raw input and chance.

    Returns:
        The figures, and the features of the test clips.
    """
    config = session.config
    splits = ("train", "test")
    weights = (state.params, state.model_state)
    every = -(-session.dataset.num_clips("train") // MAX_PROBE_CLIPS)
    thin = {"train": every, "test": 1}
    trained = {s: session.features(*weights, s, every=thin[s]) for s in splits}
    fresh, running = jax.jit(session.model.init)(jax.random.key(config.seed))
    random = {s: session.features(fresh, running, s, every=thin[s]) for s in splits}
    labels = trained["test"].label
    raw = {split: raw_input(session, split) for split in SPLITS}
    together = Batch(*map(np.concatenate, zip(*raw.values(), strict=True)))
    # One k for all that is compared: with more clusters, NMI and purity are higher.
    last = config.stages[-1]
    clusters = make_method(config, last, session.model).clusters
    k = clusters.number if clusters else max(2, len(session.dataset.label_names))
    by_chance = judge.chance_clusters(labels, k)
    taught = [x["avc_accuracy"] for x in scores.values() if "avc_accuracy" in x]
    figures: judge.Scores = {"avc_accuracy": taught[0] if taught else None}
    common = ("common_accuracy", "chance_common_accuracy")
    figures |= {name: scores[last][name] for name in common if name in scores[last]}
    for name in (
        "nmi",
        "ari",
        "cluster_accuracy",
        "purity",
        "modality_agreement",
        "chance_modality_agreement",
        "clusters_in_use",
        "largest_share",
    ):
        figures[name] = scores[last].get(name)
    seed = config.seed
    names = session.dataset.label_names
    figures |= judge.probes(
        trained["train"], trained["test"], k, seed=seed, label_names=names
    )
    figures |= hierarchy_figures(clusters, state.params, trained["test"], raw, names)
    baseline = judge.probes(random["train"], random["test"], k, seed=seed)
    figures |= {
        "random_init_linear_probe": baseline["linear_probe"],
        "random_init_knn": baseline["knn"],
        "random_init_nmi": baseline["kmeans_nmi"],
        "random_init_ari": baseline["kmeans_ari"],
        "random_init_cluster_accuracy": baseline["kmeans_accuracy"],
        "random_init_purity": baseline["kmeans_purity"],
        "raw_nmi_visual": raw_nmi("frame", together, together, k, seed),
        "raw_nmi_audio": raw_nmi("log_mel", together, together, k, seed),
        "raw_test_nmi_visual": raw_nmi("frame", raw["train"], raw["test"], k, seed),
        "raw_test_nmi_audio": raw_nmi("log_mel", raw["train"], raw["test"], k, seed),
        "chance_nmi": by_chance.nmi if by_chance else None,
        "chance_cluster_accuracy": by_chance.accuracy if by_chance else None,
        "chance_purity": by_chance.purity if by_chance else None,
        "chance_linear_probe": chance(labels),
        "skipped_steps": float(state.skipped),
    }
    return figures, trained["test"]


def hierarchy_figures(
    clusters: Clusters | None,
    params: PyTree,
    test: Features,
    raw: dict[str, Batch],
    names: Sequence[str],
) -> judge.Scores:
    """Trees of the test clips at every level of labels that are paths; {} of others.

    The method's own tree, or else `build` of both modalities' vectors; average linkage
    of these vectors, and of the raw input.
    """
    # Clips that both have, so that figures are of the same.
    known = (test.label >= 0) & np.isin(test.clip_id, raw["test"].clip_id)
    if not any("/" in name for name in names) or known.sum() < 3:
        return {}
    test = trees.thinned(Features(*(column[known] for column in test)))
    at = np.isin(raw["test"].clip_id, test.clip_id)
    both = trees.sight_and_sound(test)["sight and sound"]
    tree = trees.learnt(clusters, params, test)
    if tree is None:
        tree = build(both)
    tree, _ = sorted_by_height(tree, heights(tree, both))
    figures = trees.scores(tree, test.label, names, "tree")
    linkage = trees.average_linkage(both)
    figures |= trees.scores(linkage, test.label, names, "linkage")
    flat = [
        np.asarray(normalize(np.float32(x[at].reshape(int(at.sum()), -1))))
        for x in (raw["test"].frame, raw["test"].log_mel)
    ]
    linkage = trees.average_linkage(trees.directed(np.concatenate(flat, axis=1)))
    figures |= trees.scores(linkage, raw["test"].label[at], names, "raw_linkage")
    return figures | trees.by_chance(test.label, names)


def chance(labels: np.ndarray) -> float | None:
    """Accuracy of always answering the most frequent label."""
    known = labels[labels >= 0]
    return float(np.bincount(known).max() / len(known)) if len(known) else None


def raw_input(session: Session, split: str) -> Batch:
    """Up to `MAX_RAW_CLIPS` clips of a split as they come, not encoded."""
    parts: list[Batch] = []
    for batch in session.reader.ordered(split, batch_size=session.host_batch):
        if len(parts) * session.host_batch >= MAX_RAW_CLIPS:
            break
        real = batch.clip_id >= 0
        parts.append(Batch(*(column[real] for column in batch)))
    return Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def raw_nmi(kind: str, fitted: Batch, scored: Batch, k: int, seed: int) -> float | None:
    """NMI of k-means on 'frame' or 'log_mel' as they come.

    On all clips, fitted and scored, as on the test clips alone: nothing is learnt, and
    NMI is too high by chance where clips are few.
    """
    scores = judge.kmeans_scores(
        getattr(fitted, kind),
        fitted.label,
        getattr(scored, kind),
        scored.label,
        k,
        seed=seed,
    )
    return scores.nmi if scores else None
