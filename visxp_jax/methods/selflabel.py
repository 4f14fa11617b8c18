"""Stage 2: self-labelling, with labels by equipartition.

Source: Asano et al., Self-labelling via simultaneous clustering and representation
learning (SeLa), 2020; Asano et al., Labelling unlabelled videos from scratch (SeLaVi),
2020. VisXP fuses the modalities before its heads; SeLaVi has heads for each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from scipy.optimize import linear_sum_assignment

from visxp_jax.config import ClusterConfig, SelflabelConfig
from visxp_jax.errors import VisxpError
from visxp_jax.losses import Equipartition
from visxp_jax.methods import avc
from visxp_jax.methods.base import Clusters, Encoding, Method, Relabelled, Vectors
from visxp_jax.methods.label_solver import (
    AUDIO,
    VIDEO,
    LabelSolver,
    random_labels,
)
from visxp_jax.methods.pseudo_labels import Labels, make_loss_method, make_relabel
from visxp_jax.models.audiovisual import Head
from visxp_jax.models.bind import Linear, Model
from visxp_jax.types import ClipVectors


class Plan(NamedTuple):
    """Who has heads, and who teaches whom.

    Attributes:
        heads: Name of the matrix of heads -> (vector it sits on, set that it learns).
        sources: For each set of labels, the matrices whose mean score it follows.
    """

    heads: dict[str, tuple[str, int]]
    sources: tuple[tuple[str, ...], ...]


_BOTH = {VIDEO: ("video", 0), AUDIO: ("audio", 0)}
PLANS = {
    "fused": Plan({"clusters": ("fused", 0)}, (("clusters",),)),
    "pooled": Plan(_BOTH, ((VIDEO, AUDIO),)),
    "video": Plan(_BOTH, ((VIDEO,),)),
    "audio": Plan(_BOTH, ((AUDIO,),)),
    "swapped": Plan({VIDEO: ("video", 1), AUDIO: ("audio", 0)}, ((VIDEO,), (AUDIO,))),
}


def heads(config: SelflabelConfig) -> dict[str, Head]:
    """All clustering heads of a vector as one matrix, and that of stage 1 if kept."""
    outputs = config.heads * config.clusters
    plan = PLANS[config.labels_from]
    matrices = {name: Head(outputs, on) for name, (on, _) in plan.heads.items()}
    return avc.heads_beside(config.representation) | matrices


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
    vectors = sorted({plan.heads[name][0] for name in sum(plan.sources, ())})
    return method._replace(
        relabel=make_relabel(config, make_labels(config, model), vectors),
        clusters=make_clusters(config, model),
    )


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
        sight = model.fuse(params, video, mean_of(audio))
        sound = model.fuse(params, mean_of(video), audio)
        return log_probs(params, {"fused": sight}), log_probs(params, {"fused": sound})

    return Clusters(config.clusters, log_probs, by_modality)


def mean_of(vectors: jax.Array) -> jax.Array:
    """Each row replaced by the mean of all."""
    mean = jnp.mean(vectors, axis=0, keepdims=True)
    return jnp.broadcast_to(mean, vectors.shape)


def make_labels(
    config: SelflabelConfig, model: Model
) -> Callable[[Any, Any, Encoding, jax.Array, int], Relabelled]:
    """The function that makes labels, see `Relabel.make`."""
    plan = PLANS[config.labels_from]
    solver = LabelSolver(config)

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
                        if not begin:
                            warn_of_sizes(result, head)
                        numbers = {
                            "column_error": result.column_error,
                            "sweeps": result.iterations,
                        }
                    store.put((of_set, head), clips.clip_id, labels, **numbers)
        return Relabelled(store.state, store.metrics, params)

    return relabel


def check_finite(x: jax.Array, head: int, config: ClusterConfig) -> None:
    """Refuse labels of vectors or logits that are not finite.

    Raises:
        VisxpError: names the head.
    """
    if not np.isfinite(np.asarray(x)).all():
        raise VisxpError(
            f"labels of head {head} cannot be made: vectors and logits must be finite, "
            f"as {config.feature_dtype}, but are not; lower the learning rate of this "
            "stage or the one before, or set feature_dtype."
        )


def warn_of_sizes(result: Equipartition, head: int) -> None:
    """Say so where the solver stopped before clusters had their shares."""
    if not result.converged:
        logging.warning(
            "labels of head %d: soft cluster sizes are still up to %.2g %% off after "
            "%d sweeps; a lower sharpness makes them easier to reach.",
            head,
            100 * float(result.column_error),
            int(result.iterations),
        )
