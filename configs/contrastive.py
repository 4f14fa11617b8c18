"""A space that sight and sound have in common, and correspondence beside it.

    python -m visxp_jax.main --config=configs/contrastive.py --workdir=runs/contrastive

As `avc.py`, in as many steps. With the model, search across sight and sound goes by the
cosine in that space. `--config.contrastive.representation=0` leaves correspondence out,
and with it the agreement of seconds.

Two CPU cores, 2 minutes; 3 seeds, held-out videos: the first sound for a picture is of
its kind in 0.937 (0.916 - 0.950) of cases, the first picture for a sound in 0.950
(0.933 - 0.963), where `avc.py` has 0.860 and 0.884 (docs/results.md). No other
temperature or number of dimensions was tried.
`--config=configs/contrastive.py:debug` runs a few steps of a tiny network.
"""

from ml_collections import ConfigDict

from configs import avc


def get_config(arg: str = "") -> ConfigDict:
    """The one-stage run; `arg` is '' or 'debug'."""
    config = avc.get_config(arg).to_dict()
    section = config.pop("avc")
    del section["regularisation"]
    section |= {
        "dimensions": 8 if arg == "debug" else 64,
        "temperature": 0.1,
        "representation": 1.0,
    }
    about = {"name": "contrastive", "stages": ("contrastive",)}
    return ConfigDict(config | about | {"contrastive": section})
