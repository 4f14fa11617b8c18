"""How well the agreement of sight and sound finds sound that belongs elsewhere.

    python -m experiments.agreement --workdir=runs/demo --out=agreement.json

Takes the held-out videos of a run, extracts their features as `visxp extract` does, and
gives a fifth of them the sound of another video: of another kind, as long. Vectors are
of one modality each, so that exchanging them is exchanging the sound. Seconds, and
whole videos by the mean over theirs, are then sorted from the least agreement on:
precision among as many as were planted, average precision, and the area under the ROC
curve, over draws of which are planted. By chance precision is the planted share.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from experiments.bench.measure import arguments, finish
from visxp_jax import extract, feature_files
from visxp_jax.agreement import of_videos
from visxp_jax.data.dataset import MANIFEST, open_dataset
from visxp_jax.methods.avc import match_probability
from visxp_jax.weights import load_weights

SHARE = 0.2
DRAWS = 20


def held_out(data: Path) -> list[tuple[Path, str]]:
    """Test videos with sound, and their labels."""
    folder = open_dataset(data).videos
    with (data / MANIFEST).open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    heard = [row for row in rows if float(row["sound_seconds"]) > 0]
    return [(folder / row["file"], row["label"]) for row in heard]


def exchanged(
    labels: list[str], seconds: list[int], rng: np.random.Generator
) -> dict[int, int]:
    """Videos that get another sound, and of which video that is."""
    planted: dict[int, int] = {}
    for i in rng.permutation(len(labels)).tolist():
        others = [
            j
            for j in range(len(labels))
            if labels[j] != labels[i] and seconds[j] >= seconds[i]
        ]
        if others and len(planted) < round(SHARE * len(labels)):
            planted[i] = int(rng.choice(others))
    return planted


def judged(scores: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    """Figures of one ranking; the least score comes first."""
    first = np.argsort(scores, kind="stable")[: planted.sum()]
    return {
        "precision": float(planted[first].mean()),
        "average_precision": float(average_precision_score(planted, -scores)),
        "auc": float(roc_auc_score(planted, -scores)),
        "chance": float(planted.mean()),
    }


def measured(workdir: Path, data: Path) -> dict[str, dict[str, list[float]]]:
    """Figures of both levels over draws."""
    trained, videos = load_weights(workdir), held_out(data)
    with tempfile.TemporaryDirectory() as out:
        extract.run(workdir, [path for path, _ in videos], Path(out))
        found = [
            feature_files.read(path) for path in feature_files.files_of([Path(out)])
        ]
    label_of = {str(path): label for path, label in videos}
    labels, sight, sound = [], [], []
    for one in found:
        heard = one.table["has_audio"].to_numpy() & ~one.table["silent"].to_numpy()
        labels.append(label_of[one.table["path"][0].as_py()])
        sight.append(one.vectors["video"][heard].astype(np.float32))
        sound.append(one.vectors["audio"][heard].astype(np.float32))
    seconds = [len(x) for x in sight]
    figures: dict[str, dict[str, list[float]]] = {"seconds": {}, "videos": {}}
    for draw in range(DRAWS):
        planted = exchanged(labels, seconds, np.random.default_rng(draw))
        heard = [sound[planted.get(i, i)][:n] for i, n in enumerate(seconds)]
        scores = match_probability(
            trained.model,
            trained.params,
            jnp.asarray(np.concatenate(sight)),
            jnp.asarray(np.concatenate(heard)),
        )
        video = np.repeat(np.arange(len(seconds)), seconds)
        is_planted = np.isin(np.arange(len(seconds)), list(planted))
        for level, own in (
            ("seconds", judged(np.asarray(scores), is_planted[video])),
            ("videos", judged(of_videos(np.asarray(scores), video), is_planted)),
        ):
            for name, value in own.items():
                figures[level].setdefault(name, []).append(value)
    return figures


def main() -> None:
    """Print the table."""
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--workdir", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    args = parser.parse_args()
    runs = [measured(workdir, args.data) for workdir in args.workdir]
    figures: dict[str, object] = {"share": SHARE, "draws": DRAWS, "runs": len(runs)}
    for level in runs[0]:
        means = {}
        for name in runs[0][level]:
            each = [float(np.mean(run[level][name])) for run in runs]
            means[name] = {"mean": float(np.mean(each)), "runs": each}
            span = f"({min(each):.3f} - {max(each):.3f})"
            print(f"{level:8} {name:18} {np.mean(each):.3f} {span}")
        figures[level] = means
    finish(args.out, "agreement", figures)


if __name__ == "__main__":
    main()
