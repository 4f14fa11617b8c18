"""Feature files as extraction writes them, with vectors by rule."""

from pathlib import Path

import numpy as np

from visxp_jax.feature_files import ClipRow, Writer

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
    writer = Writer(path.parent, path.stem)
    for name, seconds in files.items():
        heard = name not in silent
        video = vectors(name, seconds, "video")
        audio = vectors(name, seconds, "audio") * heard
        for i in range(seconds):
            row = ClipRow(name, float(i), i + 1.0, i + 0.5, heard, False, False)
            row = row._replace(thumbnail=f"{name} {i}".encode())
            if name.startswith("shots"):
                row = row._replace(shot_start_s=0.0, shot_end_s=float(seconds))
            writer.add(row, {"video": video[i], "audio": audio[i]})
    writer.finish({"model_sha256": sha256})
    return path
