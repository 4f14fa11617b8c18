"""Training methods, by the name of their stage and section in the configuration."""

from collections.abc import Callable
from typing import Any, NamedTuple

from visxp_jax.config import TrainConfig
from visxp_jax.methods import avc, selflabel, xdc
from visxp_jax.methods.base import Method
from visxp_jax.models.audiovisual import Head
from visxp_jax.models.bind import Model


class Maker(NamedTuple):
    """How a method comes from its section of the configuration."""

    heads: Callable[[Any], dict[str, Head]]  # linear heads it needs, by name
    make: Callable[[Any, Model, int], Method]  # (section, network, batch size)


METHODS: dict[str, Maker] = {
    "avc": Maker(avc.heads, avc.make),
    "selflabel": Maker(selflabel.heads, selflabel.make),
    "xdc": Maker(xdc.heads, xdc.make),
}


def all_heads(config: TrainConfig) -> dict[str, Head]:
    """Heads of all stages: they exist from the start, so that no stage adds weights."""
    heads: dict[str, Head] = {}
    for stage in config.stages:
        heads |= METHODS[stage].heads(config.stage(stage))
    return heads


def make_method(config: TrainConfig, stage: str, model: Model) -> Method:
    """The method of one stage."""
    section = config.stage(stage)
    return METHODS[stage].make(section, model, config.data.batch_size)


__all__ = ["METHODS", "Method", "all_heads", "make_method"]
