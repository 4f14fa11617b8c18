"""Gather what a run shows, and write WORKDIR/report.html and hierarchy.html."""

import json
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.preprocessing import normalize

from visxp_jax.atomic import write_whole
from visxp_jax.evals import judge
from visxp_jax.evals.trees import thinned
from visxp_jax.methods import heads_of, make_method
from visxp_jax.methods.contrastive import HEADS, has_common_space, in_common_space
from visxp_jax.report.clips import CLIPS_PER_CLUSTER, TestClips
from visxp_jax.report.content import (
    Curve,
    Figure,
    HealthRow,
    Hierarchy,
    Neighbours,
    Report,
)
from visxp_jax.report.files import data_rows, flagged
from visxp_jax.report.page import render, render_hierarchy
from visxp_jax.report.trees import disagreement, grow, heard
from visxp_jax.session import Session
from visxp_jax.train.log import read_jsonl
from visxp_jax.types import Features, PyTree

MAX_CLUSTERS = 64
QUERIES = 6
NEIGHBOURS = 6

# What each figure means, and what stands beside it.
HIDDEN = ("label_names", "figures")  # of what made a run: shown elsewhere
MEANINGS: dict[str, tuple[str, dict[str, str]]] = {
    "avc_accuracy": (
        "After the first stage: share of pairs of a picture and a sound of which the "
        "network says rightly whether they belong together.",
        {},
    ),
    "nmi": (
        "Normalised mutual information of clusters and labels.",
        {
            "k-means, random weights": "random_init_nmi",
            "k-means, raw pixels": "raw_test_nmi_visual",
            "k-means, raw log-mels": "raw_test_nmi_audio",
            "k-means, raw pixels, of all clips": "raw_nmi_visual",
            "k-means, raw log-mels, of all clips": "raw_nmi_audio",
        },
    ),
    "ari": (
        "Adjusted Rand index of clusters and labels.",
        {"k-means, random weights": "random_init_ari"},
    ),
    "cluster_accuracy": (
        "After the best one-to-one match of clusters to labels.",
        {"k-means, random weights": "random_init_cluster_accuracy"},
    ),
    "purity": (
        "Share of clips with the most frequent label of their cluster.",
        {"k-means, random weights": "random_init_purity"},
    ),
    "linear_probe": (
        "Accuracy of a linear classifier on the frozen features.",
        {"random weights": "random_init_linear_probe"},
    ),
    "knn": (
        "Accuracy of a vote of the 10 nearest training clips.",
        {"random weights": "random_init_knn"},
    ),
    "modality_agreement": ("Picture alone and sound alone name one cluster.", {}),
    "kmeans_nmi": (
        "NMI of k-means on the frozen features of both modalities. All k-means have as "
        "many clusters as the heads; without heads, as there are labels.",
        {"random weights": "random_init_nmi"},
    ),
}
HEALTH = {
    "relabel/column_error": "near 0: clusters have their wanted sizes",
    "relabel/sweeps": "under 500: the assignment converged",
    "relabel/inertia": "under 1, the spread of all vectors",
    "relabel/iterations": "under 50: k-means converged",
    "relabel/label_change": "falls during training",
    "relabel/clusters_in_use": "1: all",
    "relabel/largest_share": "near 1 / clusters",
    "validation/clusters_in_use": "near 1",
    "validation/largest_share": "near 1 / clusters",
    "validation/modality_agreement": "rises from chance, 1 / clusters",
    "validation/feature_rank": "far above 1",
}


