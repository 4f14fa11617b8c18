"""Stage 2: self-labelling on the fused vectors, with equal-sized clusters."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from visxp_jax.config import SelflabelConfig
from visxp_jax.errors import VisxpError
from visxp_jax.losses import (
    Equipartition,
    assign,
    decorrelation,
    equipartition,
    pseudo_label_cross_entropy,
)
from visxp_jax.methods import avc
from visxp_jax.methods.base import Aux, Method, Relabelled
from visxp_jax.models.bind import Model
from visxp_jax.sharding import EVERYWHERE, ROWS
from visxp_jax.types import Batch


def relabel_steps(steps: int, relabels: int, power: float) -> tuple[int, ...]:
    """Steps before which labels are made anew: steps * (i / relabels)^power.

    The first is always step 0: a stage begins by labelling.
    """
    # 100 * 0.29 is 28.999...: without the little that is added, 28.
    at = {int(steps * (i / relabels) ** power + 1e-6) for i in range(relabels)}
    return tuple(sorted(at))


def heads(config: SelflabelConfig) -> dict[str, int]:
    """All clustering heads as one matrix, and the head of stage 1."""
    return {"avc": 2, "clusters": config.heads * config.clusters}


def cluster_logits(
    model: Model, params: Any, fused: jax.Array, heads: int, clusters: int
) -> jax.Array:
    """Logits of all heads, [b, r, k], from fused vectors [b, d]."""
    return model.head(params, "clusters", fused).reshape(-1, heads, clusters)


def balanced_kmeans(
    key: jax.Array,
    features: jax.Array,
    row_mass: jax.Array,
    *,
    clusters: int,
    rounds: int = 20,
    sharpness: float = 25.0,
) -> tuple[jax.Array, Equipartition]:
    """First labels, from features that an earlier stage has learnt.

    K-means with cosine similarity in which the assignment is an equipartition: clusters
    are of equal mass in the soft plan, so that none dies, and nearly of equal size in
    the labels, unless clips coincide. It begins at random clips.

    Args:
        key: Chooses the first centres.
        features: float32 [n, d].
        row_mass: float32 [n], 0 for padded rows.
        clusters: k.
        rounds: Times that centres move.
        sharpness: Of the assignment on cosines.

    Returns:
        (int32 [n] labels, the last `Equipartition`).
    """
    mass = row_mass[:, None] / jnp.sum(row_mass)
    centred = features - jnp.sum(mass * features, axis=0, keepdims=True)
    x = centred / (jnp.linalg.norm(centred, axis=1, keepdims=True) + 1e-6)
    chance = jax.random.gumbel(key, row_mass.shape)
    _, first = jax.lax.top_k(jnp.where(row_mass > 0, chance, -jnp.inf), clusters)

    def move(_: jax.Array, centres: jax.Array) -> jax.Array:
        score = x @ centres.T
        result = equipartition(
            score, sharpness=sharpness, row_mass=row_mass, tol=1e-2, max_iters=50
        )
        share = jax.nn.softmax(sharpness * score + result.log_scale[None], axis=1)
        total = (share * mass).T @ x
        return total / (jnp.linalg.norm(total, axis=1, keepdims=True) + 1e-6)

    centres = jax.lax.fori_loop(0, rounds, move, x[first])
    score = x @ centres.T
    result = equipartition(score, sharpness=sharpness, row_mass=row_mass)
    return assign(score, result.log_scale, sharpness=sharpness), result


def make_relabel(
    config: SelflabelConfig, model: Model
) -> Callable[[Any, Any, jax.Array, np.ndarray, jax.Array], Relabelled]:
    """The pass that makes labels, see `Method.relabel`.

    The first labels come from the features; later ones from each head for itself.
    """
    num_heads, clusters = config.heads, config.clusters

    @partial(jax.jit, static_argnames="mesh")
    def by_head(
        params: Any,
        features: jax.Array,
        row_mass: jax.Array,
        head: jax.Array,
        mesh: jax.sharding.Mesh,
    ) -> tuple[jax.Array, Equipartition]:
        logits = cluster_logits(model, params, features, num_heads, clusters)
        log_probs = jax.nn.log_softmax(logits[:, head], axis=-1)
        balance = jax.shard_map(
            lambda log_probs, row_mass: equipartition(
                log_probs,
                sharpness=config.sharpness,
                row_mass=row_mass,
                axis_name="data",
            ),
            mesh=mesh,
            in_specs=ROWS,
            out_specs=EVERYWHERE,
        )
        result = balance(log_probs, row_mass)
        return assign(log_probs, result.log_scale, sharpness=config.sharpness), result

    @jax.jit
    def by_centres(
        key: jax.Array, features: jax.Array, row_mass: jax.Array
    ) -> tuple[jax.Array, Equipartition]:
        return balanced_kmeans(key, features, row_mass, clusters=clusters)

    def relabel(
        params: Any,
        method_state: Any,
        features: jax.Array,
        clip_id: np.ndarray,
        key: jax.Array,
    ) -> Relabelled:
        placed = features.sharding
        assert isinstance(placed, jax.sharding.NamedSharding)  # noqa: S101  (see Method)
        row_mass = (clip_id >= 0).astype(np.float32)
        real = clip_id >= 0
        new = np.array(method_state["labels"])
        first = bool((new[clip_id[real]] < 0).all())  # heads know nothing yet
        errors, sweeps, changed, used, largest = [], [], [], [], []
        for head in range(num_heads):
            if first:
                at = jax.random.fold_in(key, head)
                labels, result = by_centres(at, features, row_mass)
            else:
                labels, result = by_head(
                    params, features, row_mass, jnp.int32(head), placed.mesh
                )
            if not np.isfinite(float(result.column_error)):
                raise VisxpError(
                    f"labels of head {head} cannot be made: its logits are not finite; "
                    "lower selflabel.optim.learning_rate."
                )
            labels = process_allgather(labels, tiled=True)[real]
            changed.append(np.mean(new[clip_id[real], head] != labels))
            new[clip_id[real], head] = labels
            counts = np.bincount(labels, minlength=clusters)
            used.append(np.mean(counts > 0))
            largest.append(counts.max() / counts.sum())
            errors.append(float(result.column_error))
            sweeps.append(float(result.iterations))
        metrics = {
            "relabel/column_error": float(np.max(errors)),
            "relabel/sweeps": float(np.max(sweeps)),
            "relabel/label_change": float(np.mean(changed)),
            "relabel/clusters_in_use": float(np.mean(used)),
            "relabel/largest_share": float(np.mean(largest)),
        }
        return Relabelled({"labels": new}, metrics)

    return relabel


def make(config: SelflabelConfig, model: Model, batch_size: int) -> Method:
    """The method with its settings.

    Terms, as logged, in the words of the VisXP documents: clustering = cross-entropy
    of each head to its pseudo-label (Asano et al. 2020, eq. 1); representation =
    correspondence loss of stage 1, kept so that the two towers go on agreeing;
    regularisation = decorrelation of the fused vectors. Equal cluster sizes are a
    constraint of the labels and no term of the loss.
    """
    num_heads, clusters = config.heads, config.clusters
    independent = 1 / (batch_size - 1)  # of dimensions that have nothing in common

    def init_state(num_clips: int, key: jax.Array) -> dict[str, jax.Array]:
        del key
        return {"labels": jnp.full((num_clips, num_heads), -1, jnp.int32)}

    def loss(
        params: Any, model_state: Any, method_state: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Aux]:
        del key
        (video, audio), model_state = model.embed(
            params, model_state, batch.frame, batch.log_mel, train=True
        )
        fused = model.fuse(params, video, audio)
        logits = cluster_logits(model, params, fused, num_heads, clusters)
        labels = method_state["labels"][batch.clip_id]
        per_clip = pseudo_label_cross_entropy(logits, labels)
        rows = jnp.maximum(jnp.sum(batch.weight), 1.0)
        clustering = jnp.sum(batch.weight * per_clip) / rows
        representation, accuracy = avc.correspondence(
            model, params, video, audio, batch, shifts=config.shifts
        )
        regularisation = decorrelation(fused, batch.weight)
        total = (
            config.clustering * clustering
            + config.representation * representation
            + config.regularisation * regularisation
        )
        metrics = {
            "loss/clustering": clustering,
            "loss/representation": representation,
            "loss/regularisation": regularisation,
            "avc_accuracy": accuracy,
        }
        return total, Aux(model_state, metrics)

    return Method(
        chance={
            "loss/total": config.clustering * math.log(clusters)
            + config.representation * math.log(2)
            + config.regularisation * independent,
            "loss/clustering": math.log(clusters),
            "loss/representation": math.log(2),
            "loss/regularisation": independent,
            "avc_accuracy": 0.5,
            "relabel/largest_share": 1 / clusters,
        },
        init_state=init_state,
        loss=loss,
        relabel_steps=relabel_steps(
            config.steps, config.relabels, config.relabel_power
        ),
        relabel=make_relabel(config, model),
    )
