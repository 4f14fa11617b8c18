"""The one step: same numbers on any number of devices, and it survives NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small import (
    assert_same_on_1_and_8_devices,
    small_batch,
    small_config,
    small_stage,
)
from visxp_jax.sharding import make_mesh, to_global


@pytest.mark.parametrize("stage", ["avc", "selflabel"])
def test_step_same_loss_gradient_and_weights_on_1_and_8_devices(stage):
    def make(devices: int):
        mesh = make_mesh(jax.devices()[:devices])
        config = small_config(**{f"{stage}.optim.name": "sgd"})
        _, step, state = small_stage(config, stage, mesh)
        if stage == "selflabel":
            labels = jax.random.randint(jax.random.key(3), (16, 1, 2), 0, 4)
            labels = jax.device_put(labels, state.method_state["labels"].sharding)
            state = state._replace(method_state={"labels": labels})
        return step, state, mesh

    assert_same_on_1_and_8_devices(make)


@pytest.mark.parametrize(
    ("stage", "weights"),
    [
        ("avc", {"representation": 1.0, "regularisation": 0.5}),
        (
            "selflabel",
            {"clustering": 3.0, "representation": 0.25, "regularisation": 2.0},
        ),
    ],
)
def test_total_is_the_weighted_sum_of_the_terms_and_each_has_a_chance_level(
    stage, weights
):
    given = weights if stage == "selflabel" else {"regularisation": 0.5}
    config = small_config(**{f"{stage}.{term}": w for term, w in given.items()})
    mesh = make_mesh(jax.devices()[:1])
    method, step, state = small_stage(config, stage, mesh)
    if stage == "selflabel":
        labels = jnp.tile(jnp.arange(4), 8).reshape(16, 1, 2)
        state = state._replace(method_state={"labels": labels})
    _, metrics = step(state, to_global(small_batch(), mesh), jax.random.key(7))
    total = sum(w * metrics[f"loss/{term}"] for term, w in weights.items())
    assert all(metrics[f"loss/{term}"] > 1e-3 for term in weights)
    np.testing.assert_allclose(metrics["loss/total"], total, rtol=1e-5)
    chance = method.chance
    assert {name for name in metrics if name.startswith("loss/")} <= chance.keys()
    assert chance["loss/regularisation"] == 1 / (config.data.batch_size - 1)
    total = sum(w * chance.get(f"loss/{term}", 0.0) for term, w in weights.items())
    assert chance["loss/total"] == pytest.approx(total)


def test_augmentation_differs_from_step_to_step_and_depends_on_the_step_alone():
    config = small_config(**{"avc.optim.learning_rate": 1e-30})
    mesh = make_mesh(jax.devices()[:1])
    batch = to_global(small_batch(), mesh)
    _, step, begin = small_stage(config, "avc", mesh)
    begin = jax.device_get(begin)

    def losses(first: int) -> list[float]:
        # The same statistics at every step: only what is drawn may differ.
        kept = begin.model_state
        state, found = begin._replace(step=jnp.int32(first)), []
        for _ in range(3):
            state, metrics = step(state, batch, jax.random.key(7))
            state = state._replace(model_state=kept)
            found.append(float(metrics["loss/total"]))
        return found

    begun = losses(0)
    assert len(set(begun)) == 3
    assert losses(1)[:2] == begun[1:]


def test_step_lowers_the_loss_on_clips_that_correspond():
    config = small_config(**{"avc.steps": 100, "avc.optim.learning_rate": 0.02})
    mesh = make_mesh(jax.devices()[:1])
    _, step, state = small_stage(config, "avc", mesh)
    batch = to_global(small_batch(), mesh)
    losses = []
    for _ in range(100):
        state, metrics = step(state, batch, jax.random.key(7))
        losses.append(metrics["loss/total"])
    # Two kinds of clips: half of the mismatched pairs cannot be told from matches.
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])


def test_step_that_is_not_finite_changes_nothing_but_the_counters():
    bad = small_batch()
    bad.log_mel[3, 0, 0] = np.nan
    config = small_config()
    mesh = make_mesh(jax.devices()[:1])
    _, step, state = small_stage(config, "avc", mesh)
    before = jax.device_get(state)
    after, metrics = step(state, to_global(bad, mesh), jax.random.key(0))
    assert metrics["finite"] == 0
    assert int(after.step) == 1
    assert int(after.skipped) == 1
    for name in ("params", "model_state", "opt_state"):
        old, new = getattr(before, name), getattr(after, name)
        assert jax.tree.all(jax.tree.map(lambda a, b: jnp.all(a == b), old, new))
