"""Stage 1: audio-visual correspondence."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from visxp_jax.config import AvcConfig
from visxp_jax.losses import avc_bce, decorrelation, shifted_pairs
from visxp_jax.methods.base import Aux, Method
from visxp_jax.models.audiovisual import Head
from visxp_jax.models.bind import Model
from visxp_jax.types import Batch

CHANCE = {"loss/representation": math.log(2), "avc_accuracy": 0.5}


def heads(config: AvcConfig) -> dict[str, Head]:
    """One head of two outputs (mismatch, match), as in the published networks."""
    del config
    return {"avc": Head(2)}


def heads_beside(weight: float) -> dict[str, Head]:
    """The head for another method that learns correspondence with this weight.

    None where it is 0: a head that nothing has taught would tell of agreement, too.
    """
    return {"avc": Head(2)} if weight else {}


def chance_beside(weight: float) -> dict[str, float]:
    """What its metrics are by chance; empty where the weight is 0."""
    return dict(CHANCE) if weight else {}


def match_probability(
    model: Model, params: Any, video: jax.Array, audio: jax.Array
) -> jax.Array:
    """Probability that a picture and a sound belong together, float32 [n].

    Args:
        model: With a head 'avc'.
        params: Its parameters.
        video: Frame embeddings, [n, d].
        audio: Sound embeddings, [n, d], each compared with the one in its row.
    """
    logits = model.head(params, "avc", model.fuse(params, video, audio))
    return jax.nn.softmax(logits, axis=-1)[:, 1]


def correspondence(
    model: Model,
    params: Any,
    video: jax.Array,
    audio: jax.Array,
    batch: Batch,
    *,
    shifts: int,
) -> tuple[jax.Array, jax.Array]:
    """Weighted mean loss over matching and mismatched pairs, and accuracy.

    Args:
        model: The bound network, with a head 'avc'.
        params: Its parameters.
        video: Frame embeddings, [b, d].
        audio: Sound embeddings, [b, d].
        batch: Where they came from.
        shifts: Mismatched sounds per clip.

    Returns:
        (loss in nats, share of pairs judged right); chance is ln 2 and 0.5.
    """
    pairs = shifted_pairs(video, audio, batch.video_id, batch.weight, shifts=shifts)
    logits = model.head(params, "avc", model.fuse(params, pairs.video, pairs.audio))
    total = jnp.maximum(jnp.sum(pairs.weight), 1.0)
    loss = jnp.sum(pairs.weight * avc_bce(logits, pairs.matches)) / total
    right = (logits[:, 1] > logits[:, 0]) == (pairs.matches > 0.5)
    return loss, jnp.sum(pairs.weight * right.astype(jnp.float32)) / total


def add_correspondence(
    total: jax.Array,
    metrics: dict[str, jax.Array],
    model: Model,
    params: Any,
    towers: tuple[jax.Array, jax.Array],
    batch: Batch,
    *,
    weight: float,
    shifts: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A method's loss and metrics with those of `correspondence` beside them.

    Args:
        total: The loss so far.
        metrics: As logged, so far.
        model: The bound network; with a head 'avc' unless the weight is 0.
        params: Its parameters.
        towers: Frame and sound embeddings, each [b, d].
        batch: Where they came from.
        weight: Of the term; where it is 0, nothing is computed or logged.
        shifts: Mismatched sounds per clip.
    """
    if not weight:
        return total, metrics
    loss, accuracy = correspondence(model, params, *towers, batch, shifts=shifts)
    own = {"loss/representation": loss, "avc_accuracy": accuracy}
    return total + weight * loss, metrics | own


def make(config: AvcConfig, model: Model, batch_size: int) -> Method:
    """The method with its settings.

    Terms, as logged: representation = binary cross-entropy of the correspondence;
    regularisation = decorrelation of the fused vectors of matching pairs.
    """
    independent = 1 / (batch_size - 1)  # of dimensions that have nothing in common

    def loss(
        params: Any, model_state: Any, method_state: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Aux]:
        del method_state, key
        towers, model_state = model.embed(
            params, model_state, batch.frame, batch.log_mel, train=True
        )
        regularisation = decorrelation(model.fuse(params, *towers), batch.weight)
        total, metrics = add_correspondence(
            config.regularisation * regularisation,
            {"loss/regularisation": regularisation},
            model,
            params,
            towers,
            batch,
            weight=1.0,
            shifts=config.shifts,
        )
        return total, Aux(model_state, metrics)

    return Method(
        chance=CHANCE
        | {
            "loss/total": math.log(2) + config.regularisation * independent,
            "loss/regularisation": independent,
        },
        init_state=lambda num_clips, key: {},
        loss=loss,
    )
