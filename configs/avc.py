"""Correspondence alone: the first stage of `selflabel.py`, with the same settings.

    python -m visxp_jax.main --config=configs/avc.py --workdir=runs/avc

Two CPU cores; results: see the README's table, from `experiments/compare.py`.
`--config=configs/avc.py:debug` runs a few steps of a tiny network.
"""

from ml_collections import ConfigDict

from configs import selflabel


def get_config(arg: str = "") -> ConfigDict:
    """The stage-1 run; `arg` is '' or 'debug'."""
    config = selflabel.get_config(arg)
    config.name = "avc"
    config.stages = ("avc",)
    del config.selflabel
    return config
