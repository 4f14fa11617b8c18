"""A saved model comes back to the bit, or is refused by name; nothing is unpickled."""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.small import small_config
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.errors import VisxpError
from visxp_jax.methods import all_heads
from visxp_jax.weights import load_weights, make_model, save_weights, taught_last

ABOUT = {"step": 34, "label_names": ["cat", "dog"]}


def random_weights(config, seed: int = 0):
    """(params, model_state) with values down to the last bit."""
    shapes = jax.eval_shape(make_model(config).init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), shapes)


def saved(workdir: Path, seed: int = 0):
    """(config, params, model_state, sha256) of a model saved there."""
    config = small_config()
    params, state = random_weights(config, seed)
    what = (config.encoder, all_heads(config), params, state, ABOUT)
    return config, params, state, save_weights(workdir, *what, config=config)


def replace_arrays(workdir: Path, **arrays) -> None:
    """Another model.npz, of which model.json is told."""
    np.savez(workdir / "model.npz", **arrays)
    about = json.loads((workdir / "model.json").read_text())
    about["sha256"] = hashlib.sha256((workdir / "model.npz").read_bytes()).hexdigest()
    (workdir / "model.json").write_text(json.dumps(about))


def same_tree(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_weights_come_back_to_the_bit_with_all_that_belongs_to_them(tmp_path):
    config, params, state, digest = saved(tmp_path)
    trained = load_weights(tmp_path)
    same_tree(trained.params, params)
    same_tree(trained.model_state, state)
    assert trained.config == config
    assert trained.spectrogram is PRESETS[config.data.spectrogram]
    assert trained.about == {**ABOUT, "sha256": digest}
    data = (tmp_path / "model.npz").read_bytes()
    assert digest == hashlib.sha256(data).hexdigest()


def test_heads_that_the_last_stage_does_not_teach_are_not_saved(tmp_path):
    config = small_config(**{"selflabel.representation": 0.0})
    assert config.stages == ("avc", "selflabel")
    params, state = random_weights(config)
    what = config.encoder, *taught_last(config, params), state, ABOUT
    save_weights(tmp_path, *what, config=config)
    trained = load_weights(tmp_path)
    assert all_heads(config).keys() - trained.heads == {"avc"}
    assert params.keys() - trained.params == {"head_layers_avc"}
    assert "avc" in taught_last(small_config(), params)[0]


def test_loaded_model_embeds_with_its_weights(tmp_path):
    config, params, state, _ = saved(tmp_path)
    trained = load_weights(tmp_path)
    frame = np.zeros((1, config.data.size_px, config.data.size_px, 3), np.uint8)
    sound = np.zeros((1, *trained.spectrogram.shape), np.float16)
    embed = jax.jit(lambda p, s: trained.model.embed(p, s, frame, sound, train=False))
    (video, _), _ = embed(trained.params, trained.model_state)
    (expected, _), _ = embed(params, state)
    assert video.shape == (1, 8 * config.model.width)
    np.testing.assert_array_equal(video, expected)


def test_saving_leaves_two_files_and_replaces_earlier_ones(tmp_path):
    saved(tmp_path, seed=0)
    _, params, _, digest = saved(tmp_path, seed=1)
    assert {p.name for p in tmp_path.iterdir()} == {"model.npz", "model.json"}
    trained = load_weights(tmp_path)
    same_tree(trained.params, params)
    assert trained.about["sha256"] == digest


@pytest.mark.parametrize("name", ["model.npz", "model.json"])
def test_missing_file_is_named(tmp_path, name):
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(VisxpError, match=rf"{name} cannot be read \(No such file"):
        load_weights(tmp_path)


def test_file_instead_of_a_workdir_is_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(VisxpError, match="cannot be read .Not a directory"):
        load_weights(tmp_path / "model.npz")


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_model_json_of_other_content_is_refused(tmp_path, text):
    saved(tmp_path)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(VisxpError, match=r"model\.json is damaged"):
        load_weights(tmp_path)


def test_replaced_weights_are_refused_with_both_sums(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    *_, digest = saved(ours, seed=0)
    *_, other = saved(theirs, seed=1)
    (theirs / "model.npz").replace(ours / "model.npz")
    with pytest.raises(VisxpError, match=rf"{digest}\), got {other}; .*replaced"):
        load_weights(ours)


def test_weights_with_one_flipped_bit_are_refused(tmp_path):
    saved(tmp_path)
    path = tmp_path / "model.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VisxpError, match="damaged or replaced"):
        load_weights(tmp_path)


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_object_in_the_weights_is_refused_and_not_run(tmp_path):
    saved(tmp_path)
    sprung = tmp_path / "sprung"
    trap = np.empty(1, object)
    trap[0] = Trap(sprung)
    replace_arrays(tmp_path, **{"params/lin1/bias": trap})
    with pytest.raises(ValueError, match="allow_pickle"):
        load_weights(tmp_path)
    assert not sprung.exists()
    np.load(tmp_path / "model.npz", allow_pickle=True)["params/lin1/bias"]
    assert sprung.exists()


def test_weights_of_another_shape_than_the_configuration_says_are_refused(tmp_path):
    saved(tmp_path)
    with np.load(tmp_path / "model.npz") as arrays:
        held = dict(arrays)
    held["params/lin1/bias"] = held["params/lin1/bias"][:-1]
    replace_arrays(tmp_path, **held)
    with pytest.raises(VisxpError, match="lin1"):
        load_weights(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    saved(tmp_path)
    replace_arrays(tmp_path, weight=np.zeros(3))
    with pytest.raises(VisxpError):
        load_weights(tmp_path)
