"""Correspondence, then sHHC: a hierarchy of clusters in the Poincare ball.

    python -m visxp_jax.main --config=configs/shhc.py --workdir=runs/shhc

Two CPU cores, 2 to 3 minutes; 3 seeds, held-out videos: NMI of the clusters 0.988
(0.982 - 0.993), purity of the tree by families 0.573 (0.540 - 0.603), where average
linkage of what `selflabel.py` learns has 0.543 (0.517 - 0.565), and by kinds 0.987,
there 0.999. Of the forms 'ce' (the default before they were compared), 'tree' and
'dist' the first fits both best.

As `selflabel.py`, with the stage 'shhc' in place of 'selflabel'; ':selflabel' puts it
after that instead. `--config=configs/shhc.py:debug` runs a few steps of a tiny network.
"""

from ml_collections import ConfigDict

from configs import selflabel

# What self-labelling has and this has not.
NOT_OURS = ("heads", "first_labels", "sizes", "align", "passes", "head_groups")


def get_config(arg: str = "") -> ConfigDict:
    """The two- or three-stage run; `arg` is '', 'selflabel' or 'debug'."""
    if arg not in ("", "selflabel", "debug"):
        raise ValueError(
            f"config argument must be empty, 'selflabel' or 'debug', got {arg!r}."
        )
    debug = arg == "debug"
    config = selflabel.get_config("debug" if debug else "").to_dict()
    section = dict(config["selflabel"])
    for key in NOT_OURS:
        del section[key]
    section |= {
        # That of stage 'avc': projections begin from nothing. Of 1e-3 and this, with 2
        # and 5 relabellings, this had the highest NMI on validation videos, by little.
        "optim": section["optim"] | {"learning_rate": 3e-3},
        "labels_from": "fused",
        "dimensions": 3 if debug else 16,
        "embedding": 1.0,
        "embedding_steps": 20 if debug else 500,
        "embedding_rate": 0.01,
        "embedding_temperature": 0.05,
        "form": "ce",
        "temperature": 0.1,
        "tree_temperature": 0.1,
    }
    stages = ("avc", "selflabel", "shhc") if arg == "selflabel" else ("avc", "shhc")
    if arg != "selflabel":
        del config["selflabel"]
    return ConfigDict(config | {"name": "shhc", "stages": stages, "shhc": section})
