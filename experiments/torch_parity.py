"""Vectors of VisXP checkpoints, ours beside PyTorch's: the largest difference.

    python -m experiments.torch_parity --torch-python OTHER/bin/python

PyTorch writes checkpoints of AVNet and VisualNet with double and single convolution,
random weights, and their vectors of random input; ours reads the checkpoints.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from visxp_jax.production.checkpoint import make_encoder, published, read_state
from visxp_jax.production.settings import read_settings


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", required=True, help="has torch and numpy")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--out", type=Path, help="also write the figures here, JSON")
    args = parser.parse_args()
    script = Path(__file__).with_name("torch_production.py")
    figures: dict[str, dict[str, float]] = {}
    version = ""
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            command = [args.torch_python, str(script), scratch, f"--seed={seed}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            version = done.stdout.strip()
            for path in sorted(Path(scratch).glob("*.tar")):
                settings = read_settings(path.with_suffix(".yml"))
                encode = make_encoder(published(read_state(path), settings, path))
                row = figures.setdefault(path.stem, {})
                with np.load(path.with_suffix(".npz")) as theirs:
                    sound = theirs["sound"][:, 0] if "sound" in theirs else None
                    ours = encode(theirs["frame"].transpose(0, 2, 3, 1), sound)
                    for name, found in zip(("audio", "video"), ours, strict=True):
                        if found is None:
                            continue
                        error = float(np.abs(np.asarray(found) - theirs[name]).max())
                        scale = float(np.abs(theirs[name]).max())
                        row[name] = max(row.get(name, 0.0), error)
                        row[f"{name}_largest"] = max(
                            row.get(f"{name}_largest", 0.0), scale
                        )
    print(f"PyTorch {version}, {args.seeds} seeds: largest difference, largest value")
    for name, row in figures.items():
        for modality in ("video", "audio"):
            if modality in row:
                print(
                    f"  {name:18} {modality}  {row[modality]:.1e}"
                    f"  {row[f'{modality}_largest']:.1f}"
                )
    if args.out:
        text = json.dumps({"torch": version, "seeds": args.seeds, **figures}, indent=1)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
