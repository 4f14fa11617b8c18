"""Stage 2: self-labelling, with labels by equipartition.

Source: Asano et al., Self-labelling via simultaneous clustering and representation
learning (SeLa), 2020; Asano et al., Labelling unlabelled videos from scratch (SeLaVi),
2020. VisXP fuses the modalities before its heads; SeLaVi has heads for each.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from visxp_jax.config import SelflabelConfig
from visxp_jax.errors import VisxpError
from visxp_jax.losses import (
    Equipartition,
    assign_in_blocks,
    balanced_kmeans,
    disagreement,
    equipartition,
    equipartition_in_blocks,
    gaussian_cluster_mass,
    unit_length,
)
from visxp_jax.losses.blocks import map_in_blocks, sum_in_blocks
from visxp_jax.memory import logits_fit
from visxp_jax.methods.base import (
    Clusters,
    Encoding,
    Method,
    Relabel,
    Relabelled,
    Vectors,
)
from visxp_jax.methods.pseudo_labels import (
    Labels,
    make_loss_method,
    relabel_steps,
    sampling_weights,
)
from visxp_jax.models.audiovisual import Head
from visxp_jax.models.bind import Linear, Model
from visxp_jax.sharding import EVERYWHERE, ROWS, mesh_of
from visxp_jax.types import ClipVectors

HIGHEST = jax.lax.Precision.HIGHEST
BLOCK = 4096  # rows at a time, where logits of all do not fit


class Plan(NamedTuple):
    """Who has heads, and who teaches whom.

    Attributes:
        heads: Name of the matrix of heads -> (vector it sits on, set that it learns).
        sources: For each set of labels, the matrices whose mean score it follows.
    """

    heads: dict[str, tuple[str, int]]
    sources: tuple[tuple[str, ...], ...]


VIDEO, AUDIO = "clusters_video", "clusters_audio"
_BOTH = {VIDEO: ("video", 0), AUDIO: ("audio", 0)}
PLANS = {
    "fused": Plan({"clusters": ("fused", 0)}, (("clusters",),)),
    "pooled": Plan(_BOTH, ((VIDEO, AUDIO),)),
    "video": Plan(_BOTH, ((VIDEO,),)),
    "audio": Plan(_BOTH, ((AUDIO,),)),
    "swapped": Plan({VIDEO: ("video", 1), AUDIO: ("audio", 0)}, ((VIDEO,), (AUDIO,))),
}


def heads(config: SelflabelConfig) -> dict[str, Head]:
    """All clustering heads of a vector as one matrix, and the head of stage 1."""
    outputs = config.heads * config.clusters
    plan = PLANS[config.labels_from]
    matrices = {name: Head(outputs, on) for name, (on, _) in plan.heads.items()}
    return {"avc": Head(2), **matrices}


def mean_log_probs(weights: dict[str, Linear], rows: Vectors) -> jax.Array:
    """Score of one head, float32 [b, k]: the mean over matrices of log probabilities.

    That is the logarithm of SeLaVi's geometric mean of the modalities' probabilities.

    Args:
        weights: Name of the matrix -> the columns of this head.
        rows: By the same names, vectors [b, d] of any float type.
    """
    each = [
        jax.nn.log_softmax(
            jnp.matmul(rows[name].astype(jnp.float32), w.kernel, precision=HIGHEST)
            + w.bias[None]
        )
        for name, w in weights.items()
    ]
    return sum(each[1:], each[0]) / len(each)


def make(config: SelflabelConfig, model: Model, batch_size: int) -> Method:
    """The method with its settings; its terms: see `make_loss_method`."""
    plan = PLANS[config.labels_from]
    method = make_loss_method(
        config,
        model,
        batch_size,
        heads=plan.heads,
        num_heads=config.heads,
        num_sets=len(plan.sources),
    )
    relabel = Relabel(
        steps=relabel_steps(config.steps, config.relabels, config.relabel_power),
        vectors=tuple(sorted({on for on, _ in plan.heads.values()})),
        make=make_relabel(config, model),
    )
    if config.balanced_sampling:
        relabel = relabel._replace(
            sampling=lambda state: sampling_weights(
                state["labels"], clusters=config.clusters
            )
        )
    return method._replace(relabel=relabel, clusters=make_clusters(config, model))


def make_clusters(config: SelflabelConfig, model: Model) -> Clusters:
    """Clusters of any clips by the score that labels follow, without transport."""
    plan = PLANS[config.labels_from]

    def of_matrix(params: Any, vectors: Vectors, name: str) -> jax.Array:
        logits = model.head(params, name, vectors[plan.heads[name][0]])
        logits = logits.reshape(-1, config.heads, config.clusters)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def log_probs(params: Any, vectors: Vectors) -> jax.Array:
        sets = [
            sum(of_matrix(params, vectors, name) for name in source) / len(source)
            for source in plan.sources
        ]
        return jnp.concatenate(sets, axis=1)

    def by_modality(params: Any, vectors: Vectors) -> tuple[jax.Array, jax.Array]:
        if config.labels_from != "fused":
            video = of_matrix(params, vectors, VIDEO)
            return video, of_matrix(params, vectors, AUDIO)
        # The other modality is replaced by its mean over the clips.
        video, audio = vectors["video"], vectors["audio"]
        sight = model.fuse(params, video, _mean_of(audio))
        sound = model.fuse(params, _mean_of(video), audio)
        return log_probs(params, {"fused": sight}), log_probs(params, {"fused": sound})

    return Clusters(config.clusters, log_probs, by_modality)


def _mean_of(vectors: jax.Array) -> jax.Array:
    mean = jnp.mean(vectors, axis=0, keepdims=True)
    return jnp.broadcast_to(mean, vectors.shape)


def make_relabel(
    config: SelflabelConfig, model: Model
) -> Callable[[Any, Any, Encoding, jax.Array, int], Relabelled]:
    """The function that makes labels, see `Relabel.make`."""
    plan = PLANS[config.labels_from]
    solver = Solver(config)

    def weights_of(params: Any, names: tuple[str, ...], head: int) -> dict[str, Linear]:
        def one(name: str) -> Linear:
            kernel, bias = model.weights(params, name)
            shape = (config.heads, config.clusters)
            kernel = kernel.reshape(-1, *shape)[:, head]
            return Linear(kernel, bias.reshape(shape)[head])

        return {name: one(name) for name in names}

    def rows_of(clips: ClipVectors, names: tuple[str, ...]) -> Vectors:
        return {name: clips.vectors[plan.heads[name][0]] for name in names}

    def aligned(params: Any, clips: ClipVectors) -> Any:
        """With the columns of the audio heads in the order of the video heads'."""
        kernel, bias = model.weights(params, AUDIO)
        order = np.arange(bias.shape[0]).reshape(config.heads, config.clusters)
        names = (VIDEO, AUDIO)
        for head in range(config.heads):
            weights = weights_of(params, names, head)
            cost = solver.disagreement(weights, rows_of(clips, names), clips.clip_id)
            check_finite(cost, head, config)
            _, match = linear_sum_assignment(np.asarray(cost))
            order[head] = order[head][match]
        at = order.ravel()
        return model.with_weights(params, AUDIO, Linear(kernel[:, at], bias[at]))

    def first_labels(
        clips: ClipVectors, key: jax.Array
    ) -> tuple[jax.Array, Equipartition | None]:
        if config.first_labels == "random":
            return random_labels(key, clips.clip_id, clusters=config.clusters), None
        names = tuple(dict.fromkeys(sum(plan.sources, ())))
        return solver.group(key, rows_of(clips, names), clips.clip_id)

    def groups(number: int) -> list[np.ndarray]:
        split = np.array_split(np.arange(config.heads), config.head_groups)
        in_turn = config.passes == "in_turn" and number > 0
        return [split[number % len(split)]] if in_turn else split

    def relabel(
        params: Any, method_state: Any, passes: Encoding, key: jax.Array, number: int
    ) -> Relabelled:
        store = Labels(method_state, config.clusters)
        for_sizes, key = jax.random.split(key)
        key = jax.random.fold_in(key, number)
        clips: ClipVectors | None = None
        for group in groups(number):
            if clips is None or config.passes == "each":
                clips = None  # one pass's vectors at a time
                clips = passes.encode(jax.random.fold_in(key, int(group[0])))
            if config.align and number == 0 and group[0] == 0:
                params = aligned(params, clips)
            for head in group.tolist():
                passes.pause()
                of_head = jax.random.fold_in(key, config.heads + head)
                begin = number == 0 and config.first_labels != "heads"
                found = first_labels(clips, of_head) if begin else None
                # Drawn once for a head; which cluster has which size may change.
                draw = jax.random.fold_in(for_sizes, head)
                for of_set, names in enumerate(plan.sources):
                    labels, result = found or solver.label(
                        weights_of(params, names, head),
                        rows_of(clips, names),
                        clips.clip_id,
                        draw,
                    )
                    numbers: dict[str, Any] = {}
                    if result is not None:
                        check_finite(result.column_error, head, config)
                        numbers = {
                            "column_error": result.column_error,
                            "sweeps": result.iterations,
                        }
                    store.put((of_set, head), clips.clip_id, labels, **numbers)
        return Relabelled(store.state, store.metrics, params)

    return relabel


