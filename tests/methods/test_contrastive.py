"""The common space: what is logged, what is learnt, and who has which heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import contrastive as config_file
from tests.small import (
    assert_same_on_1_and_8_devices,
    small_batch,
    small_config,
    small_model,
    small_stage,
)
from visxp_jax.config import from_dict, to_dict
from visxp_jax.errors import VisxpError
from visxp_jax.methods import all_heads
from visxp_jax.methods.contrastive import has_common_space, in_common_space
from visxp_jax.sharding import make_mesh, to_global
from visxp_jax.types import Batch

# Colours and pitches are what pairs are told by.
PLAIN = {f"data.{name}": 0.0 for name in ("colour", "brightness", "gain", "mask")}
PLAIN |= {"data.crop": 1.0, "data.roll": False}


def config(**changes):
    values = config_file.get_config("debug")
    values.update_from_flattened_dict(changes)
    return from_dict(values)


def kinds(size: int = 16) -> Batch:
    """Clips of as many kinds: each has a colour of its own, and a loudness of bands."""
    batch = small_batch(size)
    first, second = np.arange(size) % 4, np.arange(size) // 4
    frame = np.zeros_like(batch.frame)
    frame[..., 0] = 80 * first[:, None, None]
    frame[..., 2] = 80 * second[:, None, None]
    sound = np.zeros_like(batch.log_mel)
    sound[:, :8] = first[:, None, None] - 1.5
    sound[:, 8:] = second[:, None, None] - 1.5
    return batch._replace(frame=frame, log_mel=sound)


@pytest.mark.parametrize("representation", [0.0, 0.25])
def test_terms_are_weighted_and_logged_beside_chance(representation):
    changes = {"contrastive.representation": representation}
    mesh = make_mesh(jax.devices()[:1])
    method, step, state = small_stage(config(**changes), "contrastive", mesh)
    _, metrics = step(state, to_global(small_batch(), mesh), jax.random.key(7))
    terms = {"contrastive": 1.0} | ({"representation": 0.25} if representation else {})
    total = sum(weight * metrics[f"loss/{term}"] for term, weight in terms.items())
    np.testing.assert_allclose(metrics["loss/total"], total, rtol=1e-5)
    chance = sum(w * method.chance[f"loss/{term}"] for term, w in terms.items())
    assert method.chance["loss/total"] == pytest.approx(chance)
    logged = {name for name in metrics if name not in ("gradient_norm", "finite")}
    assert logged == set(method.chance)
    assert method.chance["loss/contrastive"] == pytest.approx(np.log(16))
    assert method.chance["common_accuracy"] == 1 / 16


def test_step_same_on_1_and_8_devices():
    def make(devices: int):
        mesh = make_mesh(jax.devices()[:devices])
        made = config(**{"contrastive.optim.name": "sgd"})
        return *small_stage(made, "contrastive", mesh)[1:], mesh

    # The momentum is of order 1, of a loss that the temperature makes steep.
    assert_same_on_1_and_8_devices(make, atol=3e-5)


def test_training_lowers_the_loss_and_ranks_own_sounds_first():
    rate = {"contrastive.steps": 120, "contrastive.optim.learning_rate": 0.01}
    made = config(**PLAIN, **rate, **{"contrastive.representation": 0.0})
    mesh = make_mesh(jax.devices()[:1])
    method, step, state = small_stage(made, "contrastive", mesh)
    batch, losses = to_global(kinds(), mesh), []
    for _ in range(120):
        state, metrics = step(state, batch, jax.random.key(7))
        losses.append(float(metrics["loss/contrastive"]))
    assert np.mean(losses[-10:]) < 0.5 * method.chance["loss/contrastive"]
    # As it is used, by running statistics.
    model = small_model(made)
    (video, audio), _ = model.embed(
        state.params, state.model_state, batch.frame, batch.log_mel, train=False
    )
    space = {
        name: in_common_space(model, state.params, name, vectors)
        for name, vectors in (("video", video), ("audio", audio))
    }
    np.testing.assert_allclose(jnp.linalg.norm(space["video"], axis=1), 1, rtol=1e-5)
    nearest = np.asarray(space["video"] @ space["audio"].T).argmax(axis=1)
    assert np.mean(nearest == np.arange(16)) > 0.5  # chance 1 / 16


def test_who_has_which_heads():
    assert set(all_heads(config())) == {"avc", "common_video", "common_audio"}
    alone = all_heads(config(**{"contrastive.representation": 0.0}))
    assert set(alone) == {"common_video", "common_audio"}
    assert has_common_space(alone)
    assert alone["common_audio"] == (8, "audio")
    # After another stage: one network has the heads of both.
    values = to_dict(small_config()) | {"stages": ("avc", "contrastive")}
    both = from_dict(
        {**values, "contrastive": config_file.get_config("debug").contrastive}
    )
    assert set(all_heads(both)) == {"avc", "common_video", "common_audio"}
    assert not has_common_space(all_heads(small_config()))


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("steps", 0, "at least 1"),
        ("dimensions", 1, "at least 2"),
        ("temperature", 0.0, ">= 0.001"),
        ("representation", -1.0, "not negative"),
        ("shifts", 0, "at least 1"),
        ("shifts", 16, "less than data.batch_size=16"),
    ],
)
def test_settings_that_cannot_be_are_refused(key, value, line):
    with pytest.raises(VisxpError, match=f"contrastive.{key} must be .*{line}"):
        config(**{f"contrastive.{key}": value})
