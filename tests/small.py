"""A tiny network, batches and a session's worth of settings, shared by tests."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from configs import selflabel
from visxp_jax.augment import augment
from visxp_jax.config import TrainConfig, from_dict
from visxp_jax.methods import all_heads, make_method
from visxp_jax.models.bind import Model, bind, build_network
from visxp_jax.sharding import to_global
from visxp_jax.train.optim import make_optimizer
from visxp_jax.train.step import TrainState, make_step, state_sharding
from visxp_jax.types import Batch


def small_config(**changes) -> TrainConfig:
    """`configs/selflabel.py:debug` with `section.key=value` changes."""
    config = selflabel.get_config("debug")
    config.update_from_flattened_dict(changes)
    return from_dict(config)


def small_model(config: TrainConfig) -> Model:
    return bind(
        build_network(config.model, all_heads(config)),
        frame_shape=(16, 16, 3),
        log_mel_shape=(16, 32),
    )


def small_batch(size: int = 16, seed: int = 0) -> Batch:
    """Two kinds of clips: bright and loud, dark and quiet."""
    rng = np.random.default_rng(seed)
    kind = np.arange(size) % 2
    frame = rng.integers(0, 60, (size, 16, 16, 3)) + 120 * kind[:, None, None, None]
    sound = rng.normal(0, 0.3, (size, 16, 32)) + 2 * kind[:, None, None] - 1
    return Batch(
        frame=frame.astype(np.uint8),
        log_mel=sound.astype(np.float16),
        clip_id=np.arange(size, dtype=np.int32),
        video_id=np.arange(size, dtype=np.int32),
        label=kind.astype(np.int32),
        weight=np.ones(size, np.float32),
    )


def small_stage(config: TrainConfig, stage: str, mesh, clips: int = 16):
    """(method, step, state) of one stage on a mesh."""
    model = small_model(config)
    method = make_method(config, stage, model)
    section = config.stage(stage)
    optimizer = make_optimizer(section.optim, section.steps)
    params, model_state = jax.jit(model.init)(jax.random.key(0))
    state = TrainState(
        step=jnp.int32(0),
        skipped=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        method_state=method.init_state(clips, jax.random.key(1)),
    )
    shardings = state_sharding(state, mesh)
    state = jax.device_put(state, shardings)
    step = make_step(method, optimizer, partial(augment, config=config.data), shardings)
    return method, step, state


def assert_same_on_1_and_8_devices(make, atol: float = 1e-6) -> None:
    """The same metrics and state by both, and compiled once.

    `make` gives (step, state, mesh) for a number of devices. By SGD: Adam blows the
    rounding of gradients that are truly 0 up to full steps. `atol` is of the state.
    """
    results = []
    for devices in (1, 8):
        step, state, mesh = make(devices)
        batch, history = to_global(small_batch(), mesh), []
        for _ in range(3):
            state, metrics = step(state, batch, jax.random.key(7))
            history.append(jax.device_get(metrics))
        assert step._cache_size() == 1
        results.append((history, jax.device_get(state)))
    (one, state_of_one), (many, state_of_many) = results
    for a, b in zip(one, many, strict=True):
        assert a.keys() == b.keys()
        assert a["finite"] == b["finite"] == 1
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=1e-5)
    leaves = map(jax.tree.leaves, (state_of_one, state_of_many))
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=atol)
