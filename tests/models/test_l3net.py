"""L3-Net: the paper's number of weights, ReLU, and a last pool that cuts nothing."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import l3net
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.config import ModelConfig, from_dict
from visxp_jax.models.audiovisual import Head
from visxp_jax.models.bind import bind, build_network

PAPER = dataclasses.replace(from_dict(l3net.get_config()).model, dtype="float32")
FRAME = (224, 224, 3)
SOUND = PRESETS["l3net"].shape


def small(**changes) -> ModelConfig:
    return dataclasses.replace(PAPER, width=2, fusion_dim=16, **changes)


def test_l3net_has_the_papers_number_of_weights():
    network = build_network(PAPER, {"avc": Head(2)})
    model = bind(network, frame_shape=FRAME, log_mel_shape=SOUND)
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    count = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in params.items()}
    assert count.pop("video_model") == 4_689_216
    assert count.pop("audio_model") == 4_688_064
    assert sum(count.values()) == 131_458
    assert 4_689_216 + 4_688_064 + 131_458 == 9_508_738


def test_l3net_last_pool_takes_in_the_whole_map_at_the_papers_sizes():
    frame = jax.random.randint(jax.random.key(1), (1, *FRAME), 0, 256, jnp.uint8)
    sound = jax.random.normal(jax.random.key(2), (1, *SOUND))
    params = state = None
    vectors = []
    for pool in ("published", "all"):
        network = build_network(
            small(pool=pool, double_convolution=False), {"avc": Head(2)}
        )
        model = bind(network, frame_shape=FRAME, log_mel_shape=SOUND)
        if params is None:
            params, state = jax.jit(model.init)(jax.random.key(0))
        embed = jax.jit(lambda *x, model=model: model.embed(*x, train=False)[0])
        vectors.append(embed(params, state, frame, sound))
    for published, whole in zip(*vectors, strict=True):
        np.testing.assert_array_equal(published, whole)


@pytest.mark.parametrize("shape", [(257, 199), (257, 197)])
def test_l3net_last_pool_fits_the_spectrograms_of_its_descendants(shape):
    network = build_network(PAPER, {"avc": Head(2)})
    model = bind(network, frame_shape=FRAME, log_mel_shape=shape)
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    assert params["lin1"]["kernel"].shape == (2 * 512, 128)


@pytest.mark.parametrize(("name", "rectified"), [("l3net", True), ("avnet", False)])
def test_l3net_is_rectified_in_towers_and_fusion_and_avnet_is_not(name, rectified):
    config = small(network=name, pool="all", double_convolution=False)
    network = build_network(config, {"avc": Head(2)})
    frame = jax.random.randint(jax.random.key(1), (4, 16, 16, 3), 0, 256, jnp.uint8)
    sound = jax.random.normal(jax.random.key(2), (4, 16, 32))

    @jax.jit
    def seen(frame, sound):
        variables = network.init(jax.random.key(0), frame, sound)
        embed = partial(network.apply, method="embed", train=False)
        both, kept = embed(variables, frame, sound, capture_intermediates=True)
        fused = network.apply(variables, *both, method="fuse")
        return fused, kept["intermediates"]

    fused, kept = seen(frame, sound)
    towers = ("video_model", "audio_model")
    blocks = [kept[t][f"conv{i}"]["__call__"][0] for t in towers for i in (1, 2, 3, 4)]
    for x in (*blocks, fused):
        assert (np.min(x) >= 0) == rectified
