"""Run the encoders over clips: frozen features for labels, probes and search."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.models.bind import Model
from visxp_jax.sharding import compiler_options, everywhere, to_global
from visxp_jax.types import Batch, Features


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
        self, params: Any, model_state: Any, batches: Iterable[Batch]
    ) -> Features:
        """Features of every clip in `batches`, sorted by clip_id.

        Args:
            params: Of the model.
            model_state: Running statistics.
            batches: This host's rows; rows with clip_id < 0 are left out.

        Returns:
            `Features` on the host; the device works one batch ahead.

        Raises:
            VisxpError: some feature is not finite.
        """
        parts, waiting = [], None
        for batch in batches:
            small = batch._replace(log_mel=batch.log_mel.astype(jnp.float16))
            result = self._encode(params, model_state, to_global(small, self._mesh))
            if waiting is not None:
                parts.append(jax.device_get(waiting))
            waiting = result
        if waiting is not None:
            parts.append(jax.device_get(waiting))
        if not parts:
            raise ValueError("there are no clips to encode.")
        if not all(np.isfinite(x).all() for part in parts for x in part[3:]):
            raise VisxpError(
                "the networks must give finite values, but did not: the weights have "
                "grown too large; train again with a lower learning rate."
            )
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        order = order[np.sum(columns[0] < 0) :]
        return Features(*(column[order] for column in columns))
