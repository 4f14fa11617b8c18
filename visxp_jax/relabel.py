"""Making labels anew during a stage: a pass over the clips, then its method's part."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

from visxp_jax.augment import augment
from visxp_jax.features import LabelPass
from visxp_jax.methods import Method
from visxp_jax.methods.base import Encoding
from visxp_jax.progress import progress_bar
from visxp_jax.session import Session
from visxp_jax.sharding import everywhere
from visxp_jax.train.loop import Preempted
from visxp_jax.train.optim import forget
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
        self._first_step, self._stage = first_step, config.stages.index(name)
        # No key of a stage, which are the seed's with small numbers.
        self._key = jax.random.fold_in(jax.random.key(config.seed), 1_000 + first_step)
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
        making = self._relabel

        def encode(key: jax.Array) -> ClipVectors:
            return self._pass(state.params, state.model_state, self._batches(), key)

        number = making.steps.index(int(state.step) - self._first_step)
        passes = Encoding(encode, partial(self._pause, 0))
        result = making.make(
            state.params, state.method_state, passes, self._key, number
        )
        state = state._replace(
            params=jax.device_put(result.params, self._shardings.params),
            method_state=jax.device_put(
                result.method_state, self._shardings.method_state
            ),
        )
        if making.fresh_heads:
            opt_state = forget(self._optimizer, state.opt_state, state.params)
            opt_state = jax.device_put(opt_state, self._shardings.opt_state)
            state = state._replace(opt_state=opt_state)
        return state, result.metrics

    def _pause(self, turn: int) -> None:
        if self._session.stop.agreed(turn):
            raise Preempted("stopped while labels were made, and saved")

    def _batches(self) -> Iterator[Batch]:
        """All training clips once, until a signal comes."""
        session = self._session
        batches = session.reader.ordered("train", batch_size=session.host_batch)
        with progress_bar(
            total=self._num_batches, desc="labels", unit="batch", leave=False
        ) as bar:
            for number, batch in enumerate(batches):
                self._pause(number)
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
        # Readers want 30 bits at most.
        about = (session.config.seed, self._stage, made)
        seed = int(np.random.SeedSequence(about).generate_state(1)[0]) >> 2
        return session.reader.train(
            batch_size=session.host_batch,
            seed=seed,
            start=step - made,
            weights=np.asarray(weights),
        )
