"""A model for others: the same vectors without this project, and what made them."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.test_weights import ABOUT, saved
from visxp_jax import export
from visxp_jax.config import from_dict
from visxp_jax.weights import load_weights

ELSEWHERE = """
import sys
import numpy as np
from jax import export

program = open(sys.argv[1], "rb").read()
encoder = export.deserialize(bytearray(program))
with np.load(sys.argv[2]) as batch:
    found = encoder.call(batch["frame"], batch["log_mel"])
assert not {"visxp_jax", "flax"} & sys.modules.keys()
np.savez(sys.argv[3], **found)
"""


@pytest.fixture
def exported(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setitem(ABOUT, "figures", {"nmi": 0.75, "ari": None})
    monkeypatch.setitem(ABOUT, "note", "a | b\n## c")
    monkeypatch.setitem(ABOUT, "data", "/home/someone/data")
    saved(tmp_path / "run")
    out = tmp_path / "out"
    assert export.main([f"--workdir={tmp_path / 'run'}", f"--out={out}"]) == 0
    return load_weights(tmp_path / "run"), out


def test_the_program_gives_the_same_vectors_without_this_project(exported, tmp_path):
    trained, out = exported
    rows = 5  # the code on the card, tested below, gives it one
    rng = np.random.default_rng(0)
    size = trained.encoder.size_px
    frame = rng.integers(0, 256, (rows, size, size, 3), np.uint8)
    log_mel = rng.standard_normal((rows, *trained.spectrogram.shape), np.float32)
    np.savez(tmp_path / "batch.npz", frame=frame, log_mel=log_mel)
    files = [out / "encoder.stablehlo", tmp_path / "batch.npz", tmp_path / "found.npz"]
    command = [sys.executable, "-I", "-c", ELSEWHERE, *map(str, files)]
    subprocess.run(command, check=True, cwd=tmp_path)
    (video, audio), _ = trained.model.embed(
        trained.params, trained.model_state, frame, log_mel, train=False
    )
    fused = trained.model.fuse(trained.params, video, audio)
    with np.load(tmp_path / "found.npz") as found:
        for name, wanted in (("video", video), ("audio", audio), ("fused", fused)):
            np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)


def test_safetensors_hold_the_weights_and_their_configuration(exported):
    trained, out = exported
    arrays = load_file(out / "model.safetensors")
    leaves = jax.tree.leaves(trained.params) + jax.tree.leaves(trained.model_state)
    assert len(arrays) == len(leaves)
    kernel = trained.params["lin1"]["kernel"]
    np.testing.assert_array_equal(arrays["params/lin1/kernel"], kernel)
    with safe_open(out / "model.safetensors", "np") as file:
        about = file.metadata()
    assert from_dict(json.loads(about["config"])) == trained.config
    assert json.loads(about["encoder"])["size_px"] == trained.encoder.size_px
    assert "/home/someone" not in str(about)
    assert json.loads(about["step"]) == 34


def test_the_card_says_what_made_it_and_how_good_it_is(exported):
    trained, out = exported
    text = (out / "README.md").read_text()
    assert f"| sha256 | {trained.about['sha256']} |" in text
    assert "| nmi | 0.75 | Normalised mutual information" in text
    assert "| ari" not in text
    assert "| note | a \\| b ## c |" in text
    assert "/home/someone" not in text
    code = text.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=out, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert trained.config is not None
    data = dataclasses.replace(trained.config.data, videos="/somewhere/videos")
    elsewhere = dataclasses.replace(trained.config, data=data)
    text = export.card(trained._replace(config=elsewhere))
    assert '"videos": "videos"' in text
    assert "/somewhere" not in text
    assert f'"size_px": {trained.encoder.size_px}' in text


def test_mistakes_are_one_line(tmp_path, capsys):
    assert export.main([f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}"]) == 2
    assert "must hold a trained model" in capsys.readouterr().err
    saved(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert export.main([f"--workdir={tmp_path}", f"--out={tmp_path / 'file'}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: cannot write to")
    assert told.count("\n") == 1
