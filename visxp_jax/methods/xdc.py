"""Cross-modal deep clustering: k-means labels of each modality teach the other.

Source: Alwassel et al., Self-supervised learning by cross-modal audio-video clustering,
2020. The authors published weights, not how they trained: here vectors are centred and
scaled to unit length before k-means, and the paper's batch-wise balance of clusters is
the option `balanced_sampling`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.config import XdcConfig
from visxp_jax.errors import VisxpError
from visxp_jax.losses import KMeans, kmeans, unit_length
from visxp_jax.methods import avc
from visxp_jax.methods.base import Clusters, Encoding, Method, Relabelled, Vectors
from visxp_jax.methods.pseudo_labels import Labels, make_loss_method, make_relabel
from visxp_jax.models.audiovisual import Head
from visxp_jax.models.bind import Linear, Model
from visxp_jax.sharding import EVERYWHERE, ROWS, mesh_of

MODALITIES = ("video", "audio")  # set i of the labels is made from modality i
# Name of the head -> (vector it sits on, set that it learns): that of the other.
HEADS = {"xdc_video": ("video", 1), "xdc_audio": ("audio", 0)}


def heads(config: XdcConfig) -> dict[str, Head]:
    """One head for each modality, and that of stage 1 where it is kept."""
    clusters = {name: Head(config.clusters, on) for name, (on, _) in HEADS.items()}
    return avc.heads_beside(config.representation) | clusters


def make(config: XdcConfig, model: Model, batch_size: int) -> Method:
    """The method with its settings; its terms: see `make_loss_method`."""
    clusters = config.clusters
    method = make_loss_method(
        config, model, batch_size, heads=HEADS, num_heads=1, num_sets=2
    )
    # The modalities number their clusters independently: they cannot agree.
    del method.chance["validation/modality_agreement"]

    def log_probs(params: Any, vectors: Vectors) -> jax.Array:
        logits = [
            model.head(params, name, vectors[on]) for name, (on, _) in HEADS.items()
        ]
        return jax.nn.log_softmax(jnp.stack(logits, axis=1).astype(jnp.float32))

    def relabel(
        params: Any, method_state: Any, passes: Encoding, key: jax.Array, number: int
    ) -> Relabelled:
        store = Labels(method_state, clusters)
        key = jax.random.fold_in(key, number)
        clips = passes.encode(jax.random.fold_in(key, 0))
        for i, modality in enumerate(MODALITIES):
            passes.pause()
            at = jax.random.fold_in(key, 1 + i)
            found = grouped(
                at, clips.vectors[modality], clips.clip_id, clusters=clusters
            )
            if not np.isfinite(float(found.inertia)):
                raise VisxpError(
                    f"labels cannot be made from {modality}: its vectors must be finite"
                    f" as {config.feature_dtype}, but are not; lower the learning rate "
                    "of this stage or the one before, or set xdc.feature_dtype."
                )
            store.put(
                (i, 0),
                clips.clip_id,
                found.labels,
                renumbered=True,
                inertia=found.inertia,
                iterations=found.iterations,
            )
        # Old heads know clusters by other numbers, so they begin anew.
        for i, name in enumerate(HEADS):
            at = jax.random.fold_in(key, 3 + i)
            params = model.with_weights(
                params, name, drawn(at, model.weights(params, name))
            )
        return Relabelled(store.state, store.metrics, params)

    return method._replace(
        relabel=make_relabel(config, relabel, MODALITIES, fresh_heads=tuple(HEADS)),
        clusters=Clusters(clusters, log_probs, by_modality=None),
    )


def drawn(key: jax.Array, like: Linear) -> Linear:
    """A layer as at the start: normal weights of variance 1 / d, no bias."""
    kernel = jax.nn.initializers.lecun_normal()(key, like.kernel.shape)
    return Linear(kernel, jnp.zeros_like(like.bias))


def grouped(
    key: jax.Array, vectors: jax.Array, clip_id: jax.Array, *, clusters: int
) -> KMeans:
    """K-means of vectors whose rows are split over devices."""
    return _grouped(key, vectors, clip_id, clusters, mesh_of(vectors))


@partial(jax.jit, static_argnames=("clusters", "mesh"))
def _grouped(
    key: jax.Array, vectors: jax.Array, clip_id: jax.Array, clusters: int, mesh: Any
) -> KMeans:
    def local(key: jax.Array, x: jax.Array, clip_id: jax.Array) -> KMeans:
        row_mass = (clip_id >= 0).astype(jnp.float32)
        return kmeans(
            key,
            unit_length(x, row_mass, axis_name="data"),
            clusters=clusters,
            row_mass=row_mass,
            row_id=clip_id,
            axis_name="data",
        )

    out: Any = dict.fromkeys(KMeans._fields, EVERYWHERE) | {"labels": ROWS}
    split = jax.shard_map(
        local, mesh=mesh, in_specs=(EVERYWHERE, ROWS, ROWS), out_specs=KMeans(**out)
    )
    return split(key, vectors, clip_id)
