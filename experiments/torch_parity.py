"""Features of VisXP's folders by VisXP's checkpoints, ours beside PyTorch's.

    python -m experiments.torch_parity --torch-python OTHER/bin/python

Makes a folder of keyframes of several sizes and of spectrograms, one of them missing.
PyTorch writes checkpoints of AVNet and VisualNet with double and single convolution and
random weights, and their vectors; ours reads checkpoints and folder. Prints the largest
difference.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from visxp_jax.production.arrays import pickled_dict
from visxp_jax.production.checkpoint import make_encoder, published, read_state
from visxp_jax.production.features import features_of, read_folders
from visxp_jax.production.folder import SHOTS
from visxp_jax.production.settings import read_settings

SIZES = ((480, 270), (320, 240), (1280, 720), (200, 300), (256, 256))  # width, height
MISSING = 3  # the keyframe that has no sound
SHOT = (0, 2500)  # the keyframes after it are in none
RATE_HZ = 24_000


def make_folder(path: Path, seed: int) -> dict[str, np.ndarray]:
    """Write it; what is in it."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for part in ("keyframes", "spectrograms", "metadata"):
        (path / part).mkdir(parents=True)
    for i, size in enumerate(SIZES):
        small = rng.integers(0, 256, (12, 16, 3), np.uint8)
        image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        file = path / "keyframes" / f"{1000 * i}.jpg"
        image.save(file, quality=95)
        with Image.open(file) as image:
            inputs[f"p{i}"] = np.array(image)
        if i != MISSING:
            inputs[f"s{i}"] = rng.standard_normal((1, 257, 99)).astype(np.float32)
            file = path / "spectrograms" / f"{1000 * i}_{RATE_HZ}.npz"
            file.write_bytes(pickled_dict({"audio": inputs[f"s{i}"]}))
    (path / SHOTS).write_text(str([SHOT]), encoding="utf-8")
    return inputs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", required=True, help="has torch and numpy")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--out", type=Path, help="also write the figures here, JSON")
    args = parser.parse_args()
    script = Path(__file__).with_name("torch_production.py")
    errors: dict[str, dict[str, float]] = {}
    torch = ""
    times = [(1000 * i, *(SHOT if 1000 * i <= SHOT[1] else (-1, -1))) for i in range(5)]
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            np.savez(scratch / "inputs.npz", **make_folder(scratch / "source", seed))
            command = [args.torch_python, str(script), name, f"--seed={seed}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            torch = done.stdout.strip()
            for path in sorted(scratch.glob("*.tar")):
                settings = read_settings(path.with_suffix(".yml"))
                encode = make_encoder(published(read_state(path), settings, path))
                items = read_folders([scratch / "source"], settings)
                ((_, found),) = features_of(items, settings, encode, batch_size=4)
                rows = found.rows
                np.testing.assert_array_equal(rows[:, :3], times)
                with np.load(path.with_suffix(".npz")) as theirs:
                    at = 3
                    for kind in ("audio", "video"):
                        if kind in theirs:
                            found = rows[:, at : at + 512]
                            error = float(np.abs(found - theirs[kind]).max())
                            row = errors.setdefault(path.stem, {})
                            row[kind] = max(row.get(kind, 0.0), error)
                            at += 512
                assert at == rows.shape[1]
    print(f"PyTorch {torch}, {args.seeds} seeds: largest difference of a feature")
    for name, row in errors.items():
        print(f"  {name:18}", *(f"{kind} {error:.1e}" for kind, error in row.items()))
    if args.out:
        record = {"torch": torch, "seeds": args.seeds, "errors": errors}
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
