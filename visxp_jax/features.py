"""Run the encoders over clips: vectors for labels, and for probes and search."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.models.bind import Model
from visxp_jax.sharding import (
    EVERYWHERE,
    ROWS,
    compiler_options,
    everywhere,
    rows,
    to_global,
)
from visxp_jax.types import Batch, ClipVectors, Features


class Encoder:
    """Compiled embedding of batches, in eval mode, without augmentation."""

    def __init__(self, model: Model, mesh: jax.sharding.Mesh) -> None:
        """Compile on first use, once per batch shape."""
        self._mesh = mesh

        def encode(params: Any, model_state: Any, batch: Batch) -> tuple:
            (video, audio), _ = model.embed(
                params, model_state, batch.frame, batch.log_mel, train=False
            )
            rows = (batch.clip_id, batch.video_id, batch.label)
            return *rows, video, audio, model.fuse(params, video, audio)

        # Results are copied to all hosts: each then holds every clip's features.
        self._encode = jax.jit(
            encode,
            out_shardings=everywhere(mesh),
            compiler_options=compiler_options(),
        )

    def __call__(
        self,
        params: Any,
        model_state: Any,
        batches: Iterable[Batch],
        *,
        every: int = 1,
    ) -> Features:
        """Features of the clips in `batches`, sorted by clip_id.

        Args:
            params: Of the model.
            model_state: Running statistics.
            batches: This host's rows; rows with clip_id < 0 are left out.
            every: Of more clips than are needed, those are kept whose clip_id this
                divides.

        Returns:
            `Features` on the host; the device works one batch ahead.

        Raises:
            VisxpError: some feature is not finite.
        """
        parts = [
            Features(*(x[found.clip_id % every == 0] for x in found))
            for found in self.each(params, model_state, batches)
        ]
        if not parts:
            raise ValueError("there are no clips to encode.")
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return Features(*(column[order] for column in columns))

    def each(
        self, params: Any, model_state: Any, batches: Iterable[Batch]
    ) -> Iterator[Features]:
        """Features of batch after batch; the device works one ahead of who takes them.

        Args:
            params: Of the model.
            model_state: Running statistics.
            batches: Of one shape; rows with clip_id < 0 are left out.

        Raises:
            VisxpError: some feature is not finite.
        """
        waiting = None
        for batch in batches:
            small = batch._replace(log_mel=batch.log_mel.astype(jnp.float16))
            result = self._encode(params, model_state, to_global(small, self._mesh))
            if waiting is not None:
                yield _features(waiting)
            waiting = result
        if waiting is not None:
            yield _features(waiting)


def _features(result: tuple[jax.Array, ...]) -> Features:
    columns = jax.device_get(result)
    found = Features(*(column[columns[0] >= 0] for column in columns))
    if not all(np.isfinite(x).all() for x in found[3:]):
        raise VisxpError(
            "the networks must give finite values, but did not: the weights have "
            "grown too large; train again with a lower learning rate."
        )
    return found


def without_blanks(batch: Batch) -> Batch:
    """With clips over again where rows fill up, still by id -1.

    BatchNorm by the batch would see blank frames and silence otherwise.
    """
    real = batch.clip_id >= 0
    if real.all() or not real.any():
        return batch
    at = np.flatnonzero(real)[np.arange(batch.size) % real.sum()]
    at = np.where(real, np.arange(batch.size), at)
    return batch._replace(frame=batch.frame[at], log_mel=batch.log_mel[at])


class LabelPass:
    """Compiled pass over all training clips whose vectors stay on the devices.

    Each device keeps those that it computed: nothing crosses between devices, but for
    BatchNorm's sums if `train` is set, and all that the host holds is two batches.
    """

    def __init__(
        self,
        model: Model,
        mesh: jax.sharding.Mesh,
        names: tuple[str, ...],
        *,
        num_batches: int,
        dtype: str,
        train: bool = False,
        augment: Callable[[jax.Array, Batch], Batch] | None = None,
    ) -> None:
        """Compile on first use.

        Args:
            model: The bound network.
            mesh: Devices.
            names: Of the vectors that are kept: 'video', 'audio', 'fused'.
            num_batches: Of one pass.
            dtype: In which they are kept.
            train: BatchNorm goes by the batch, not by running statistics.
            augment: (key, batch) -> batch, on device; None for clips as they are.
        """
        self._mesh = mesh
        place = jax.shard_map(
            lambda kept, new, at: jax.lax.dynamic_update_slice_in_dim(
                kept, new.astype(kept.dtype), at * new.shape[0], axis=0
            ),
            mesh=mesh,
            in_specs=(ROWS, ROWS, EVERYWHERE),
            out_specs=ROWS,
        )

        def encode(params: Any, model_state: Any, batch: Batch) -> ClipVectors:
            (video, audio), _ = model.embed(
                params, model_state, batch.frame, batch.log_mel, train=train
            )
            found = {"video": video, "audio": audio}
            if "fused" in names:
                found["fused"] = model.fuse(params, video, audio)
            return ClipVectors(batch.clip_id, {name: found[name] for name in names})

        def add(
            kept: ClipVectors,
            at: jax.Array,
            key: jax.Array,
            params: Any,
            model_state: Any,
            batch: Batch,
        ) -> tuple[ClipVectors, jax.Array]:
            if augment is not None:
                batch = augment(jax.random.fold_in(key, at), batch)
            new = encode(params, model_state, batch)
            return jax.tree.map(lambda x, y: place(x, y, at), kept, new), at

        def nothing(params: Any, model_state: Any, batch: Batch) -> ClipVectors:
            one = jax.eval_shape(encode, params, model_state, batch)
            n = num_batches * batch.size
            vectors = {
                name: jnp.zeros((n, x.shape[1]), dtype)
                for name, x in one.vectors.items()
            }
            return ClipVectors(jnp.full(n, -1, jnp.int32), vectors)

        placed = rows(mesh)
        self._add = jax.jit(
            add,
            donate_argnums=0,
            out_shardings=(placed, None),
            compiler_options=compiler_options(),
        )
        self._nothing = jax.jit(nothing, out_shardings=placed)

    def __call__(
        self, params: Any, model_state: Any, batches: Iterable[Batch], key: jax.Array
    ) -> ClipVectors:
        """Vectors of every clip in `batches`.

        Args:
            params: Of the model.
            model_state: Running statistics.
            batches: This host's rows; rows with clip_id < 0 stay, by that id.
            key: Of the augmentation.
        """
        kept, done = None, None
        for at, batch in enumerate(batches):
            small = batch._replace(log_mel=batch.log_mel.astype(jnp.float16))
            placed = to_global(without_blanks(small), self._mesh)
            if kept is None:
                kept = self._nothing(params, model_state, placed)
            kept, doing = self._add(
                kept, jnp.int32(at), key, params, model_state, placed
            )
            if done is not None:  # the host reads one batch ahead, no more
                done.block_until_ready()
            done = doing
        if kept is None:
            raise ValueError("there are no clips to encode.")
        return kept
