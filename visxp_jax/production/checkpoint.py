"""VisXP's checkpoints: their weights under our names, and the vectors they give."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.config import ModelConfig
from visxp_jax.errors import VisxpError
from visxp_jax.models.audiovisual import AudioVisualNet, Head
from visxp_jax.models.bind import PUBLISHED_POOL, build_network
from visxp_jax.production.files import open_regular
from visxp_jax.production.settings import Normalisation, Settings
from visxp_jax.production.torch_file import Tensor, TorchFile
from visxp_jax.sharding import compiler_options

Arrays = Mapping[str, np.ndarray]  # by the names of a state_dict

# The layers that the original adds to both towers and never uses.
UNUSED = {
    f"{tower}.fc.{part}"
    for tower in ("video_model", "audio_model")
    for part in ("weight", "bias")
}
HEAD = "lin2"


def read_state(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint: a state_dict, or what has one under that name.

    Returns:
        By name, of the shapes and types that torch had.

    Raises:
        VisxpError: see `TorchFile`; or there are no weights in it.
    """
    with TorchFile(path) as file:
        saved = file.saved
        if isinstance(saved, dict) and isinstance(saved.get("state_dict"), dict):
            saved = saved["state_dict"]
        if not isinstance(saved, dict) or not all(
            isinstance(name, str) and isinstance(value, Tensor)
            for name, value in saved.items()
        ):
            raise VisxpError(
                f"{path} must hold a state_dict: names and tensors, nothing else."
            )
        # Each storage is read once, however its tensors are mixed with others'.
        by_storage = sorted(saved, key=lambda name: saved[name].storage.part)
        found = {name: file.array(saved[name]) for name in by_storage}
        return {name: found[name] for name in saved}