def check_finite(x: jax.Array, head: int, config: SelflabelConfig) -> None:
    """Refuse labels of vectors or logits that are not finite.

    Raises:
        VisxpError: names the head.
    """
    if not np.isfinite(np.asarray(x)).all():
        raise VisxpError(
            f"labels of head {head} cannot be made: vectors and logits must be finite, "
            f"as {config.feature_dtype}, but are not; lower the learning rate of this "
            "stage or the one before, or set selflabel.feature_dtype."
        )


@partial(jax.jit, static_argnames="clusters")
def random_labels(key: jax.Array, clip_id: jax.Array, *, clusters: int) -> jax.Array:
    """Labels at random whose sizes differ by one clip at most, as SeLa begins.

    Args:
        key: Of the draw.
        clip_id: int32 [n]; where it is negative, so is no clip.
        clusters: k.

    Returns:
        int32 [n]; they depend on the clips, not on the order of rows.
    """
    chance = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(clip_id)
    order = jnp.argsort(jnp.where(clip_id >= 0, chance, jnp.inf))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    return (rank % clusters).astype(jnp.int32)


class Solver:
    """Compiled work on rows that are split over devices; only [k] and [k, k] cross."""

    def __init__(self, config: SelflabelConfig) -> None:
        """Compile on first use."""
        self._config = config
        self.label = self._over_rows(self._label, (ROWS, EVERYWHERE))
        self.group = self._over_rows(self._group, (ROWS, EVERYWHERE))
        self.disagreement = self._over_rows(_disagreement, EVERYWHERE)

    def _over_rows(self, function: Callable, out_specs: Any) -> Callable:
        @partial(jax.jit, static_argnames=("mesh", "fits"))
        def run(first: Any, rows: Any, clip_id: Any, rest: Any, mesh: Any, fits: bool):
            split = jax.shard_map(
                partial(function, fits),
                mesh=mesh,
                in_specs=(EVERYWHERE, ROWS, ROWS, EVERYWHERE),
                out_specs=out_specs,
            )
            return split(first, rows, clip_id, rest)

        def call(first: Any, rows: Vectors, clip_id: jax.Array, *rest: Any) -> Any:
            mesh = mesh_of(clip_id)
            fits = logits_fit(
                clip_id.shape[0], self._config.clusters, mesh, modalities=len(rows)
            )
            return run(first, rows, clip_id, rest, mesh, fits)

        return call

    def _label(
        self,
        fits: bool,
        weights: dict[str, Linear],
        rows: Vectors,
        clip_id: jax.Array,
        rest: tuple[jax.Array],
    ) -> tuple[jax.Array, Equipartition]:
        """Labels of one head by its logits."""
        row_mass = (clip_id >= 0).astype(jnp.float32)
        config = self._config
        score = partial(mean_log_probs, weights)
        cluster_mass = None
        if config.sizes != "equal":
            claims = _claims(score, rows, row_mass)
        if config.sizes == "gaussian":
            cluster_mass = gaussian_cluster_mass(rest[0], claims)
        how: dict[str, Any] = {
            "sharpness": config.sharpness,
            "cluster_mass": cluster_mass,
            "row_mass": row_mass,
            "axis_name": "data",
        }
        if config.sizes == "free":
            nothing = jnp.zeros(config.clusters)
            error = jnp.max(jnp.abs(claims * config.clusters - 1))
            result = Equipartition(nothing, error, jnp.int32(0), jnp.array(True))
        elif fits:
            # In blocks, so that half floats are never held in float32.
            result = equipartition(map_in_blocks(score, rows, block=BLOCK), **how)
        else:
            result = equipartition_in_blocks(
                rows, score, clusters=config.clusters, block=BLOCK, **how
            )

        labels = assign_in_blocks(
            rows, score, result.log_scale, sharpness=config.sharpness, block=BLOCK
        )
        return labels, result

    def _group(
        self,
        fits: bool,
        key: jax.Array,
        rows: Vectors,
        clip_id: jax.Array,
        rest: tuple[()],
    ) -> tuple[jax.Array, Equipartition]:
        """Labels by balanced k-means on the vectors, those of modalities side by side.

        These are centred and scaled to length 1 first, so that both count.
        """
        del fits, rest
        row_mass = (clip_id >= 0).astype(jnp.float32)
        parts = list(rows.values())
        if len(parts) > 1:
            parts = [unit_length(x, row_mass, axis_name="data") for x in parts]
            parts = [jnp.concatenate(parts, axis=1)]
        return balanced_kmeans(
            key,
            parts[0],
            clusters=self._config.clusters,
            row_mass=row_mass,
            row_id=clip_id,
            axis_name="data",
        )


