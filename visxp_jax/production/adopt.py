r"""A VisXP checkpoint as a model of this project, to use on videos and in search.

    visxp import --checkpoint=checkpoint.tar --config=model_config.yml \
        --workdir=runs/visxp

Writes model.npz and model.json, which is what extraction and export take. Its head is
kept where it has two outputs: they are taken for mismatch and match, in this order, as
L3-Net has them. VisXP's training code is not public: see by `visxp agreement` of videos
whose sound is their own that agreement is high.
"""

import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from visxp_jax import __version__
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.command_line import Parser, command
from visxp_jax.config import EncoderConfig
from visxp_jax.errors import VisxpError
from visxp_jax.models.audiovisual import Head
from visxp_jax.production.checkpoint import (
    HEAD,
    Published,
    digest,
    model_config,
    published,
    read_state,
)
from visxp_jax.production.settings import Settings, read_settings
from visxp_jax.weights import save_weights

PRESET = PRESETS["visxp"]


def encoder_config(settings: Settings, path: Path) -> EncoderConfig:
    """What the network takes, in our terms.

    Raises:
        VisxpError: no preset of ours makes it, or it has no audio tower.
    """
    audio, (height, width) = settings.audio, settings.size
    if audio is None:
        raise VisxpError(
            f"{path} must describe an AVNet: a VisualNet hears nothing; features of "
            "keyframes come from `visxp folders`."
        )
    got = (audio.bands, audio.frames, audio.rate_hz)
    want = (*PRESET.shape, PRESET.rate_hz)
    if got != want:
        raise VisxpError(
            f"{path}: spectrograms must be of {want[0]} bands, {want[1]} frames and "
            f"{want[2]} Hz, got {got[0]}, {got[1]} and {got[2]}."
        )
    if height != width:
        raise VisxpError(f"{path}: frames must be square, got {height} x {width}.")
    return EncoderConfig("visxp", PRESET.name, height, model_config(settings))


def adopt(model: Published, encoder: EncoderConfig, workdir: Path, about: Any) -> str:
    """Write it; sha256 of model.npz."""
    params = dict(model.variables["params"])
    head = params.pop(f"head_layers_{HEAD}")
    heads = {}
    if model.settings.classes == 2:  # mismatch, match: as ours
        heads["avc"] = Head(2)
        params["head_layers_avc"] = head
    stats = model.variables["batch_stats"]
    return save_weights(workdir, encoder, heads, params, stats, about)


def run(checkpoint: Path, config: Path, workdir: Path) -> str:
    """The whole of it.

    Raises:
        VisxpError: see `read_state`, `read_settings`, `published`, `encoder_config`; or
            the workdir cannot be written to, or has a model of its own.
    """
    settings = read_settings(config)
    encoder = encoder_config(settings, config)
    if (workdir / "model.json").exists():
        raise VisxpError(f"{workdir} must be new, but holds a model already.")
    model = published(read_state(checkpoint), settings, checkpoint)
    about = {
        "visxp_jax": __version__,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("jax", "flax", "numpy")},
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "checkpoint": os.fspath(checkpoint),
        "checkpoint_sha256": digest(checkpoint),
        "config_sha256": digest(config),
    }
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return adopt(model, encoder, workdir, about)
    except OSError as error:
        raise VisxpError(f"cannot write to {workdir}: {error}.") from error


@command("stopped; the same command begins anew.")
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser("visxp import", __doc__)
    parser.add_argument("--checkpoint", required=True, type=Path, help=".tar of torch")
    parser.add_argument("--config", required=True, type=Path, help="its .yml")
    parser.add_argument("--workdir", required=True, type=Path, help="folder to write")
    args = parser.parse_args(argv)
    run(args.checkpoint, args.config, args.workdir)
    print(f"{args.workdir}: model.npz, model.json")


if __name__ == "__main__":
    sys.exit(main())
