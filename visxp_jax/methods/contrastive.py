"""A space that sight and sound have in common, by cross-modal contrast.

Source: see `visxp_jax.losses.contrastive`; as in CLIP a linear layer leads from each
tower's vector to the space, where only directions count.
"""

import math
from collections.abc import Collection
from typing import Any

import jax

from visxp_jax.config import ContrastiveConfig
from visxp_jax.losses import cross_modal_nce, directions
from visxp_jax.methods import avc
from visxp_jax.methods.base import Aux, Method
from visxp_jax.models.audiovisual import Head
from visxp_jax.models.bind import Model
from visxp_jax.types import Batch

HEADS = {"video": "common_video", "audio": "common_audio"}


def heads(config: ContrastiveConfig) -> dict[str, Head]:
    """One for each modality, and that of the correspondence where it is learnt, too."""
    common = {name: Head(config.dimensions, on) for on, name in HEADS.items()}
    return avc.heads_beside(config.representation) | common


def has_common_space(heads: Collection[str]) -> bool:
    """Whether a network with these heads has learnt such a space."""
    return set(HEADS.values()) <= set(heads)


def in_common_space(
    model: Model, params: Any, modality: str, vectors: jax.Array
) -> jax.Array:
    """Unit vectors in the common space, float32 [n, d]; dot products are cosines.

    Args:
        model: With the heads of this method.
        params: Its parameters.
        modality: 'video' or 'audio'.
        vectors: That tower's, [n, d].
    """
    return directions(model.head(params, HEADS[modality], vectors))


def make(config: ContrastiveConfig, model: Model, batch_size: int) -> Method:
    """The method with its settings.

    Terms, as logged: contrastive = InfoNCE of both directions; representation = the
    correspondence loss of stage 'avc', left out where its weight is 0.
    """

    def loss(
        params: Any, model_state: Any, method_state: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Aux]:
        del method_state, key
        (video, audio), model_state = model.embed(
            params, model_state, batch.frame, batch.log_mel, train=True
        )
        contrastive, common_accuracy = cross_modal_nce(
            model.head(params, HEADS["video"], video),
            model.head(params, HEADS["audio"], audio),
            batch.video_id,
            batch.weight,
            temperature=config.temperature,
        )
        total, metrics = avc.add_correspondence(
            contrastive,
            {"loss/contrastive": contrastive, "common_accuracy": common_accuracy},
            model,
            params,
            (video, audio),
            batch,
            weight=config.representation,
            shifts=config.shifts,
        )
        return total, Aux(model_state, metrics)

    # Of clips of different videos; a few fewer are negatives.
    chance = {
        "loss/total": math.log(batch_size) + config.representation * math.log(2),
        "loss/contrastive": math.log(batch_size),
        "common_accuracy": 1 / batch_size,
    }
    chance |= avc.chance_beside(config.representation)
    return Method(chance=chance, init_state=lambda num_clips, key: {}, loss=loss)
