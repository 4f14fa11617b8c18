"""Training methods, by the name of their stage and section in the configuration."""

from collections.abc import Callable
from typing import Any, NamedTuple

from visxp_jax.config import TrainConfig
from visxp_jax.methods import avc, selflabel
from visxp_jax.methods.base import Aux, Method, Relabelled
from visxp_jax.models.bind import Model


class Maker(NamedTuple):
    """How a method comes from its section of the configuration."""

    heads: Callable[[Any], dict[str, int]]  # linear heads it needs: name -> outputs
    make: Callable[[Any, Model, int], Method]  # (section, network, batch size)


METHODS: dict[str, Maker] = {
    "avc": Maker(avc.heads, avc.make),
    "selflabel": Maker(selflabel.heads, selflabel.make),
}


def all_heads(config: TrainConfig) -> dict[str, int]:
    """Heads of all stages: they exist from the start, so that no stage adds weights."""
    heads: dict[str, int] = {}
    for stage in config.stages:
        heads |= METHODS[stage].heads(config.stage(stage))
    return heads


def make_method(config: TrainConfig, stage: str, model: Model) -> Method:
    """The method of one stage."""
    section = config.stage(stage)
    return METHODS[stage].make(section, model, config.data.batch_size)


__all__ = ["METHODS", "Aux", "Method", "Relabelled", "all_heads", "make_method"]
