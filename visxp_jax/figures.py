"""The figures of a run, on held-out videos, beside what they must be compared with."""

from typing import Any

import jax
import numpy as np

from visxp_jax.evals import judge, protocols
from visxp_jax.session import Session
from visxp_jax.train.step import TrainState
from visxp_jax.types import Batch, Features

PyTree = Any
# Probes are fitted on at most this many training clips, spread over all of them.
MAX_PROBE_CLIPS = 20_000
# K-means on raw input looks at most at this many clips.
MAX_RAW_CLIPS = 2_000


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
    """Accuracy of the correspondence and, after clustering, the clusters."""
    model, config = session.model, session.config
    numbers: judge.Scores = {
        "avc_accuracy": judge.avc_accuracy(model, params, features)
    }
    if stage == "selflabel" and config.selflabel is not None:
        numbers |= judge.clustering(
            model, params, features, config.selflabel.heads, config.selflabel.clusters
        )
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
    trained = {s: session.features(*weights, s) for s in splits}
    fresh, running = jax.jit(session.model.init)(jax.random.key(config.seed))
    random = {s: session.features(fresh, running, s) for s in splits}
    labels = trained["test"].label
    raw = raw_input(session)
    figures: judge.Scores = {"avc_accuracy": scores[config.stages[0]]["avc_accuracy"]}
    for name in (
        "nmi",
        "ari",
        "cluster_accuracy",
        "purity",
        "modality_agreement",
        "clusters_in_use",
        "largest_share",
    ):
        figures[name] = scores[config.stages[-1]].get(name)
    figures |= judge.probes(thin(trained["train"]), trained["test"], seed=config.seed)
    baseline = judge.probes(thin(random["train"]), random["test"], seed=config.seed)
    figures |= {
        "random_init_linear_probe": baseline["linear_probe"],
        "random_init_knn": baseline["knn"],
        "random_init_nmi": baseline["kmeans_nmi"],
        "raw_nmi_visual": judge.kmeans_nmi(
            raw.frame, raw.label, raw.frame, raw.label, seed=config.seed
        ),
        "raw_nmi_audio": judge.kmeans_nmi(
            raw.log_mel, raw.label, raw.log_mel, raw.label, seed=config.seed
        ),
        "chance_nmi": judge.chance_nmi(labels, len(session.dataset.label_names)),
        "chance_linear_probe": chance(labels),
        "skipped_steps": float(state.skipped),
    }
    return figures, trained["test"]


def thin(features: Features) -> Features:
    """At most `MAX_PROBE_CLIPS`, evenly spread."""
    step = -(-len(features.clip_id) // MAX_PROBE_CLIPS)
    return Features(*(column[::step] for column in features))


def chance(labels: np.ndarray) -> float | None:
    """Accuracy of always answering the most frequent label."""
    known = labels[labels >= 0]
    return float(np.bincount(known).max() / len(known)) if len(known) else None


def raw_input(session: Session) -> Batch:
    """Up to `MAX_RAW_CLIPS` clips as they come, not encoded, of all splits.

    Nothing is learnt from them, so none need be held out; and NMI is too high by chance
    where clips are few.
    """
    parts: list[Batch] = []
    seen = 0
    for split in ("test", "validation", "train"):
        for batch in session.reader.ordered(split, batch_size=session.host_batch):
            if seen >= MAX_RAW_CLIPS:
                break
            real = batch.clip_id >= 0
            parts.append(Batch(*(column[real] for column in batch)))
            seen += int(real.sum())
    return Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))
