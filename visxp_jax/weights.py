"""A trained model in two plain files, for everything that comes after training."""

import hashlib
import io
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from visxp_jax.atomic import write_whole
from visxp_jax.audio.spectrogram import PRESETS, Spectrogram
from visxp_jax.config import (
    EncoderConfig,
    TrainConfig,
    encoder_from_dict,
    from_dict,
    to_dict,
)
from visxp_jax.errors import VisxpError
from visxp_jax.methods import Heads, all_heads, heads_of
from visxp_jax.models.audiovisual import Head, Points
from visxp_jax.models.bind import Model, bind, build_network

PyTree = Any


class Trained(NamedTuple):
    """A model ready to use."""

    encoder: EncoderConfig
    heads: Heads
    config: TrainConfig | None  # of the run; None for weights from elsewhere
    model: Model
    params: PyTree
    model_state: PyTree
    spectrogram: Spectrogram
    about: dict[str, Any]  # step, sha256 of the weights, versions, label names


def make_model(config: TrainConfig) -> Model:
    """The network of a run with the heads of all its stages."""
    return network_of(config.encoder, all_heads(config))


def network_of(encoder: EncoderConfig, heads: Heads) -> Model:
    """A network by what it is and takes."""
    return bind(
        build_network(encoder.model, heads),
        frame_shape=(encoder.size_px, encoder.size_px, 3),
        log_mel_shape=PRESETS[encoder.spectrogram].shape,
    )


def taught_last(config: TrainConfig, params: PyTree) -> tuple[Heads, PyTree]:
    """Heads of a run's last stage, and its weights without those of other heads.

    The towers have changed since an earlier stage taught a head: what it said of them
    would be wrong.
    """
    heads = heads_of(config, config.stages[-1])
    model = network_of(config.encoder, heads)
    wanted, _ = jax.eval_shape(model.init, jax.random.key(0))
    return heads, {name: params[name] for name in wanted}


def save_weights(
    workdir: Path,
    encoder: EncoderConfig,
    heads: Heads,
    params: PyTree,
    model_state: PyTree,
    about: dict[str, Any],
    *,
    config: TrainConfig | None = None,
) -> str:
    """Write WORKDIR/model.npz (arrays) and WORKDIR/model.json (all else).

    Args:
        workdir: Of the run.
        encoder: What the network is and takes.
        heads: Its heads.
        params: Trained weights.
        model_state: Running statistics.
        about: JSON values to keep with them.
        config: Of the run that trained them.

    Returns:
        sha256 of model.npz, by which outputs name the weights that made them.
    """
    tree = {"params": params, "model_state": model_state}
    flat: dict[str, Any] = {
        k: np.asarray(v) for k, v in flatten_dict(tree, sep="/").items()
    }
    file = io.BytesIO()
    np.savez(file, **flat)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    record = {
        **about,
        "sha256": digest,
        "encoder": to_dict(encoder),
        "heads": {name: head._asdict() for name, head in heads.items()},
        "config": to_dict(config) if config else None,
    }
    write_whole(workdir / "model.npz", file.getvalue())
    write_whole(workdir / "model.json", json.dumps(record, indent=2))
    return digest


def load_weights(workdir: Path) -> Trained:
    """Read what `save_weights` wrote; nothing is unpickled.

    Raises:
        VisxpError: files are missing, do not belong together, or do not fit the
            configuration stored with them.
    """
    try:
        about = json.loads((workdir / "model.json").read_text(encoding="utf-8"))
        data = (workdir / "model.npz").read_bytes()
    except OSError as error:
        raise VisxpError(
            f"{workdir} must hold a trained model, but {error.filename} cannot be read "
            f"({error.strerror}); give the --workdir of a finished training run."
        ) from error
    except (ValueError, RecursionError) as error:
        raise unusable(workdir, error) from error
    needed = {"sha256", "encoder", "heads", "config"}
    if not isinstance(about, dict) or not needed <= about.keys():
        raise unusable(workdir, f"it lacks one of {', '.join(sorted(needed))}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != about.get("sha256"):
        raise VisxpError(
            f"{workdir / 'model.npz'} must be the file that model.json describes "
            f"(sha256 {about.get('sha256')}), got {digest}; it is damaged or replaced."
        )
    try:
        with np.load(io.BytesIO(data)) as arrays:
            flat = {k: arrays[k] for k in arrays.files}
    except (ValueError, TypeError, OSError, EOFError, zlib.error, BadZipFile) as error:
        raise VisxpError(f"{workdir / 'model.npz'} must hold arrays: {error}") from None
    encoder = encoder_from_dict(about.pop("encoder"))
    heads = heads_from_dict(about.pop("heads"), workdir)
    training = about.pop("config")
    model = network_of(encoder, heads)
    check_fits(flat, model, workdir)
    tree = unflatten_dict(flat, sep="/")
    return Trained(
        encoder=encoder,
        heads=heads,
        config=from_dict(training) if training else None,
        model=model,
        params=tree["params"],
        model_state=tree["model_state"],
        spectrogram=PRESETS[encoder.spectrogram],
        about=about,
    )


def heads_from_dict(values: Any, workdir: Path) -> Heads:
    """Heads as `save_weights` wrote them.

    Raises:
        VisxpError: they are something else.
    """
    heads: Heads = {}
    try:
        for name, head in values.items():
            match head:
                case {"outputs": int(n), "on": ("fused" | "video" | "audio") as on}:
                    heads[name] = Head(n, on)
                case {"number": int(n), "dimensions": int(d)}:
                    heads[name] = Points(n, d)
                case _:
                    raise unusable(workdir, f"head {name!r} is none")
    except AttributeError as error:
        raise unusable(workdir, error) from error
    return heads


def unusable(workdir: Path, error: object) -> VisxpError:
    """What to raise for a model.json that is not what was written."""
    return VisxpError(
        f"{workdir / 'model.json'} is damaged: {error}; restore it, or train again."
    )


def check_fits(flat: dict[str, Any], model: Model, workdir: Path) -> None:
    """Refuse weights of another network than the one that will use them.

    Raises:
        VisxpError: names the first array that is missing, unknown or of another shape.
    """
    params, model_state = jax.eval_shape(model.init, jax.random.key(0))
    wanted: dict[str, Any] = flatten_dict(
        {"params": params, "model_state": model_state}, sep="/"
    )
    for name in sorted(wanted.keys() | flat.keys()):
        want, have = (
            f"{tree[name].dtype}{list(tree[name].shape)}" if name in tree else "nothing"
            for tree in (wanted, flat)
        )
        if want != have:
            raise VisxpError(
                f"{workdir / 'model.npz'} must hold the network of model.json: "
                f"{want} for {name}, got {have}."
            )
