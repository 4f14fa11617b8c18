"""Self-labelling of two million clips: VGGSound, for a mesh of accelerators.

    python -m data_prep.prepare VGGSOUND --out=prepared
    python -m visxp_jax.main --config=configs/selflabel_vggsound.py \
        --workdir=runs/vggsound --config.data.dir=prepared

About 200,000 videos of ten seconds, cut into 2 million clips; 309 clusters, as many as
VGGSound has classes. The published AVNet at full size, batches of 1,024 in bfloat16; on
several hosts with `--distributed` on each. Labels are made 100 times at t^2, as in
SeLa's scripts, from vectors that are kept in float16: 2 GB for all clips, over all
devices. What else they take, and how long, is said before the first step.

Machine: 8 or more accelerators of 16 GB or more; results: not yet run.
`--config=configs/selflabel_vggsound.py:debug` runs a few steps of a tiny network on
demo videos.
"""

from ml_collections import ConfigDict

from configs import avnet, selflabel


def get_config(arg: str = "") -> ConfigDict:
    """The two-stage run; `arg` is '' or 'debug'."""
    config = selflabel.get_config(arg)
    full_size = avnet.get_config(arg).to_dict()
    config.update({k: full_size[k] for k in ("data", "model", "avc", "run")})
    config.update(
        {"name": "selflabel_vggsound", "selflabel": {"feature_dtype": "float16"}}
    )
    if arg == "debug":
        return config
    config.update(
        {
            "data": {"batch_size": 1024},
            "avc": {"steps": 40_000},
            "selflabel": {
                "steps": 200_000,
                "optim": {"learning_rate": 1e-4, "warmup_steps": 1_000},
                "heads": 10,
                "clusters": 309,
                "relabels": 100,
                "relabel_power": 2.0,
            },
        }
    )
    return config
