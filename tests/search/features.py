"""Feature files as extraction writes them, with vectors by rule."""

import json
from pathlib import Path

import numpy as np

from visxp_jax.extract import Row, write_parquet

WIDTH = {"video": 8, "audio": 6}
SHA256 = "a" * 64


def vectors(name: str, seconds: int, modality: str) -> np.ndarray:
    """float32 [seconds, d] of a file."""
    seed = [len(modality), *name.encode()]
    x = np.random.default_rng(seed).standard_normal((seconds, WIDTH[modality]))
    return (3 * x).astype(np.float32)


def write_features(
    path: Path,
    files: dict[str, int],
    *,
    silent: tuple[str, ...] = (),
    sha256: str = SHA256,
) -> Path:
    """Features of files by their length in seconds; those of `silent` have no sound."""
    rows, video, audio = [], [], []
    for name, seconds in files.items():
        heard = name not in silent
        rows += [
            Row(name, float(i), i + 1.0, i + 0.5, heard, False, False)
            for i in range(seconds)
        ]
        video.append(vectors(name, seconds, "video"))
        audio.append(vectors(name, seconds, "audio") * heard)
    about = json.dumps({"model_sha256": sha256})
    write_parquet(path, rows, np.concatenate(audio), np.concatenate(video), about)
    return path