def _claims(
    score: Callable[[Vectors], jax.Array], rows: Vectors, row_mass: jax.Array
) -> jax.Array:
    """Mean probability of each cluster, [k]."""

    def of_block(rows: Vectors, row_mass: jax.Array) -> tuple[jax.Array, jax.Array]:
        probs = jax.nn.softmax(score(rows), axis=1)
        real = row_mass[:, None] > 0
        return jnp.sum(jnp.where(real, probs, 0.0), axis=0), jnp.sum(row_mass)

    total, count = sum_in_blocks(
        of_block, rows, row_mass, block=BLOCK, axis_name="data"
    )
    return total / count


def _disagreement(
    fits: bool,
    weights: dict[str, Linear],
    rows: Vectors,
    clip_id: jax.Array,
    rest: tuple[()],
) -> jax.Array:
    """`disagreement` of the heads of two modalities, [k, k]."""
    del fits, rest
    row_mass = (clip_id >= 0).astype(jnp.float32)

    def of_block(rows: Vectors, row_mass: jax.Array) -> jax.Array:
        video, audio = (
            jnp.exp(mean_log_probs({name: weights[name]}, rows))
            for name in (VIDEO, AUDIO)
        )
        return disagreement(video, audio, row_mass)

    # [b, k, k] numbers, should the compiler not add them up at once.
    return sum_in_blocks(of_block, rows, row_mass, block=64, axis_name="data")
