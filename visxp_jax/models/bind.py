"""The border between linen modules and pure functions; nothing above knows linen."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from visxp_jax.config import ModelConfig
from visxp_jax.models.audiovisual import AudioVisualNet, Head, Points
from visxp_jax.models.recurrent import RecurrentTower
from visxp_jax.models.tower import ConvTower

PyTree = Any


class Linear(NamedTuple):
    """Weights of a head: x @ kernel + bias."""

    kernel: jax.Array  # [d, outputs]
    bias: jax.Array  # [outputs]


class Model(NamedTuple):
    """An encoder as pure functions of (params, model_state).

    `params` is what is trained, `model_state` the running statistics of BatchNorm.
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    embed: Callable[..., tuple[tuple[jax.Array, jax.Array], PyTree]]
    fuse: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    head: Callable[[PyTree, str, jax.Array], jax.Array]
    weights: Callable[[PyTree, str], Linear]
    with_weights: Callable[[PyTree, str, Linear], PyTree]
    is_head: Callable[[PyTree, Collection[str]], PyTree]
    points: Callable[[PyTree, str], jax.Array]
    with_points: Callable[[PyTree, str, jax.Array], PyTree]


# Window of the last max-pool in the published networks, for (frames, sounds).
PUBLISHED_POOL = ((14, 14), (16, 6))
PAPER_POOL = ((14, 14), (16, 12))


def build_network(
    config: ModelConfig, heads: Mapping[str, Head | Points]
) -> AudioVisualNet:
    """The linen network that a configuration describes."""
    activation = "gelu" if config.network == "avnet" else "relu"
    published = PUBLISHED_POOL if config.network == "avnet" else PAPER_POOL
    pools = published if config.pool == "published" else (None, None)
    shared = {
        "width": config.width,
        "double_convolution": config.double_convolution,
        "activation": activation,
        "momentum": config.bn_momentum,
        "dtype": jnp.dtype(config.dtype),
    }
    if config.audio == "rnn":
        audio = RecurrentTower(**shared)
    else:
        audio = ConvTower(last_pool=pools[1], **shared)
    return AudioVisualNet(
        video_model=ConvTower(last_pool=pools[0], **shared),
        audio_model=audio,
        fusion_dim=config.fusion_dim,
        activation=activation,
        heads=heads,
        frame_norm=(config.frame_mean, config.frame_std),
        sound_norm=(config.sound_mean, config.sound_std),
    )


def bind(
    network: AudioVisualNet,
    *,
    frame_shape: tuple[int, int, int],
    log_mel_shape: tuple[int, int],
) -> Model:
    """Pure functions of one network.

    Args:
        network: From `build_network`.
        frame_shape: (h, w, 3).
        log_mel_shape: (m, f).

    Returns:
        `Model` with
        `init(key) -> (params, model_state)`,
        `embed(params, model_state, frame, log_mel, train=...) -> ((video, audio),
        model_state)`, `fuse(params, video, audio) -> [b, d]`,
        `head(params, name, vector) -> [b, outputs]`,
        `weights(params, name) -> Linear` of a head, and
        `with_weights(params, name, Linear) -> params` with those in their place,
        `is_head(params, names) -> tree of bool`, True for the weights of these heads,
        `points(params, name) -> [number, dimensions]`, and
        `with_points(params, name, [...]) -> params` with those in their place.
    """

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        variables = network.init(
            key,
            jnp.zeros((1, *frame_shape), jnp.uint8),
            jnp.zeros((1, *log_mel_shape), jnp.float16),
        )
        return variables["params"], variables["batch_stats"]

    def embed(
        params: PyTree,
        model_state: PyTree,
        frame: jax.Array,
        log_mel: jax.Array,
        *,
        train: bool,
    ) -> tuple[tuple[jax.Array, jax.Array], PyTree]:
        variables = {"params": params, "batch_stats": model_state}
        if not train:
            out: Any = network.apply(
                variables, frame, log_mel, train=False, method="embed"
            )
            return out, model_state
        out, changed = network.apply(
            variables,
            frame,
            log_mel,
            train=True,
            method="embed",
            mutable=["batch_stats"],
        )
        return out, changed["batch_stats"]

    def fuse(params: PyTree, video: jax.Array, audio: jax.Array) -> jax.Array:
        fused: Any = network.apply({"params": params}, video, audio, method="fuse")
        return fused

    def head(params: PyTree, name: str, vector: jax.Array) -> jax.Array:
        logits: Any = network.apply({"params": params}, name, vector, method="head")
        return logits

    def weights(params: PyTree, name: str) -> Linear:
        return Linear(**params[f"head_layers_{name}"])

    def with_weights(params: PyTree, name: str, linear: Linear) -> PyTree:
        return {**params, f"head_layers_{name}": linear._asdict()}

    def is_head(params: PyTree, names: Collection[str]) -> PyTree:
        parts = {f"head_layers_{name}" for name in names}
        return {
            part: jax.tree.map(lambda _, known=part in parts: known, tree)
            for part, tree in params.items()
        }

    def points(params: PyTree, name: str) -> jax.Array:
        return params[f"points_{name}"]

    def with_points(params: PyTree, name: str, values: jax.Array) -> PyTree:
        return {**params, f"points_{name}": values}

    return Model(
        *(init, embed, fuse, head, weights, with_weights, is_head, points, with_points)
    )
