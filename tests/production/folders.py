"""Folders as VisXP writes them, made for tests."""

import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from visxp_jax.production.arrays import pickled_dict
from visxp_jax.production.folder import SHOTS
from visxp_jax.production.settings import AudioSettings, Normalisation

AUDIO = AudioSettings(257, 99, 24_000, Normalisation((0.5,), (2.0,)))
HALVES = Normalisation((0.0,), (0.5,))
PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)


def spectrogram(seed: int = 0, frames: int = 99) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, 257, frames)).astype(np.float32)


def folder(path: Path, times=(500, 1500, 12000), shots: str = "[(0, 2000)]") -> Path:
    for part in ("keyframes", "spectrograms", "metadata"):
        (path / part).mkdir(parents=True)
    for i, time in enumerate(times):
        image = Image.new("RGB", (40 + i, 30), (10 * i, 100, 200))
        image.save(path / "keyframes" / f"{time}.jpg")
        file = path / "spectrograms" / f"{time}_24000.npz"
        file.write_bytes(pickled_dict({"audio": spectrogram(i)}))
    (path / SHOTS).write_text(shots, encoding="utf-8")
    return path


def packed(source: Path, archive: Path, root: str = "") -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, arcname=root or ".")
    return archive
