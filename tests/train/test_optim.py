"""The optimiser against its recipe, worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from visxp_jax.config import OptimConfig
from visxp_jax.train.optim import forget, make_optimizer

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0, 0.5])}
GRADS = {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-0.2, 0.4])}
DECAY = 0.1


def updates(name: str, count: int, *, warmup: int = 0, steps: int = 10):
    """Updates of `count` steps with the same gradients; the weights stay."""
    config = OptimConfig(name, 0.5, warmup, DECAY)
    optimizer = make_optimizer(config, steps)
    state, found = optimizer.init(PARAMS), []
    for _ in range(count):
        change, state = optimizer.update(GRADS, state, PARAMS)
        found.append(jax.device_get(change))
    return found


def rate(step: int, *, steps: int = 10) -> float:
    return 0.5 * 0.5 * (1 + np.cos(np.pi * step / steps))


def decayed() -> dict[str, np.ndarray]:
    """L2 is part of the gradient, for kernels alone."""
    kernel = np.asarray(GRADS["kernel"]) + DECAY * np.asarray(PARAMS["kernel"])
    return {"kernel": kernel, "bias": np.asarray(GRADS["bias"])}


def test_sgd_has_momentum_and_l2_on_kernels():
    for i, found in enumerate(updates("sgd", 4)):
        gathered = sum(0.9**j for j in range(i + 1))
        for leaf, grad in decayed().items():
            expected = -rate(i) * gathered * grad
            np.testing.assert_allclose(found[leaf], expected, rtol=1e-5)


def test_adam_takes_l2_into_its_moments():
    # Of a constant gradient the corrected moments are g and g^2: a step is rate * sign.
    for i, found in enumerate(updates("adam", 4)):
        for leaf, grad in decayed().items():
            expected = -rate(i) * grad / (np.abs(grad) + 1e-8)
            np.testing.assert_allclose(found[leaf], expected, rtol=1e-4)


@pytest.mark.parametrize(("warmup", "steps"), [(4, 10), (20, 10), (0, 10), (10, 10)])
def test_rate_rises_to_its_peak_and_falls_to_zero(warmup, steps):
    found = updates("adam", steps + 2, warmup=warmup, steps=steps)
    rates = np.array([np.abs(change["bias"]).max() for change in found])
    rise = min(warmup, steps)
    np.testing.assert_allclose(rates[:rise], 0.5 * np.arange(rise) / max(rise, 1), 1e-4)
    assert rates.max() <= 0.5 * (1 + 1e-4)
    assert (np.diff(rates[rise:]) <= 1e-7).all()
    if warmup < steps:
        assert rates[rise] == pytest.approx(0.5, rel=1e-4)
        assert rates[steps] == pytest.approx(0, abs=1e-6)


def test_weights_follow_the_updates():
    optimizer = make_optimizer(OptimConfig("sgd", 0.5, 0, 0.0), 10)
    change, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    new = optax.apply_updates(PARAMS, change)
    np.testing.assert_allclose(new["bias"], PARAMS["bias"] - 0.5 * GRADS["bias"], 1e-6)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_parameters_that_begin_anew_take_the_steps_of_a_new_optimiser(name):
    config = OptimConfig(name, 0.1, warmup_steps=0, weight_decay=0.0)
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    optimizer = make_optimizer(config, 1000, fresh={"a": True, "b": False})
    plain = make_optimizer(config, 1000)
    state, expected = optimizer.init(params), plain.init(params)
    grads = {"a": jnp.array([1.0, -2, 3]), "b": jnp.array([1.0, -2, 3])}
    for _ in range(50):
        moves, state = optimizer.update(grads, state, params)
        same, expected = plain.update(grads, expected, params)
        for key in params:
            np.testing.assert_allclose(moves[key], same[key], rtol=1e-6)
    state = forget(optimizer, state, params)
    small = {"a": 0.01 * grads["a"], "b": grads["b"]}
    moves, _ = optimizer.update(small, state, params)
    same, _ = plain.update(grads, expected, params)
    np.testing.assert_allclose(moves["b"], same["b"], rtol=1e-6)
    rate = 0.1 * 0.5 * (1 + np.cos(np.pi * 50 / 1000))  # the schedule goes on
    first = np.sign(grads["a"]) if name == "adam" else small["a"]
    np.testing.assert_allclose(moves["a"], -rate * first, rtol=1e-4)
