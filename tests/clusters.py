"""A network simple enough to work out its labels by hand, shared by tests."""

import dataclasses
from functools import partial

import jax
import numpy as np

from configs import shhc, xdc
from tests.small import small_config
from visxp_jax.config import from_dict
from visxp_jax.methods import METHODS
from visxp_jax.models.bind import Linear, Model
from visxp_jax.sharding import make_mesh, rows
from visxp_jax.types import ClipVectors

HEADS, CLUSTERS = 2, 4


def plain_model() -> Model:
    """Parameters are heads by name; the fused vector is both vectors side by side."""

    def unused(*args, **kwargs):
        raise AssertionError("labels are made from vectors alone")

    def fuse(params, video, audio):
        return np.concatenate([video, audio], axis=1)

    def head(params, name, vector):
        return vector @ params[name].kernel + params[name].bias[None]

    return Model(
        init=unused,
        embed=unused,
        fuse=fuse,
        head=head,
        weights=lambda params, name: params[name],
        with_weights=lambda params, name, linear: {**params, name: linear},
        is_head=unused,
        points=lambda params, name: params[name],
        with_points=lambda params, name, values: {**params, name: values},
    )


def identity(d: int) -> Linear:
    """Logits are the vector itself."""
    return Linear(np.eye(d, dtype=np.float32), np.zeros(d, np.float32))


def small_method(stage: str = "selflabel", **changes):
    """A method whose labels can be worked out; `changes` are of its section."""
    if stage == "selflabel":
        section = small_config().selflabel
        changes = {"heads": HEADS, "clusters": CLUSTERS, **changes}
    else:
        file = {"shhc": shhc, "xdc": xdc}[stage]
        section = from_dict(file.get_config("debug")).stage(stage)
    assert section is not None
    section = dataclasses.replace(section, **changes)
    return METHODS[stage].make(section, plain_model(), 16)


def clip_vectors(clip_id, mesh=None, **vectors) -> ClipVectors:
    """On devices, rows split."""
    place = partial(jax.device_put, device=rows(mesh or make_mesh()))
    return ClipVectors(
        place(np.asarray(clip_id, np.int32)),
        {name: place(np.asarray(x, np.float32)) for name, x in vectors.items()},
    )


def sure_of(*labels: np.ndarray, k: int = CLUSTERS) -> np.ndarray:
    """Logits of several heads, each sure of its labels, [n, r * k]."""
    return 5 * np.concatenate([np.eye(k, dtype=np.float32)[x] for x in labels], axis=1)
