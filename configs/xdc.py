"""XDC (Alwassel et al. 2020): k-means labels of each modality teach the other.

    python -m visxp_jax.main --config=configs/xdc.py --workdir=runs/xdc

From the paper: the stage 'xdc' alone, from nothing; heads begin anew with every
clustering. Ours are the network (that of `selflabel.py`), the
optimiser, and what is said in `visxp_jax/methods/xdc.py`.

Two CPU cores, 2 to 3 minutes; 3 seeds, held-out videos: NMI of the clusters 0.880
(0.844 - 0.913), linear probe 0.977 (0.963 - 0.990). With a third of this learning rate
seed 0 had an NMI of 0.649: of the two rates tried, that of stage 1 was kept.
`--config=configs/xdc.py:debug` runs a few steps of a tiny network.
"""

from ml_collections import ConfigDict

from configs import selflabel

# What self-labelling has and k-means has not.
NOT_OURS = ("heads", "sharpness", "labels_from", "first_labels", "sizes", "align")
NOT_OURS += ("passes", "head_groups")


def get_config(arg: str = "") -> ConfigDict:
    """The one-stage run; `arg` is '' or 'debug'."""
    config = selflabel.get_config(arg).to_dict()
    debug = arg == "debug"
    section = config.pop("selflabel")
    del config["avc"]
    for key in NOT_OURS:
        del section[key]
    section |= {
        "steps": 4 if debug else 700,
        # That of stage 'avc', for the same reason: training begins from nothing.
        "optim": section["optim"] | {"learning_rate": 3e-3},
        # New heads need time: the later, the longer until the next ones.
        "relabels": 2 if debug else 6,
        "relabel_power": 2.0,
        "balanced_sampling": True,
        "representation": 0.0,
    }
    return ConfigDict(config | {"name": "xdc", "stages": ("xdc",), "xdc": section})