def digest(path: Path) -> str:
    """sha256 of a regular file, by which outputs name what made them.

    Raises:
        OSError: it is none, or cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Published(NamedTuple):
    """A network of the production system with its weights.

    Attributes:
        settings: Of the file that goes with it.
        network: The linen network.
        variables: Its parameters and running statistics, float32. Of a network of
            pictures alone the audio tower and what follows it are missing.
    """

    settings: Settings
    network: AudioVisualNet
    variables: dict[str, Any]


def model_config(settings: Settings) -> ModelConfig:
    """AVNet, as published."""
    frame, audio = settings.frame, settings.audio
    sound = audio.normalisation if audio else Normalisation((0.0,), (1.0,))
    return ModelConfig(
        network="avnet",
        audio="cnn",
        width=64,
        double_convolution=settings.double_convolution,
        pool="published",
        fusion_dim=512,
        frame_mean=frame.mean,
        frame_std=frame.std,
        sound_mean=sound.mean[0],
        sound_std=sound.std[0],
        bn_momentum=0.99,
        dtype="float32",
    )


def published(state: Arrays, settings: Settings, path: Path) -> Published:
    """Put the arrays of a checkpoint in their places.

    Args:
        state: From `read_state`.
        settings: From `read_settings`.
        path: Of the checkpoint, for messages.

    Raises:
        VisxpError: names an array that is missing, unknown, or of another shape; or
            the network gives another number of features for inputs of such a size.
    """
    check_sizes(settings, path)
    with_sound = settings.audio is not None
    heads = {HEAD: Head(settings.classes)} if settings.classes else {}
    network = build_network(model_config(settings), heads)
    audio = settings.audio
    shapes: Any = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, *settings.size, 3), jnp.uint8),
        jax.ShapeDtypeStruct(
            (1, audio.bands, audio.frames) if audio else (1, 257, 99), jnp.float32
        ),
    )
    taken = _Taken(state, path)
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    towers = ("video_model", "audio_model") if with_sound else ("video_model",)
    for tower in towers:
        prefix = f"{tower}." if with_sound else ""
        params, stats = _tower(shapes["params"][tower], prefix, taken)
        variables["params"][tower], variables["batch_stats"][tower] = params, stats
    if with_sound:
        for ours, theirs in (("lin1", "lin1"), (f"head_layers_{HEAD}", HEAD)):
            inputs, outputs = shapes["params"][ours]["kernel"].shape
            variables["params"][ours] = {
                "kernel": taken(f"{theirs}.weight", (outputs, inputs)).T,
                "bias": taken(f"{theirs}.bias", (outputs,)),
            }
    taken.all_but(UNUSED)
    return Published(settings, network, jax.tree.map(jnp.asarray, variables))


def check_sizes(settings: Settings, path: Path) -> None:
    """Refuse inputs of which the last pool would leave none, or more than one vector.

    Raises:
        VisxpError: they are of such a size.
    """
    sizes = [(settings.size, PUBLISHED_POOL[0])]
    if settings.audio:
        shape = (settings.audio.bands, settings.audio.frames)
        sizes.append((shape, PUBLISHED_POOL[1]))
    for size, pool in sizes:
        for length, window in zip(size, pool, strict=True):
            cells = (length + 1) // 2 // 8  # one step of 2, then three pools
            if not window <= cells < 2 * window:
                raise VisxpError(
                    f"{path}: inputs of size {size} leave {cells} cells where the last "
                    f"pool of the network takes {window} to {2 * window - 1}."
                )


def _tower(shapes: Any, prefix: str, taken: "_Taken") -> tuple[Any, Any]:
    params, stats = {}, {}
    for name, block in shapes.items():
        height, width, inputs, outputs = block["conv"]["kernel"].shape
        each = (outputs,)
        kernel = taken(f"{prefix}{name}.weight", (outputs, inputs, height, width))
        norm = f"{prefix}{name}_bn"
        params[name] = {
            "conv": {
                "kernel": kernel.transpose(2, 3, 1, 0),
                "bias": taken(f"{prefix}{name}.bias", each),
            },
            "bn": {
                "scale": taken(f"{norm}.weight", each),
                "bias": taken(f"{norm}.bias", each),
            },
        }
        stats[name] = {
            "bn": {
                "mean": taken(f"{norm}.running_mean", each),
                "var": taken(f"{norm}.running_var", each, least=0.0),
            }
        }
    return params, stats


class _Taken:
    """Arrays of a checkpoint, of which each is taken once."""

    def __init__(self, state: Arrays, path: Path) -> None:
        # Weights that were trained on several GPUs at once have all one prefix more.
        several = bool(state) and all(name.startswith("module.") for name in state)
        self._left = {
            name.removeprefix("module.") if several else name: value
            for name, value in state.items()
        }
        self._path = path

    def __call__(
        self, name: str, shape: tuple[int, ...], *, least: float = -np.inf
    ) -> np.ndarray:
        if name not in self._left:
            raise self._wrong(name, f"{list(shape)}", "nothing")
        value = self._left.pop(name)
        if value.shape != shape or value.dtype.kind not in "fV":
            got = f"{value.dtype} {list(value.shape)}"
            raise self._wrong(name, f"floats {list(shape)}", got)
        with np.errstate(over="ignore"):  # to infinity, which is refused
            value = value.astype(np.float32)
        if not np.isfinite(value).all() or value.min() < least:
            want = "finite numbers" if least == -np.inf else f"numbers from {least:g}"
            raise self._wrong(name, want, "others among them")
        return value

    def all_but(self, unused: set[str]) -> None:
        """Refuse what is left, except for what counts batches or is not used."""
        for name, value in self._left.items():
            if name not in unused and not name.endswith("num_batches_tracked"):
                raise self._wrong(name, "nothing", f"{list(value.shape)}")

    def _wrong(self, name: str, want: str, have: str) -> VisxpError:
        return VisxpError(
            f"{self._path} must hold the network that its configuration describes: "
            f"{want} for {ascii(name[:80])}, got {have}."
        )


def make_encoder(
    model: Published,
) -> Callable[[np.ndarray, np.ndarray | None], tuple[jax.Array | None, jax.Array]]:
    """The compiled function of normalised frames and sounds to (audio, video).

    Args:
        model: From `published`.

    Returns:
        Of float32 [b, h, w, 3] and [b, bands, frames] vectors [b, 512] each. Without
        an audio tower, sounds are not looked at, and None stands for their vectors.
    """
    network, variables = model.network, model.variables
    compiled = partial(jax.jit, compiler_options=compiler_options())

    @compiled
    def both(variables: Any, image: jax.Array, sound: jax.Array) -> Any:
        return network.apply(
            variables, image, sound, train=False, method="embed_normalised"
        )

    @compiled
    def sight(variables: Any, image: jax.Array) -> Any:
        parts = {kind: tree["video_model"] for kind, tree in variables.items()}
        return network.video_model.apply(parts, image, train=False)

    def encode(
        image: np.ndarray, sound: np.ndarray | None
    ) -> tuple[jax.Array | None, jax.Array]:
        if model.settings.audio is None:
            return None, sight(variables, image)
        video, audio = both(variables, image, sound)
        return audio, video

    return encode
