"""AVNet equals the published torch network, on weights that a rule regenerates."""

import dataclasses
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import avnet
from visxp_jax.config import ModelConfig, from_dict
from visxp_jax.models.audiovisual import Head
from visxp_jax.models.bind import build_network

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden_nets.npz")


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The torch tensor of that name and shape (layout OIHW)."""
    n = rng(key).standard_normal(shape)
    if key.endswith("running_var"):
        return np.exp(0.2 * n)
    if len(shape) > 1:
        return n * np.sqrt(2 / np.prod(shape[1:]))
    if key.endswith(".weight"):
        return 1 + 0.1 * n
    return 0.1 * n


def torch_filled(tree, prefix: str):
    """Fill a tower's tree as torch would under the state_dict names of `prefix`."""
    params, stats = {}, {}
    for name, block in tree["params"].items():
        cin_cout = block["conv"]["kernel"].shape
        oihw = (cin_cout[3], cin_cout[2], 3, 3)
        kernel = fill(f"{prefix}.{name}.weight", oihw).transpose(2, 3, 1, 0)
        c = (cin_cout[3],)
        params[name] = {
            "conv": {"kernel": kernel, "bias": fill(f"{prefix}.{name}.bias", c)},
            "bn": {
                "scale": fill(f"{prefix}.{name}_bn.weight", c),
                "bias": fill(f"{prefix}.{name}_bn.bias", c),
            },
        }
        stats[name] = {
            "bn": {
                "mean": fill(f"{prefix}.{name}_bn.running_mean", c),
                "var": fill(f"{prefix}.{name}_bn.running_var", c),
            }
        }
    return params, stats


def paper(double: bool) -> ModelConfig:
    model = from_dict(avnet.get_config()).model
    return dataclasses.replace(model, double_convolution=double, dtype="float32")


def published(double: bool):
    network = build_network(paper(double), {"lin2": Head(5)})
    shapes = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.uint8),
        jax.ShapeDtypeStruct((1, 257, 99), jnp.float32),
    )
    params, stats = {}, {}
    for tower in ("video_model", "audio_model"):
        part = {"params": shapes["params"][tower]}
        params[tower], stats[tower] = torch_filled(part, tower)
    for ours, theirs, shape in (
        ("lin1", "lin1", (512, 1024)),
        ("head_layers_lin2", "lin2", (5, 512)),
    ):
        params[ours] = {
            "kernel": fill(f"{theirs}.weight", shape).T,
            "bias": fill(f"{theirs}.bias", shape[:1]),
        }
    variables = {"params": params, "batch_stats": stats}
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), variables)
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)
    return network, variables


def inputs():
    video = rng("avnet_video").standard_normal((2, 3, 256, 256)).transpose(0, 2, 3, 1)
    audio = rng("avnet_audio").standard_normal((2, 1, 257, 99))[:, 0]
    return jnp.asarray(video, jnp.float32), jnp.asarray(audio, jnp.float32)


def close(ours, name: str) -> None:
    np.testing.assert_allclose(ours, GOLDEN[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("double", [True, False])
def test_avnet_equals_published_network_at_256_and_224(double):
    network, variables = published(double)
    name = "avnet_double" if double else "avnet_single"
    image, sound = inputs()

    @jax.jit
    def run(variables, image, sound):
        video, audio = network.apply(
            variables, image, sound, train=False, method="embed_normalised"
        )
        fused = network.apply(variables, video, audio, method="fuse")
        logits = network.apply(variables, "lin2", fused, method="head")
        return video, audio, logits

    video, audio, logits = run(variables, image, sound)
    close(video, f"{name}/video_feat")
    close(audio, f"{name}/audio_feat")
    close(logits, f"{name}/logits")
    close(run(variables, image[:, :224, :224], sound)[0], f"{name}/video_feat_224")


def test_avnet_training_batchnorm_equals_published_network():
    network, variables = published(True)
    image, sound = inputs()
    (video, _), changed = network.apply(
        variables,
        image,
        sound,
        train=True,
        method="embed_normalised",
        mutable=["batch_stats"],
    )
    close(video, "avnet_double/video_feat_trainbn")
    # torch's momentum .99 is Flax's .01, and torch counts n - 1 in the variance only.
    before = variables["batch_stats"]["video_model"]["conv1"]["bn"]["mean"]
    after = changed["batch_stats"]["video_model"]["conv1"]["bn"]["mean"]
    batch_mean = (after - 0.99 * before) / 0.01
    theirs = 0.01 * before + 0.99 * batch_mean
    np.testing.assert_allclose(
        theirs, GOLDEN["avnet_double/conv1_bn_running_mean_after"], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("double", "count"), [(True, 9_905_158 - 2052), (False, 3_632_518 - 2052)]
)
def test_avnet_has_the_published_number_of_weights(double, count):
    """The published count holds 2,052 weights of layers that its forward never uses."""
    network = build_network(paper(double), {"avc": Head(2)})
    shapes = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.uint8),
        jax.ShapeDtypeStruct((1, 257, 99), jnp.float32),
    )
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count
