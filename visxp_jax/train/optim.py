"""Optimiser of one stage."""

import optax

from visxp_jax.config import OptimConfig


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Warm-up, half a cosine to zero, L2 on kernels.

    Weight decay is added to the gradient before the moments, as torch's Adam and SGD
    do in the published recipes; this is not AdamW. Biases and BatchNorm are spared.

    Args:
        config: The stage's section `optim`.
        steps: Length of the stage.

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
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=_kernels),
        scale,
        optax.scale_by_learning_rate(rate),
    )


def _kernels(params: optax.Params) -> optax.Params:
    import jax

    return jax.tree.map(lambda p: p.ndim > 1, params)
