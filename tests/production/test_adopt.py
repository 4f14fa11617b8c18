"""VisXP's weights in our own files: equal vectors, and a head where it means ours."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_published import fill, inputs
from tests.production.test_checkpoint import AVNET, VISUALNET, avnet, tensors
from tests.production.torch_zip import save
from visxp_jax.models.audiovisual import Head
from visxp_jax.production import adopt
from visxp_jax.production.checkpoint import make_encoder, published, read_state
from visxp_jax.production.settings import read_settings
from visxp_jax.weights import load_weights


@pytest.fixture
def command(tmp_path):
    """Arguments of the program, for a network of so many classes."""

    def made(classes: int, text: str = AVNET % "false") -> list[str]:
        state = avnet(False)
        state["lin2.weight"] = fill("lin2.weight", (classes, 512))
        state["lin2.bias"] = fill("lin2.bias", (classes,))
        save(tmp_path / "checkpoint.tar", {"state_dict": tensors(state)})
        text = text.replace("N_CLASSES: 5", f"N_CLASSES: {classes}")
        (tmp_path / "model.yml").write_text(text, encoding="utf-8")
        return [
            f"--checkpoint={tmp_path / 'checkpoint.tar'}",
            f"--config={tmp_path / 'model.yml'}",
            f"--workdir={tmp_path / 'run'}",
        ]

    return made


@pytest.mark.parametrize("classes", [2, 5])
def test_adopted_weights_give_the_same_vectors(classes, command, tmp_path):
    assert adopt.main(command(classes)) == 0
    trained = load_weights(tmp_path / "run")
    assert trained.config is None
    assert trained.encoder.model.sound_std == 0.9170
    assert trained.heads == ({"avc": Head(2)} if classes == 2 else {})
    path = tmp_path / "checkpoint.tar"
    settings = read_settings(tmp_path / "model.yml")
    original = make_encoder(published(read_state(path), settings, path))
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (2, 256, 256, 3), np.uint8)
    sound = np.asarray(inputs()[1])
    norm, heard = settings.frame, settings.audio.normalisation
    image = (frame / np.float32(255) - np.float32(norm.mean)) / np.float32(norm.std)
    wanted = original(image, (sound - heard.mean[0]) / heard.std[0])
    (video, audio), _ = trained.model.embed(
        trained.params, trained.model_state, jnp.asarray(frame), sound, train=False
    )
    np.testing.assert_allclose(audio, wanted[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(video, wanted[1], rtol=1e-4, atol=1e-4)
    fused = trained.model.fuse(trained.params, video, audio)
    assert fused.shape == (2, 512)
    if classes == 2:
        assert trained.model.head(trained.params, "avc", fused).shape == (2, 2)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (AVNET % "false", VISUALNET, "a VisualNet hears nothing"),
        ("24000", "48000", "of 257 bands, 99 frames and 24000 Hz, got 257, 99 and"),
        ("(256, 256)", "(224, 256)", "frames must be square, got 224 x 256"),
    ],
)
def test_what_we_have_no_inputs_for_is_refused(old, new, line, command, capsys):
    text = (AVNET % "false").replace(old, new)
    assert adopt.main(command(2, text)) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_a_model_is_not_written_over(command, capsys):
    assert adopt.main(command(2)) == 0
    assert adopt.main(command(2)) == 2
    assert "must be new, but holds a model" in capsys.readouterr().err
