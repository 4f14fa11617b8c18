"""The main job with the recurrent audio tower that VisXP's documents describe.

    python -m visxp_jax.main --config=configs/rnn.py --workdir=runs/rnn

Two CPU cores, 2 to 4 minutes; 3 seeds, held-out videos: correspondence 0.920 (0.885 -
0.948), NMI of the clusters 0.961 (0.945 - 0.977), linear probe 0.994 (0.987 - 1.000).
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
