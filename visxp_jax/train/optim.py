"""Optimiser of one stage."""

from typing import Any

import jax
import optax

from visxp_jax.config import OptimConfig

PyTree = Any


def make_optimizer(
    config: OptimConfig, steps: int, *, fresh: PyTree = None
) -> optax.GradientTransformation:
    """Warm-up, half a cosine to zero, L2 on kernels.

    Weight decay is added to the gradient before the moments, as torch's Adam and SGD
    do in the published recipes; this is not AdamW. Biases and BatchNorm are spared.

    Args:
        config: The stage's section `optim`.
        steps: Length of the stage.
        fresh: Tree of bools like the parameters: those that will begin anew during the
            stage. They get moments and a count of their own, for `forget`.

    Returns:
        optax transformation.
    """
    warmup = min(config.warmup_steps, steps)
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
    )
    scale = optax.scale_by_adam() if config.name == "adam" else optax.trace(decay=0.9)
    if fresh is not None:
        names = jax.tree.map(lambda x: FRESH if x else KEPT, fresh)
        scale = optax.partition({FRESH: scale, KEPT: scale}, names)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=_kernels),
        scale,
        optax.scale_by_learning_rate(rate),
    )


# Parts of the optimiser of a stage some of whose parameters begin anew.
FRESH, KEPT = "fresh", "kept"


def forget(
    optimizer: optax.GradientTransformation, opt_state: PyTree, params: PyTree
) -> PyTree:
    """The state with moments and count of the fresh parameters as at the start.

    Were the count kept, Adam would take steps of several times the learning rate.

    Args:
        optimizer: From `make_optimizer`, with `fresh`.
        opt_state: Its state.
        params: Of which some have begun anew.
    """
    at_start: Any = optimizer.init(params)
    decay, scale, rate = opt_state
    inner = scale.inner_states | {FRESH: at_start[1].inner_states[FRESH]}
    return decay, scale._replace(inner_states=inner), rate


def _kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda p: p.ndim > 1, params)
