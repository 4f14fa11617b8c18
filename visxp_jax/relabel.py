"""Making labels anew during a stage: a pass over the clips, then its method's part."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from visxp_jax.augment import augment
from visxp_jax.features import LabelPass
from visxp_jax.methods import Method
from visxp_jax.progress import progress_bar
from visxp_jax.session import Session
from visxp_jax.sharding import everywhere
from visxp_jax.train.loop import Preempted
from visxp_jax.train.step import TrainState
from visxp_jax.types import Batch, ClipVectors

PyTree = Any


class Relabeller:
    """Makes labels anew for one stage.

    Attributes:
        samples: Whether batches depend on labels, see `resample`.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        method: Method,
        optimizer: optax.GradientTransformation,
        shardings: TrainState,
        first_step: int,
    ) -> None:
        """Compile on first use."""
        assert method.relabel is not None  # noqa: S101  (the caller looked)
        config = session.config
        section = config.stage(name)
        self._session, self._relabel = session, method.relabel
        self._optimizer, self._shardings = optimizer, shardings
        self._first_step, self._number = first_step, config.stages.index(name)
        self.samples = method.relabel.sampling is not None
        usable = session.dataset.num_usable("train")
        self._num_batches = -(-usable // config.data.batch_size)
        self._pass = LabelPass(
            session.model,
            session.mesh,
            method.relabel.vectors,
            num_batches=self._num_batches,
            dtype=section.feature_dtype,
            train=section.train_mode_pass,
            augment=partial(augment, config=config.data)
            if section.augmented_pass
            else None,
        )

    def __call__(self, state: TrainState) -> tuple[TrainState, dict[str, float]]:
        """New labels for the state's parameters.

        Raises:
            Preempted: a signal came; the state is as it was.
        """
        step = int(state.step) - self._first_step
        key = jax.random.fold_in(
            jax.random.key(self._session.config.seed), int(state.step)
        )

        def encode(key: jax.Array) -> ClipVectors:
            return self._pass(state.params, state.model_state, self._batches(), key)

        result = self._relabel.make(
            state.params,
            state.method_state,
            encode,
            key,
            self._relabel.steps.index(step),
        )
        params = jax.device_put(result.params, self._shardings.params)
        method_state = jax.device_put(result.method_state, self._shardings.method_state)
        state = state._replace(
            params=params,
            method_state=method_state,
            opt_state=forget(
                self._optimizer,
                state.opt_state,
                self._session.model.is_head(params, result.fresh_heads),
            ),
        )
        return state, result.metrics

    def _batches(self) -> Iterator[Batch]:
        """All training clips once, until a signal comes."""
        session = self._session
        batches = session.reader.ordered("train", batch_size=session.host_batch)
        with progress_bar(
            total=self._num_batches, desc="labels", unit="batch", leave=False
        ) as bar:
            for number, batch in enumerate(batches):
                if session.stop.agreed(number):
                    raise Preempted("stopped while labels were made, and saved")
                yield batch
                bar.update()

    def resample(self, state: TrainState) -> Iterator[Batch]:
        """Batches in which every label is seen as often, from the state's step on."""
        assert self._relabel.sampling is not None  # noqa: S101  (the caller looked)
        session = self._session
        step = int(state.step) - self._first_step
        made = max(at for at in self._relabel.steps if at <= step)
        weights = jax.jit(
            self._relabel.sampling, out_shardings=everywhere(session.mesh)
        )(state.method_state)
        return session.reader.train(
            batch_size=session.host_batch,
            seed=(session.config.seed * 1000 + self._number) * 10_000 + made,
            start=step - made,
            weights=np.asarray(weights),
        )


def forget(
    optimizer: optax.GradientTransformation, opt_state: PyTree, fresh: PyTree
) -> PyTree:
    """Set the moments of parameters that begin anew to 0.

    Args:
        optimizer: Of the stage.
        opt_state: Its state.
        fresh: Tree of bools, like the parameters.
    """
    return optax.tree.map_params(
        optimizer, lambda x, fresh: jnp.zeros_like(x) if fresh else x, opt_state, fresh
    )
