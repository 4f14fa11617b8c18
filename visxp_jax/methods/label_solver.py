"""Self-labelling's labels, computed on rows that are split over devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from visxp_jax.config import SelflabelConfig, ShhcConfig
from visxp_jax.losses import (
    Equipartition,
    assign_in_blocks,
    balanced_kmeans,
    directions,
    disagreement,
    equipartition,
    equipartition_in_blocks,
    gaussian_cluster_mass,
    unit_length,
)
from visxp_jax.losses.blocks import map_in_blocks, sum_in_blocks
from visxp_jax.memory import logits_fit
from visxp_jax.methods.base import Vectors
from visxp_jax.models.bind import Linear
from visxp_jax.sharding import EVERYWHERE, ROWS, mesh_of

HIGHEST = jax.lax.Precision.HIGHEST
BLOCK = 4096  # rows at a time, where logits of all do not fit
# Matrices of heads, where each modality has its own.
VIDEO, AUDIO = "clusters_video", "clusters_audio"


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
    # Of millions, some draws are equal: those go by their names.
    order = jnp.lexsort((clip_id, chance, clip_id < 0))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    return (rank % clusters).astype(jnp.int32)


class LabelSolver:
    """Compiled work on rows that are split over devices; only [k] and [k, k] cross."""

    def __init__(
        self,
        config: SelflabelConfig | ShhcConfig,
        score: Callable[[Any, Vectors], jax.Array] = mean_log_probs,
    ) -> None:
        """Compile on first use.

        Args:
            config: Of the stage.
            score: (weights, rows) -> float32 [b, k], log probabilities of one head.
        """
        self._config = config
        self._score = score
        self._sizes = getattr(config, "sizes", "equal")
        self.label = self._over_rows(self._label, (ROWS, EVERYWHERE))
        self.group = self._over_rows(self._group, (ROWS, EVERYWHERE))
        self.similarity = self._over_rows(self._similarity, EVERYWHERE)
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
        weights: Any,
        rows: Vectors,
        clip_id: jax.Array,
        rest: tuple[jax.Array],
    ) -> tuple[jax.Array, Equipartition]:
        """Labels of one head by its logits."""
        row_mass = (clip_id >= 0).astype(jnp.float32)
        config = self._config
        score = partial(self._score, weights)
        cluster_mass = None
        if self._sizes != "equal":
            claims = _claims(score, rows, row_mass)
        if self._sizes == "gaussian":
            cluster_mass = gaussian_cluster_mass(rest[0], claims)
        how: dict[str, Any] = {
            "sharpness": config.sharpness,
            "cluster_mass": cluster_mass,
            "row_mass": row_mass,
            "axis_name": "data",
        }
        if self._sizes == "free":
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

    def _similarity(
        self,
        fits: bool,
        nothing: None,
        rows: Vectors,
        clip_id: jax.Array,
        rest: tuple[()],
    ) -> jax.Array:
        """(1 + cosine) / 2 of the clusters' mean unit vectors, [k, k].

        The mean of modalities where there are several. `rows` has the labels as ''.
        """
        del fits, nothing, rest

        def of_block(rows: Vectors, mass: jax.Array) -> Vectors:
            share = jax.nn.one_hot(rows[""], self._config.clusters) * mass[:, None]
            return {
                name: jnp.matmul(share.T, directions(x), precision=HIGHEST)
                for name, x in rows.items()
                if name
            }

        mass = (clip_id >= 0).astype(jnp.float32)
        sums = sum_in_blocks(of_block, rows, mass, block=BLOCK, axis_name="data")
        units = [directions(x) for x in sums.values()]
        cosines = [jnp.matmul(x, x.T, precision=HIGHEST) for x in units]
        return (1 + sum(cosines[1:], cosines[0]) / len(cosines)) / 2

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
