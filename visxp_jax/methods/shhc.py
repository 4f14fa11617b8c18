"""Stage 2 by hierarchy: equal-sized clusters as leaves of a tree in the Poincare ball.

Labels are by optimal transport, as in self-labelling. The clusters are embedded as
leaves of a continuous hierarchy by the similarity of their means, and clips are led to
the leaves of their clusters: the longer the way in the tree from one to another, the
further apart they end.

Source: Long and van Noord, Cross-modal scalable hyperbolic hierarchical clustering
(sHHC), 2023, in its outline: equal-sized subsets by transport, their embedding, an
embedding loss and a representation loss. Its text and code are not public: the terms
are ours, of HypHC's loss (Chami et al., 2020) and of Long et al., Searching for actions
on the hyperbole, 2020. No figure of the paper is claimed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from visxp_jax.config import ShhcConfig
from visxp_jax.geometry import poincare
from visxp_jax.hierarchy.embedding import (
    SPHERE,
    by_offset,
    embed,
    principal_points,
    sampled_loss,
)
from visxp_jax.losses import directions, leaf_logits, leaf_loss
from visxp_jax.methods import avc
from visxp_jax.methods.base import (
    SHARED,
    Aux,
    Clusters,
    Encoding,
    Method,
    Relabelled,
    Vectors,
)
from visxp_jax.methods.label_solver import AUDIO, VIDEO, LabelSolver
from visxp_jax.methods.pseudo_labels import Labels, make_loss_method, make_relabel
from visxp_jax.methods.selflabel import (
    PLANS,
    Plan,
    check_finite,
    mean_of,
    warn_of_sizes,
)
from visxp_jax.models.audiovisual import Head, Points
from visxp_jax.models.bind import Linear, Model
from visxp_jax.sharding import everywhere, mesh_of
from visxp_jax.types import Batch, ClipVectors


def plan_of(config: ShhcConfig) -> Plan:
    """Of self-labelling, with heads by other names: both may be stages of a run."""
    plan = PLANS[config.labels_from]
    return Plan(
        {f"shhc_{name}": on for name, on in plan.heads.items()},
        tuple(tuple(f"shhc_{name}" for name in names) for names in plan.sources),
    )


def points_of(of_set: int) -> str:
    """Name of the leaves of one hierarchy."""
    return f"hierarchy_{of_set}"


def heads(config: ShhcConfig) -> dict[str, Head | Points]:
    """Projections to the ball, leaves of each hierarchy, head of stage 1 if kept."""
    plan = plan_of(config)
    return {
        **avc.heads_beside(config.representation),
        **{name: Head(config.dimensions, on) for name, (on, _) in plan.heads.items()},
        **{
            points_of(i): Points(config.clusters, config.dimensions)
            for i in range(len(plan.sources))
        },
    }


def leaves_of(model: Model, params: Any, of_set: int) -> jax.Array:
    """float32 [k, d], at one distance from 0."""
    return SPHERE.points(SPHERE.parameters(model.points(params, points_of(of_set))))


def clips_of(linear: Linear, vectors: jax.Array) -> jax.Array:
    """float32 [b, d] in the ball, of the vectors' directions."""
    tangent = directions(vectors) @ linear.kernel + linear.bias[None]
    return poincare.exp0(tangent)


def make(config: ShhcConfig, model: Model, batch_size: int) -> Method:
    """The method with its settings.

    Terms beside those of `make_loss_method`, whose clustering term is here the mean
    `leaf_loss` over heads, sHHC's representation loss:

    - embedding: `triplet_loss` of the clusters' leaves, the mean over hierarchies.

    Leaves learn from the embedding term alone.
    """
    plan = plan_of(config)
    sets = range(len(plan.sources))

    def cost(
        params: Any, name: str, vectors: jax.Array, labels: jax.Array
    ) -> jax.Array:
        leaves = leaves_of(model, params, plan.heads[name][1])
        return leaf_loss(
            clips_of(model.weights(params, name), vectors),
            jax.lax.stop_gradient(leaves),
            labels[:, 0],
            form=config.form,
            temperature=config.temperature,
            tree_temperature=config.tree_temperature,
        )

    method = make_loss_method(
        config,
        model,
        batch_size,
        heads=plan.heads,
        num_heads=1,
        num_sets=len(sets),
        cost=cost,
    )

    def init_state(num_clips: int, key: jax.Array) -> dict[str, Any]:
        k = config.clusters
        shared = {"similarity": jnp.zeros((len(sets), k, k))}
        return {**method.init_state(num_clips, key), SHARED: shared}

    def loss(
        params: Any, model_state: Any, method_state: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Aux]:
        total, aux = method.loss(params, model_state, method_state, batch, key)
        embedding = [
            sampled_loss(
                jax.random.fold_in(key, i),
                SPHERE.parameters(model.points(params, points_of(i))),
                by_offset(method_state[SHARED]["similarity"][i]),
                config.embedding_temperature,
            )
            for i in sets
        ]
        mean = sum(embedding[1:], embedding[0]) / len(embedding)
        metrics = {**aux.metrics, "loss/embedding": mean}
        return total + config.embedding * mean, aux._replace(metrics=metrics)

    chance = dict(method.chance)
    if config.form == "dist":
        del chance["loss/clustering"]
    del chance["loss/total"]
    vectors = sorted({plan.heads[name][0] for name in sum(plan.sources, ())})
    return method._replace(
        chance=chance,
        init_state=init_state,
        loss=loss,
        relabel=make_relabel(config, make_labels(config, model), vectors),
        clusters=make_clusters(config, model),
    )


