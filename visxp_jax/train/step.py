"""The training step: one, for all methods."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from visxp_jax.methods import Method
from visxp_jax.methods.base import SHARED
from visxp_jax.sharding import compiler_options, everywhere, rows
from visxp_jax.types import Batch

PyTree = Any


class TrainState(NamedTuple):
    """Everything that a step changes, and all that a checkpoint must hold."""

    step: jax.Array  # int32 [], over all stages
    skipped: jax.Array  # int32 [], steps left out because something was not finite
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    method_state: PyTree


Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def state_sharding(state: TrainState, mesh: Mesh) -> TrainState:
    """Placements of a state: copied, but the method's arrays of clips are split."""
    copied = everywhere(mesh)
    split = rows(mesh)
    shardings = jax.tree.map(lambda _: copied, state)
    return shardings._replace(
        method_state={
            name: jax.tree.map(
                lambda _, name=name: copied if name == SHARED else split, part
            )
            for name, part in state.method_state.items()
        }
    )


def make_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    augment: Callable[[jax.Array, Batch], Batch],
    shardings: TrainState,
) -> Step:
    """Compiled step (state, batch, key) -> (state, metrics); the state is donated.

    A step whose loss or gradient is not finite changes nothing but the two counters,
    and reports `finite` = 0. Randomness depends on the key and the step number alone,
    so that a resumed run repeats it.

    Args:
        method: Loss and state.
        optimizer: From `make_optimizer`.
        augment: (key, batch) -> batch, on device.
        shardings: From `state_sharding`; pinned on the result, because a placement that
            changed from one step to the next would compile the step again.

    Returns:
        The step.
    """

    def step(
        state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        augment_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = augment(augment_key, batch)

        def loss_of(params: PyTree) -> tuple[jax.Array, Any]:
            return method.loss(
                params, state.model_state, state.method_state, batch, loss_key
            )

        (loss, aux), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params, opt_state, model_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, opt_state, aux.model_state),
            (state.params, state.opt_state, state.model_state),
        )
        state = TrainState(
            step=state.step + 1,
            skipped=state.skipped + (~finite).astype(jnp.int32),
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            method_state=state.method_state,
        )
        metrics = {
            "loss/total": loss,
            **aux.metrics,
            "gradient_norm": norm,
            "finite": finite.astype(jnp.float32),
        }
        return state, metrics

    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=compiler_options(),
    )
