"""The recurrent audio tower: shapes, types, finite gradients, and a sense of order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.models.recurrent import RecurrentTower
from visxp_jax.models.tower import ConvTower

KEY = jax.random.key(0)


def recurrent(double: bool = False, dtype=jnp.float32) -> RecurrentTower:
    return RecurrentTower(
        width=2,
        double_convolution=double,
        activation="gelu",
        momentum=0.9,
        dtype=dtype,
    )


def started(tower, sound):
    return jax.jit(partial(tower.init, train=False))(KEY, sound)


def applied(tower, variables, sound) -> np.ndarray:
    with promotion(tower.dtype):
        return np.asarray(jax.jit(partial(tower.apply, train=False))(variables, sound))


def promotion(dtype):
    """Flax's BatchNorm itself multiplies bfloat16 by float32 statistics."""
    exact = dtype == jnp.float32
    return jax.numpy_dtype_promotion("strict" if exact else "standard")


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_recurrent_tower_gives_float32_of_8_widths_and_keeps_weights_float32(
    double, dtype
):
    tower = recurrent(double, dtype)
    sound = jnp.zeros((3, 32, 24, 1))
    apply = partial(tower.apply, train=False)
    with promotion(dtype):
        variables = jax.eval_shape(partial(tower.init, train=False), KEY, sound)
        out = jax.eval_shape(apply, variables, sound)
    assert out.shape == (3, 16)
    assert out.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert ("conv3B" in variables["params"]) == double


def test_recurrent_tower_computes_in_bfloat16_when_asked():
    sound = jax.random.normal(jax.random.key(1), (3, 32, 24, 1))
    variables = started(recurrent(), sound)
    exact, rough = (
        applied(recurrent(dtype=dtype), variables, sound)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    np.testing.assert_allclose(rough, exact, atol=0.05)
    assert not np.array_equal(rough, exact)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_recurrent_tower_has_finite_gradients_for_silence(dtype):
    tower = recurrent(dtype=dtype)
    silent = jnp.zeros((3, 32, 24, 1))
    variables = started(recurrent(), silent)

    def loss(params, x):
        out, _ = tower.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum((out - 1.0) ** 2)

    with promotion(dtype):
        grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], silent)
    for grad in jax.tree.leaves(grads):
        assert np.isfinite(np.asarray(grad)).all()
    assert max(np.abs(g).max() for g in jax.tree.leaves(grads[0])) > 0


def test_recurrent_tower_tells_the_order_of_events_that_pooling_does_not():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 16, 8, 1)).astype(np.float32)
    sounds = np.zeros((2, 16, 256, 1), np.float32)
    # 96 steps apart: beyond the view of the convolutions, a multiple of all strides.
    sounds[0, :, 64:72], sounds[0, :, 160:168] = first, second
    sounds[1, :, 64:72], sounds[1, :, 160:168] = second, first
    pooled = ConvTower(
        width=2,
        double_convolution=False,
        activation="gelu",
        last_pool=None,
        momentum=0.9,
    )
    for tower, tells in ((recurrent(), True), (pooled, False)):
        a, b = applied(tower, started(tower, sounds), sounds)
        assert (np.abs(a - b).max() > 1e-5) == tells


def test_recurrent_tower_reads_a_quarter_of_the_frames_in_both_directions():
    tower = recurrent()
    sound = jax.random.normal(jax.random.key(1), (1, 32, 64, 1))
    variables = started(tower, sound)

    @jax.jit
    def apply(sound):
        return tower.apply(variables, sound, train=False, capture_intermediates=True)

    def read(sound):
        seen = apply(sound)[1]["intermediates"]
        return [np.asarray(seen[n]["__call__"][0][0]) for n in ("forward", "backward")]

    forward, backward = read(sound)
    assert forward.shape == backward.shape == (16, 8)
    forward_late, backward_late = read(sound.at[:, :, 48:].add(1.0))
    np.testing.assert_array_equal(forward[:8], forward_late[:8])
    assert (np.abs(backward[:8] - backward_late[:8]).max(axis=1) > 0).any()
    forward_early, backward_early = read(sound.at[:, :, :16].add(1.0))
    np.testing.assert_array_equal(backward[8:], backward_early[8:])
    assert (np.abs(forward[8:] - forward_early[8:]).max(axis=1) > 0).any()
