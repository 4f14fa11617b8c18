"""SeLaVi (Asano et al. 2020): both modalities learn one labelling, from nothing.

    python -m visxp_jax.main --config=configs/selavi.py --workdir=runs/selavi

From the paper: heads for each modality, the audio heads aligned with the video heads
once, labels by the product of both modalities' probabilities, cluster sizes from a
normal distribution, sharpness 20, labels made at t^1.5 from augmented clips, in two
groups of heads with a pass for each, ten heads, no other loss. Ours are the network
(that of `selflabel.py`), the optimiser, and heads that are one linear layer; theirs
have a hidden one with dropout, and BatchNorm is warmed up before the first labels.

Two CPU cores, 2 to 3 minutes; 3 seeds, held-out videos: NMI of the clusters 0.775
(0.743 - 0.812), linear probe 0.997 (0.993 - 1.000).
`--config=configs/selavi.py:debug` runs a few steps of a tiny network.
"""

from ml_collections import ConfigDict

from configs import selflabel


def get_config(arg: str = "") -> ConfigDict:
    """The one-stage run; `arg` is '' or 'debug'."""
    config = selflabel.get_config(arg)
    debug = arg == "debug"
    config.name = "selavi"
    config.stages = ("selflabel",)
    del config.avc
    config.update(
        {
            "selflabel": {
                "steps": 4 if debug else 700,
                # That of stage 'avc': training begins from nothing here, too.
                "optim": {"learning_rate": 3e-3},
                "heads": 2 if debug else 10,
                "sharpness": 20.0,
                "labels_from": "pooled",
                "first_labels": "heads",
                "sizes": "gaussian",
                "align": True,
                "passes": "each",
                "head_groups": 2,
                "augmented_pass": True,
                "relabels": 2 if debug else 20,
                "relabel_power": 1.5,
                "representation": 0.0,
            }
        }
    )
    return config