def write_report(
    session: Session,
    params: PyTree,
    results: judge.Scores,
    features: Features,
    about: dict[str, Any],
) -> None:
    """Write the page; features are those of the test clips."""
    media = TestClips(session)
    probs = first_head(session, params, features)
    clusters, assigned = pick_clusters(probs, features)
    queries = pick_queries(session, params, features)
    thin = thinned(features)
    trees = grow(session, params, thin)
    media.load(
        {int(i) for all_ in clusters.values() for i in all_[:CLIPS_PER_CLUSTER]}
        | {int(i) for q in queries.values() for ids, _ in q.values() for i in ids}
        | set(queries)
        | {int(thin.clip_id[i]) for tree in trees.values() for i in heard(tree)},
        seen=thin.clip_id.tolist(),
    )
    hierarchy = (
        Hierarchy(
            clips=[media.clip(int(i)) for i in thin.clip_id],
            trees=trees,
            apart=disagreement(session, params, thin),
        )
        if trees
        else None
    )
    rows = read_jsonl(session.workdir / "metrics.jsonl")
    report = Report(
        title=f"visxp_jax: {session.config.name}",
        summary={k: _line(v) for k, v in about.items() if k not in HIDDEN},
        figures=figures(results),
        curves=curves(rows),
        stages=stage_starts(session),
        health=health(rows),
        cluster_sizes=[int(x) for x in assigned],
        clusters=[
            media.cluster(index, members, features, int(assigned[index]))
            for index, members in clusters.items()
        ],
        neighbours=[
            Neighbours(
                media.clip(query),
                {
                    name: [
                        (media.clip(int(i)), float(s))
                        for i, s in zip(*found, strict=True)
                    ]
                    for name, found in lists.items()
                },
            )
            for query, lists in queries.items()
        ],
        hierarchy=hierarchy,
        data_rows=data_rows(session.dataset),
        warnings=[*media.warnings, *flagged(session.dataset)],
    )
    write_whole(session.workdir / "report.html", render(report))
    page = render_hierarchy(f"{report.title}: hierarchy", hierarchy, report.summary)
    write_whole(session.workdir / "hierarchy.html", page)


def first_head(
    session: Session, params: PyTree, features: Features
) -> np.ndarray | None:
    """Probability of each cluster by the first head, [n, k]; None without clusters."""
    method = make_method(session.config, session.config.stages[-1], session.model)
    if method.clusters is None:
        return None
    return judge.cluster_probs(method.clusters, params, features)[:, 0]