def score(
    temperature: float, weights: dict[str, tuple[Linear, jax.Array]], rows: Vectors
) -> jax.Array:
    """Log probability of each leaf, float32 [b, k]: the mean over modalities."""
    each = [
        jax.nn.log_softmax(
            leaf_logits(clips_of(linear, rows[name]), leaves, temperature)
        )
        for name, (linear, leaves) in weights.items()
    ]
    return sum(each[1:], each[0]) / len(each)


def make_clusters(config: ShhcConfig, model: Model) -> Clusters:
    """Clusters of any clips by the distance from leaves."""
    plan = plan_of(config)

    def of(params: Any, names: tuple[str, ...], vectors: Vectors) -> jax.Array:
        weights = {name: weights_of(model, params, plan, name) for name in names}
        rows = {name: vectors[plan.heads[name][0]] for name in names}
        return score(config.temperature, weights, rows)[:, None]

    def log_probs(params: Any, vectors: Vectors) -> jax.Array:
        return jnp.concatenate(
            [of(params, names, vectors) for names in plan.sources], 1
        )

    def by_modality(params: Any, vectors: Vectors) -> tuple[jax.Array, jax.Array]:
        if config.labels_from != "fused":
            return (
                of(params, (f"shhc_{VIDEO}",), vectors),
                of(params, (f"shhc_{AUDIO}",), vectors),
            )
        video, audio = vectors["video"], vectors["audio"]
        sight = model.fuse(params, video, mean_of(audio))
        sound = model.fuse(params, mean_of(video), audio)
        return log_probs(params, {"fused": sight}), log_probs(params, {"fused": sound})

    def leaves(params: Any) -> jax.Array:
        return leaves_of(model, params, 0)

    return Clusters(config.clusters, log_probs, by_modality, leaves)


def weights_of(
    model: Model, params: Any, plan: Plan, name: str
) -> tuple[Linear, jax.Array]:
    """A projection, and the leaves that it leads to."""
    return model.weights(params, name), leaves_of(model, params, plan.heads[name][1])


def make_labels(
    config: ShhcConfig, model: Model
) -> Callable[[Any, Any, Encoding, jax.Array, int], Relabelled]:
    """The function that makes labels and embeds them, see `Relabel.make`."""
    plan = plan_of(config)
    solver = LabelSolver(config, partial(score, config.temperature))

    def rows_of(clips: ClipVectors, names: tuple[str, ...]) -> Vectors:
        return {name: clips.vectors[plan.heads[name][0]] for name in names}

    def embedded(key: jax.Array, similarity: jax.Array, start: jax.Array) -> jax.Array:
        return embed(
            key[None],
            start[None],
            similarity,
            jnp.full(1, config.embedding_temperature, jnp.float32),
            steps=config.embedding_steps,
            snapshots=1,
            learning_rate=config.embedding_rate,
        )[0, 0]

    def relabel(
        params: Any, method_state: Any, passes: Encoding, key: jax.Array, number: int
    ) -> Relabelled:
        store = Labels(method_state, config.clusters)
        key = jax.random.fold_in(key, number)
        clips = passes.encode(jax.random.fold_in(key, 0))
        copied = everywhere(mesh_of(clips.clip_id))
        passes.pause()
        found = None
        if number == 0:
            names = tuple(dict.fromkeys(sum(plan.sources, ())))
            at = jax.random.fold_in(key, 1)
            found = solver.group(at, rows_of(clips, names), clips.clip_id)
        similarities = []
        for of_set, names in enumerate(plan.sources):
            rows = rows_of(clips, names)
            at = jax.random.fold_in(key, 2 + of_set)
            labels, result = found or solver.label(
                {name: weights_of(model, params, plan, name) for name in names},
                rows,
                clips.clip_id,
                at,
            )
            check_finite(result.column_error, 0, config)
            if number:
                warn_of_sizes(result, 0)
            store.put(
                (of_set, 0),
                clips.clip_id,
                labels,
                column_error=result.column_error,
                sweeps=result.iterations,
            )
            similarity = solver.similarity(None, rows | {"": labels}, clips.clip_id)
            similarities.append(similarity)
            # Later ones go on from where the leaves are: clips are on their way there.
            start = (
                leaves_of(model, params, of_set)
                if number
                else principal_points(at, similarity, config.dimensions)
            )
            leaves = jax.device_put(embedded(at, similarity, start), copied)
            params = model.with_points(params, points_of(of_set), leaves)
        shared = {"similarity": jnp.stack(similarities)}
        return Relabelled({**store.state, SHARED: shared}, store.metrics, params)

    return relabel
