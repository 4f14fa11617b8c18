"""Correspondence, then self-labelling: the main job, sized for two CPU cores.

    python -m visxp_jax.main --config=configs/selflabel.py --workdir=runs/demo

Two CPU cores, 2 to 4 minutes; 3 seeds, held-out videos: correspondence 0.937 (0.931 -
0.944), NMI of the clusters 0.985 (0.980 - 0.996), linear probe 0.997 (0.990 - 1.000).
`--config=configs/selflabel.py:debug` runs a few steps of a tiny network.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The two-stage run; `arg` is '' or 'debug'."""
    if arg not in ("", "debug"):
        raise ValueError(f"config argument must be empty or 'debug', got {arg!r}.")
    debug = arg == "debug"
    return ConfigDict(
        {
            "name": "selflabel",
            "seed": 0,
            "stages": ("avc", "selflabel"),
            "data": {
                "videos": "demo",
                "labels": "",
                "dir": "",
                "reader": "tfrecord",
                "spectrogram": "mel",
                "size_px": 64,
                "batch_size": 16 if debug else 64,
                "shuffle_buffer": 10_000,
                "crop": 0.7,
                "flip": True,
                "colour": 0.2,
                "brightness": 0.1,
                "roll": True,
                "gain": 0.3,
                "mask": 0.1,
            },
            "model": {
                "network": "avnet",
                "audio": "cnn",
                "width": 2 if debug else 16,
                "double_convolution": not debug,
                "pool": "all",
                "fusion_dim": 16 if debug else 128,
                # Of VGGSound's frames, from the production system.
                "frame_mean": (0.3961, 0.3502, 0.3224),
                "frame_std": (0.2298, 0.2237, 0.2197),
                "sound_mean": 0.0,
                "sound_std": 1.0,
                "bn_momentum": 0.9,
                "dtype": "float32",
            },
            "avc": {
                "steps": 4 if debug else 600,
                "optim": {
                    "name": "adam",
                    "learning_rate": 3e-3,
                    "warmup_steps": 1 if debug else 20,
                    "weight_decay": 1e-5,
                },
                "shifts": 8,
                "regularisation": 0.0,
            },
            "selflabel": {
                "steps": 4 if debug else 100,
                "optim": {
                    "name": "adam",
                    "learning_rate": 1e-3,
                    "warmup_steps": 1 if debug else 20,
                    "weight_decay": 1e-5,
                },
                "clusters": 4 if debug else 20,
                "relabels": 2 if debug else 5,
                "relabel_power": 1.0,
                "augmented_pass": False,
                "train_mode_pass": False,
                "feature_dtype": "float32",
                "balanced_sampling": False,
                "clustering": 1.0,
                "representation": 1.0,
                "shifts": 8,
                "regularisation": 0.0,
                "heads": 2 if debug else 4,
                "sharpness": 25.0,
                "labels_from": "fused",
                "first_labels": "features",
                "sizes": "equal",
                "align": False,
                "passes": "shared",
                "head_groups": 1,
            },
            "run": {
                "log_every": 2 if debug else 20,
                "eval_every": 4 if debug else 25,
                "save_every": 4 if debug else 200,
                "keep_checkpoints": 2,
                "max_skipped": 20,
            },
        }
    )