def pick_clusters(
    probs: np.ndarray | None, features: Features
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Test clips of each cluster, the surest first; and the sizes of all clusters."""
    if probs is None:
        return {}, np.zeros(0, np.int64)
    label = probs.argmax(axis=1)
    sizes = np.bincount(label, minlength=probs.shape[1])
    largest = np.argsort(-sizes, kind="stable")[:MAX_CLUSTERS]
    clusters = {}
    for k in sorted(int(k) for k in largest if sizes[k]):
        members = np.flatnonzero(label == k)
        order = np.argsort(-probs[members, k], kind="stable")
        clusters[k] = features.clip_id[members[order]]
    return clusters, sizes


def pick_queries(
    session: Session, params: PyTree, features: Features
) -> dict[int, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """For a few clips of different videos: nearest clips of other videos.

    Within a modality by cosine; across modalities by the cosine in the space that they
    have in common, or else by the probability that the pair belongs together, if the
    network was trained to say either.
    """
    _, first = np.unique(features.video_id, return_index=True)
    spread = np.linspace(0, len(first) - 1, min(QUERIES, len(first))).astype(int)
    video, audio = normalize(features.video), normalize(features.audio)
    heads, common = heads_of(session.config, session.config.stages[-1]), {}
    if has_common_space(heads):
        for name in HEADS:
            vectors = jnp.asarray(getattr(features, name))
            unit = in_common_space(session.model, params, name, vectors)
            common[name] = np.asarray(unit)
    found = {}
    for row in first[spread]:
        others = features.video_id != features.video_id[row]
        scores = {
            "picture -> pictures": video @ video[row],
            "sound -> sounds": audio @ audio[row],
        }
        if common:
            scores["picture -> sounds"] = common["audio"] @ common["video"][row]
            scores["sound -> pictures"] = common["video"] @ common["audio"][row]
        elif "avc" in heads:
            scores["picture -> sounds"] = judge.match_probability(
                session.model, params, features.video[row], features.audio
            )
            scores["sound -> pictures"] = judge.match_probability(
                session.model, params, features.video, features.audio[row]
            )
        found[int(features.clip_id[row])] = {
            name: _nearest(features, score, others) for name, score in scores.items()
        }
    return found


def _nearest(
    features: Features, score: np.ndarray, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(clip ids, scores) of the best clips, at most one per video."""
    ids: list[int] = []
    seen: set[int] = set()
    for i in np.argsort(-np.where(allowed, score, -np.inf), kind="stable"):
        if len(ids) == NEIGHBOURS or not allowed[i]:
            break
        if int(features.video_id[i]) not in seen:
            seen.add(int(features.video_id[i]))
            ids.append(int(i))
    return features.clip_id[ids], score[ids]


def figures(results: judge.Scores) -> list[Figure]:
    """The table, each figure beside its baselines."""
    chances = {
        "avc_accuracy": 0.5,
        "common_accuracy": results.get("chance_common_accuracy"),
        "nmi": results.get("chance_nmi"),
        "kmeans_nmi": results.get("chance_nmi"),
        "ari": 0.0,
        "cluster_accuracy": results.get("chance_cluster_accuracy"),
        "modality_agreement": results.get("chance_modality_agreement"),
        "purity": results.get("chance_purity"),
        "linear_probe": results.get("chance_linear_probe"),
        "knn": results.get("chance_linear_probe"),
    }
    chances |= {
        name.removeprefix("chance_"): value
        for name, value in results.items()
        if name.startswith("chance_tree_purity")
    }
    return [
        Figure(
            name=name,
            value=results.get(name),
            meaning=meaning,
            baselines={text: results.get(key) for text, key in baselines.items()},
            chance=chances.get(name),
        )
        for name, (meaning, baselines) in (
            MEANINGS | of_common(results) | of_levels(results)
        ).items()
    ] + [
        Figure(
            "skipped_steps", results["skipped_steps"], "Not finite.", is_share=False
        ),
    ]


def of_common(results: judge.Scores) -> dict[str, tuple[str, dict[str, str]]]:
    """What is said of the common space, where there is one."""
    if "common_accuracy" not in results:
        return {}
    meaning = (
        "Share of pictures and sounds that are nearest to their own in the common "
        f"space, among those of up to {judge.GROUP} clips."
    )
    return {"common_accuracy": (meaning, {})}


def of_levels(results: judge.Scores) -> dict[str, tuple[str, dict[str, str]]]:
    """What is said of trees, for each level of labels that are paths."""
    levels = [
        name.removeprefix("tree_purity_")
        for name in results
        if name.startswith("tree_purity_")
    ]
    return {
        f"tree_purity_{level}": (
            f"Dendrogram purity of the learnt tree, or else of sight and sound, over "
            f"labelled clips; level {level} of {len(levels)} of the labels.",
            {
                "average linkage": f"linkage_purity_{level}",
                "average linkage, raw input": f"raw_linkage_purity_{level}",
            },
        )
        for level in levels
    }


def curves(rows: list[dict[str, Any]]) -> list[Curve]:
    """Every logged number over the steps, beside its chance level where it has one."""
    chance: dict[str, float] = {"validation/avc_accuracy": 0.5}
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            group, _, last = name.rpartition("/")
            if name.startswith("chance/"):
                chance[name.removeprefix("chance/")] = value
            elif last.startswith("chance_"):  # the latest: it depends on the clusters
                chance[f"{group}/{last.removeprefix('chance_')}"] = value
            elif name != "step" and not isinstance(value, str):
                number = math.nan if value is None else float(value)
                points.setdefault(name, []).append((float(row["step"]), number))
    groups = {"loss": "losses", "validation": "validation", "relabel": "relabelling"}
    drawn = [
        Curve(
            name=name,
            points=values,
            # The sum of losses differs between stages, and so does its chance.
            chance=None if name == "loss/total" else chance.get(name),
            group=groups.get(name.split("/")[0], "training"),
        )
        for name, values in points.items()
    ]
    return sorted(
        drawn,
        key=lambda c: (
            list(groups.values()).index(c.group)
            if c.group in groups.values()
            else len(groups)
        ),
    )


def stage_starts(session: Session) -> list[tuple[str, int]]:
    """(name, first step) of each stage."""
    starts, step = [], 0
    for stage in session.config.stages:
        starts.append((stage, step))
        step += session.config.stage(stage).steps
    return starts


def health(rows: list[dict[str, Any]]) -> list[HealthRow]:
    """Latest value of each sign of healthy clusters."""
    latest: dict[str, Any] = {}
    for row in rows:
        latest |= row
    return [
        HealthRow(name, latest[name], good)
        for name, good in HEALTH.items()
        if name in latest
    ]


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
