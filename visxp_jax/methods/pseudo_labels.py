"""What all methods that learn from pseudo-labels share: schedule, store, loss.

Labels are int32 [n, s, r]: clips, sets, heads. With one set, all views of a clip learn
the same labels; with two, each modality learns those made from the other.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from visxp_jax.config import ClusterConfig
from visxp_jax.losses import decorrelation, pseudo_label_cross_entropy
from visxp_jax.methods import avc
from visxp_jax.methods.base import Aux, Method, Relabel, Relabelled, Vectors
from visxp_jax.models.bind import Model
from visxp_jax.types import Batch


def relabel_steps(steps: int, relabels: int, power: float) -> tuple[int, ...]:
    """Steps before which labels are made anew: steps * (i / relabels)^power.

    The first is always step 0: a stage begins by labelling. That is the schedule of
    SeLa's and SeLaVi's code for `relabels` + 1 passes, whose last falls after the end.
    """
    # 100 * 0.29 is 28.999...: without the little that is added, 28.
    at = {int(steps * (i / relabels) ** power + 1e-6) for i in range(relabels)}
    return tuple(sorted(at))


def vectors_of(
    model: Model, params: Any, video: jax.Array, audio: jax.Array
) -> Vectors:
    """All vectors that heads may sit on."""
    return {"video": video, "audio": audio, "fused": model.fuse(params, video, audio)}


def make_loss_method(
    section: ClusterConfig,
    model: Model,
    batch_size: int,
    *,
    heads: Mapping[str, tuple[str, int]],
    num_heads: int,
    num_sets: int,
    cost: Callable[[Any, str, jax.Array, jax.Array], jax.Array] | None = None,
) -> Method:
    """Everything of a method but how it makes its labels.

    Terms, as logged, in the words of the VisXP documents:

    - clustering: cross-entropy of each head to its pseudo-label, the mean over heads
      and views (Asano et al. 2020, eq. 1; SeLaVi's eq. 4);
    - representation: the correspondence loss of stage 1 (L3-Net), kept so that the two
      towers go on agreeing; left out where its weight is 0;
    - regularisation: mean squared correlation between different dimensions of the
      vectors that heads sit on, over the batch (after the off-diagonal term of Barlow
      Twins' eq. 1, which is between two views, see `decorrelation`); the mean of both
      modalities where they have heads of their own.

    Equal cluster sizes are a constraint of the labels and no term of the loss.

    Args:
        section: Of the stage.
        model: The bound network.
        batch_size: Over all devices.
        heads: Name of the matrix of heads -> (vector it sits on, set that it learns).
        num_heads: r, in each of these matrices.
        num_sets: s.
        cost: (params, name, vectors [b, d], labels [b, r]) -> [b], in place of the
            cross-entropy of linear heads.
    """
    clusters = section.clusters
    views = sorted({view for view, _ in heads.values()})
    independent = 1 / (batch_size - 1)  # of dimensions that have nothing in common

    def linear(
        params: Any, name: str, vectors: jax.Array, labels: jax.Array
    ) -> jax.Array:
        logits = model.head(params, name, vectors)
        logits = logits.reshape(-1, num_heads, clusters)
        return pseudo_label_cross_entropy(logits, labels)

    cost = cost or linear

    def init_state(num_clips: int, key: jax.Array) -> dict[str, jax.Array]:
        del key
        return {"labels": jnp.full((num_clips, num_sets, num_heads), -1, jnp.int32)}

    def loss(
        params: Any, model_state: Any, method_state: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Aux]:
        del key
        (video, audio), model_state = model.embed(
            params, model_state, batch.frame, batch.log_mel, train=True
        )
        vectors = vectors_of(model, params, video, audio)
        labels = method_state["labels"][batch.clip_id]
        per_clip = jnp.zeros(batch.size)
        for name, (view, learns) in heads.items():
            own = cost(params, name, vectors[view], labels[:, learns])
            per_clip = per_clip + own / len(heads)
        rows = jnp.maximum(jnp.sum(batch.weight), 1.0)
        clustering = jnp.sum(batch.weight * per_clip) / rows
        redundancy = [decorrelation(vectors[v], batch.weight) for v in views]
        regularisation = jnp.mean(jnp.stack(redundancy))
        total = section.clustering * clustering
        total = total + section.regularisation * regularisation
        total, metrics = avc.add_correspondence(
            total,
            {"loss/clustering": clustering, "loss/regularisation": regularisation},
            model,
            params,
            (video, audio),
            batch,
            weight=section.representation,
            shifts=section.shifts,
        )
        return total, Aux(model_state, metrics)

    chance = {
        "loss/total": section.clustering * math.log(clusters)
        + section.representation * math.log(2)
        + section.regularisation * independent,
        "loss/clustering": math.log(clusters),
        "loss/regularisation": independent,
        "validation/modality_agreement": 1 / clusters,
    }
    chance |= avc.chance_beside(section.representation)
    return Method(chance=chance, init_state=init_state, loss=loss)


def make_relabel(
    section: ClusterConfig,
    make: Callable[..., Relabelled],
    vectors: Sequence[str],
    *,
    fresh_heads: Sequence[str] = (),
) -> Relabel:
    """When labels are made, and from what; see `Relabel` for the arguments."""

    def sampling(method_state: Any) -> jax.Array:
        return sampling_weights(method_state["labels"], clusters=section.clusters)

    return Relabel(
        steps=relabel_steps(section.steps, section.relabels, section.relabel_power),
        vectors=tuple(vectors),
        make=make,
        sampling=sampling if section.balanced_sampling else None,
        fresh_heads=tuple(fresh_heads),
    )


class Labels:
    """The store of labels while they are made, and what is said of the new ones."""

    def __init__(self, method_state: Any, clusters: int) -> None:
        """Begin with the labels that there are."""
        self._rest = method_state
        self._labels = method_state["labels"]
        self._clusters = clusters
        self._numbers: dict[str, list[float]] = {}

    def put(
        self,
        column: tuple[int, int],
        clip_id: jax.Array,
        labels: jax.Array,
        *,
        renumbered: bool = False,
        **numbers: jax.Array,
    ) -> None:
        """Replace the labels of one column; rows of negative id are left out.

        Args:
            column: (set, head).
            clip_id: int32 [n].
            labels: int32 [n].
            renumbered: Clusters have no memory of their numbers: what changed is
                counted after the best match of old to new ones.
            **numbers: More to report, such as the column error.
        """
        at = (jnp.int32(column[0]), jnp.int32(column[1]))
        self._labels, table = _stored(
            self._labels, clip_id, labels, *at, clusters=self._clusters
        )
        table = np.asarray(table)
        sizes, known = table.sum(axis=0), table[:-1]
        kept = np.trace(known)
        if renumbered:
            kept = known[linear_sum_assignment(known, maximize=True)].sum()
        values = {
            **numbers,
            "label_change": 1 - kept / sizes.sum(),
            "clusters_in_use": np.mean(sizes > 0),
            "largest_share": sizes.max() / sizes.sum(),
        }
        for name, value in values.items():
            self._numbers.setdefault(name, []).append(float(value))

    @property
    def state(self) -> dict[str, jax.Array]:
        """The method's state with these labels."""
        return {**self._rest, "labels": self._labels}

    @property
    def metrics(self) -> dict[str, float]:
        """Of all columns: the worst of how well they were solved, means of the rest."""
        worst = ("column_error", "sweeps", "iterations")
        return {
            f"relabel/{name}": float((np.max if name in worst else np.mean)(values))
            for name, values in self._numbers.items()
        }


@partial(jax.jit, static_argnames="clusters")
def _stored(
    labels: jax.Array,
    clip_id: jax.Array,
    new: jax.Array,
    of_set: jax.Array,
    head: jax.Array,
    *,
    clusters: int,
) -> tuple[jax.Array, jax.Array]:
    """Labels with one column replaced, and int32 [k + 1, k]: clips by old and new.

    Clips in the last row had no label.
    """
    real = clip_id >= 0
    column = labels[:, of_set, head]
    old = column[jnp.maximum(clip_id, 0)]
    old = jnp.where(old < 0, clusters, old)
    table = jnp.zeros((clusters + 1, clusters), jnp.int32)
    table = table.at[old, new].add(real.astype(jnp.int32))
    # An index beyond the end is dropped; -1 would be the last clip.
    at = jnp.where(real, clip_id, labels.shape[0])
    column = column.at[at].set(new, mode="drop")
    return labels.at[:, of_set, head].set(column), table


@partial(jax.jit, static_argnames="clusters")
def sampling_weights(labels: jax.Array, *, clusters: int) -> jax.Array:
    """How often each clip is to be seen so that all labels in use are seen as often.

    Args:
        labels: int32 [n, s, r]; negative for clips that have none.
        clusters: k.

    Returns:
        float32 [n], mean over all columns; 1 for clips without labels. Its mean over
        the labelled clips is 1.
    """
    columns = labels.reshape(labels.shape[0], -1).T

    def of_column(label: jax.Array) -> jax.Array:
        known = (label >= 0).astype(jnp.float32)
        sizes = jnp.zeros(clusters).at[jnp.maximum(label, 0)].add(known)
        share = jnp.sum(sizes) / jnp.maximum(jnp.sum(sizes > 0), 1)
        weight = share / jnp.maximum(sizes, 1.0)
        return jnp.where(label >= 0, weight[label], 1.0)

    return jnp.mean(jax.lax.map(of_column, columns), axis=0)
