r"""How well the sound of a picture is found, and the picture of a sound.

    python -m experiments.compare --config=configs/avc.py --data=runs/demo/data \
        --runs=runs/across --out=runs/across.json --variant avc \
        --variant contrastive configs/contrastive.py
    python -m experiments.across --data=runs/demo/data --runs=runs/across \
        --variants avc contrastive --out=experiments/results/across.json

Every second of held-out videos asks for the other modality among all of these seconds,
by the scores that search goes by with that model. A hit is a second of the same kind
('kind'); the same with all seconds of its own video left out ('elsewhere'); or the same
second ('second'). Recall at k is the share of questions with a hit among the first k;
the median is of the first hit's rank. Equal scores have the middle of their ranks.
Questions to which nothing would be a hit are left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.bench.measure import arguments, finish
from visxp_jax.data import open_reader
from visxp_jax.data.dataset import open_dataset
from visxp_jax.features import Encoder
from visxp_jax.search.finder import scores_across
from visxp_jax.sharding import make_mesh
from visxp_jax.types import Features
from visxp_jax.weights import load_weights

OTHER = {"video": "audio", "audio": "video"}
WAYS = {"sound -> picture": "video", "picture -> sound": "audio"}
Figures = dict[str, float]


def first_hits(scores: np.ndarray, hits: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Rank of the first hit, from 1 on, of each question that has any.

    Args:
        scores: [q, n].
        hits: bool [q, n].
        others: bool [q, n], what else is ranked.
    """
    some = hits.any(axis=1)
    scores, hits, others = scores[some], hits[some], others[some]
    best = np.where(hits, scores, -np.inf).max(axis=1, keepdims=True)
    above, same = others & (scores > best), others & (scores == best)
    return 1 + above.sum(axis=1) + same.sum(axis=1) / 2


def judged(scores: np.ndarray, of: Features) -> dict[str, Figures]:
    """Figures of one way, by what a hit is; questions and answers in the same order."""
    elsewhere = of.video_id[:, None] != of.video_id
    kind = (of.label[:, None] == of.label) & (of.label >= 0)
    second = np.eye(len(scores), dtype=bool)
    found = {}
    for name, ranks in (
        ("kind", first_hits(scores, kind, ~kind)),
        ("elsewhere", first_hits(scores, kind & elsewhere, ~kind & elsewhere)),
        ("second", first_hits(scores, second, ~second)),
    ):
        if not len(ranks):
            continue
        recall = {f"recall_{k}": float(np.mean(ranks <= k)) for k in (1, 5, 10)}
        found[name] = recall | {"median": float(np.median(ranks))}
    return found


def measured(workdir: Path, data: Path, split: str) -> dict[str, dict[str, Figures]]:
    """Figures of a model by way, and of scores at random by the same names."""
    trained, dataset = load_weights(workdir), open_dataset(data)
    if trained.config is None:
        raise SystemExit(f"{workdir} must be of a run.")
    batches = open_reader(dataset, trained.config.data).ordered(split, batch_size=64)
    encode = Encoder(trained.model, make_mesh())
    of = encode(trained.params, trained.model_state, batches)
    figures = {}
    for way, wanted in WAYS.items():
        rows, queries = getattr(of, wanted), getattr(of, OTHER[wanted])
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        scores = scores_across(trained, wanted)(rows / length, length, queries)
        figures[way] = judged(np.asarray(scores), of)
    noise = np.random.default_rng(0).random((len(of.label), len(of.label)))
    return {**figures, "at random": judged(noise, of)}


def spread(runs: Sequence[dict[str, dict[str, Figures]]]) -> dict[str, object]:
    """Mean and each of the runs, for every figure; printed as well."""
    told: dict[str, object] = {}
    for way, hits in runs[0].items():
        for hit, figures in hits.items():
            for name in figures:
                each = [run[way][hit][name] for run in runs]
                told[f"{way}, {hit}, {name}"] = {"mean": np.mean(each), "runs": each}
                span = f"{np.mean(each):7.3f} ({min(each):.3f} - {max(each):.3f})"
                print(f"  {way:16}  {hit:9}  {name:9}  {span}")
    return told


def main() -> None:
    """Print the figures."""
    parser: argparse.ArgumentParser = arguments(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="prepared data")
    add("--runs", type=Path, required=True, help="of experiments.compare")
    add("--variants", nargs="+", required=True)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--split", default="test", choices=("validation", "test"))
    args = parser.parse_args()
    figures: dict[str, object] = {"split": args.split, "seeds": args.seeds}
    for name in args.variants:
        print(name)
        workdirs = [args.runs / f"{name}-{seed}" for seed in args.seeds]
        runs = [measured(workdir, args.data, args.split) for workdir in workdirs]
        figures[name] = spread(runs)
    finish(args.out, "across", figures)


if __name__ == "__main__":
    main()
