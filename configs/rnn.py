"""The main job with the recurrent audio tower that VisXP's documents describe.

    python -m visxp_jax.main --config=configs/rnn.py --workdir=runs/rnn

Two CPU cores; results: see the README's table, from `experiments/compare.py`.
`--config=configs/rnn.py:debug` runs a few steps of a tiny network.
"""

from ml_collections import ConfigDict

from configs import selflabel


def get_config(arg: str = "") -> ConfigDict:
    """`selflabel.py` with another audio tower; `arg` is '' or 'debug'."""
    config = selflabel.get_config(arg)
    config.name = "rnn"
    config.update({"model": {"audio": "rnn"}})
    return config
