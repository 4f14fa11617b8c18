"""The published AVNet at full size, by correspondence: for an accelerator.

    python -m data_prep.prepare VIDEOS --out=prepared
    python -m visxp_jax.main --config=configs/avnet.py --workdir=runs/avnet \
        --config.data.dir=prepared

256 x 256 pixels, the production spectrogram, 9.9 million weights. Adam at 1e-4 with
weight decay 1e-5 and batch 256 are those of L3-Net's paper; VisXP's own are not
published. Full run: not yet run. On two CPU cores a step of 16 clips takes 2 s.
`--config=configs/avnet.py:debug` runs a few steps of a tiny network on demo videos.
"""

from ml_collections import ConfigDict

from configs import avc


def get_config(arg: str = "") -> ConfigDict:
    """The published network; `arg` is '' or 'debug'."""
    config = avc.get_config(arg)
    config.name = "avnet"
    config.update({"data": {"spectrogram": "visxp", "crop": 0.8}})
    if arg == "debug":
        return config
    config.update(
        {
            "data": {"size_px": 256, "batch_size": 256, "shuffle_buffer": 20_000},
            "model": {
                "width": 64,
                "pool": "published",
                "fusion_dim": 512,
                "bn_momentum": 0.99,
                "dtype": "bfloat16",
            },
            "avc": {
                "steps": 150_000,
                "optim": {"learning_rate": 1e-4, "warmup_steps": 1_000},
            },
            "run": {"log_every": 100, "eval_every": 5_000, "save_every": 5_000},
        }
    )
    return config
