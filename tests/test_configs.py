"""Every file in configs/ describes a network that embeds a batch of its data."""

from dataclasses import replace
from pathlib import Path
from runpy import run_path

import jax
import pytest

from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.config import from_dict
from visxp_jax.methods import METHODS
from visxp_jax.weights import make_model

FILES = sorted((Path(__file__).parent.parent / "configs").glob("[a-z]*.py"))
CASES = [(file, arg) for file in FILES for arg in ("", "debug")]
MORE = {"l3net": "small", "shhc": "selflabel"}
CASES += [(file, MORE[file.stem]) for file in FILES if file.stem in MORE]


@pytest.mark.parametrize(
    ("file", "arg"), CASES, ids=[f"{f.stem}:{a}" for f, a in CASES]
)
def test_config_describes_a_network_that_embeds_a_batch(file, arg):
    values = run_path(str(file))["get_config"](arg)
    config = from_dict(values)
    assert config.name == file.stem
    model, size = make_model(config), config.data.size_px
    frame = jax.ShapeDtypeStruct((2, size, size, 3), "uint8")
    shape = PRESETS[config.data.spectrogram].shape
    sound = jax.ShapeDtypeStruct((2, *shape), "float16")
    weights = jax.eval_shape(model.init, jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"):
        (video, audio), _ = jax.eval_shape(
            lambda *x: model.embed(*x, train=True), *weights, frame, sound
        )
    assert video.shape == audio.shape == (2, 8 * config.model.width)
    assert video.dtype == audio.dtype == "float32"


@pytest.mark.parametrize("file", FILES, ids=[f.stem for f in FILES])
def test_config_refuses_an_unknown_argument(file):
    with pytest.raises(ValueError, match="'debgu'"):
        run_path(str(file))["get_config"]("debgu")


@pytest.mark.parametrize("name", ["selflabel", "xdc", "shhc", "contrastive"])
def test_only_what_is_taught_has_a_head(name):
    (file,) = (file for file in FILES if file.stem == name)
    config = from_dict(run_path(str(file))["get_config"]("debug"))
    stage = config.stages[-1]
    for weight in (0.0, 0.5):
        section = replace(config.stage(stage), representation=weight)
        assert ("avc" in METHODS[stage].heads(section)) == (weight > 0)
