"""L3-Net (Arandjelovic and Zisserman 2017): its network and its recipe.

    python -m visxp_jax.main --config=configs/l3net.py:small --workdir=runs/l3net

`:small` is for two CPU cores and the demo videos; seed 0, held-out videos: accuracy of
the correspondence 0.880, linear probe 0.953 (18 minutes on one core).
Without it: 224 x 224 pixels, 257 x 200 log-spectrograms, 9.5 million weights, Adam at
1e-4, weight decay 1e-5, batch 256, for an accelerator and
`python -m data_prep.prepare VIDEOS --out=prepared --spectrogram=l3net --size-px=224`
with `--config.data.dir=prepared`; not yet run. `:debug` runs a few steps.
"""

from ml_collections import ConfigDict

from configs import avc, avnet


def get_config(arg: str = "") -> ConfigDict:
    """L3-Net; `arg` is '', 'small' or 'debug'."""
    config = avc.get_config("") if arg == "small" else avnet.get_config(arg)
    config.name = "l3net"
    config.update({"data": {"spectrogram": "l3net"}, "model": {"network": "l3net"}})
    if not arg:
        config.update(
            {"data": {"size_px": 224, "crop": 0.875}, "model": {"fusion_dim": 128}}
        )
    return config
