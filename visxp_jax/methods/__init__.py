"""Training methods, by the name of their stage and section in the configuration."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from visxp_jax.config import TrainConfig
from visxp_jax.methods import avc, contrastive, selflabel, shhc, xdc
from visxp_jax.methods.base import Method
from visxp_jax.models.audiovisual import Head, Points
from visxp_jax.models.bind import Model

Heads = dict[str, Head | Points]


class Maker(NamedTuple):
    """How a method comes from its section of the configuration."""

    # (section) -> what it needs beside the encoders, by name
    heads: Callable[[Any], Mapping[str, Head | Points]]
    make: Callable[[Any, Model, int], Method]  # (section, network, batch size)


METHODS: dict[str, Maker] = {
    "avc": Maker(avc.heads, avc.make),
    "contrastive": Maker(contrastive.heads, contrastive.make),
    "selflabel": Maker(selflabel.heads, selflabel.make),
    "shhc": Maker(shhc.heads, shhc.make),
    "xdc": Maker(xdc.heads, xdc.make),
}


def all_heads(config: TrainConfig) -> Heads:
    """Heads of all stages: they exist from the start, so that no stage adds weights."""
    heads: Heads = {}
    for stage in config.stages:
        heads |= heads_of(config, stage)
    return heads


def heads_of(config: TrainConfig, stage: str) -> Heads:
    """Those that one stage teaches; after it, those of earlier ones are out of date."""
    return dict(METHODS[stage].heads(config.stage(stage)))


def make_method(config: TrainConfig, stage: str, model: Model) -> Method:
    """The method of one stage."""
    section = config.stage(stage)
    return METHODS[stage].make(section, model, config.data.batch_size)


__all__ = ["METHODS", "Heads", "Method", "all_heads", "heads_of", "make_method"]
