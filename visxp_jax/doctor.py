"""What is here and what is not, and whether a spectrogram is made as VisXP makes it.

    visxp doctor
    visxp doctor --video=V.mp4 --reference=spectrograms/1500_24000.npz

The second makes the spectrogram of the same second of the video and puts it beside the
reference. They are equal if no value differs by 0.005 or more (of normalised values).
Where they differ, other settings are tried, each alone, and times up to 2 s from there;
the one by which they agree is named.
"""

import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from visxp_jax import __version__
from visxp_jax.command_line import Parser, command
from visxp_jax.errors import VisxpError
from visxp_jax.media import printable
from visxp_jax.reference import compare

NEEDED = (
    *("jax", "flax", "optax", "orbax.checkpoint", "clu", "av", "PIL", "librosa"),
    *("scipy", "sklearn", "pyarrow", "safetensors", "tensorflow_datasets", "yaml"),
)
# What is not needed for all: module, for what, how to get it (in our folder).
OPTIONAL = (
    ("tensorflow", "data as TFRecord", "pip install '.[tf]'"),
    ("grain", "data as ArrayRecord", "pip install grain"),
    ("scenedetect", "shots", "pip install '.[shots]'"),
    ("usearch", "approximate search", "pip install '.[search]'"),
)
CODECS = ("h264", "hevc", "vp9", "mpeg4", "aac", "mp3", "opus")


TIMEOUT_S = 120.0  # of a video of which no further second is read


def compared(task: tuple[Path, Path], beat: Callable[[], None]) -> list[str] | str:
    """What `compare` says, or why it says nothing; runs in a worker."""
    try:
        return compare(*task, beat)
    except VisxpError as error:
        return str(error)


def compare_isolated(video: Path, reference: Path) -> list[str]:
    """The same of a file that may bring down who reads it.

    Raises:
        VisxpError: see `compare`; or it does.
    """
    from data_prep.pool import Failure, run_isolated

    task = (video, reference)
    ((_, result),) = run_isolated(compared, [task], timeout_s=TIMEOUT_S, workers=1)
    if isinstance(result, Failure):
        raise VisxpError(f"{printable(video)} cannot be read: {result.reason}")
    if isinstance(result, str):
        raise VisxpError(result)
    return result


def installation() -> Iterator[tuple[bool, str]]:
    """Whether each thing is as it must be, and a line on it."""
    yield True, f"visxp_jax {__version__}, Python {platform.python_version()}"
    for name in NEEDED:
        yield _imported(name)
    for name, use, how in OPTIONAL:
        # Not loaded: TensorFlow takes seconds, and says much.
        there = importlib.util.find_spec(name) is not None
        yield True, name if there else f"{name} is missing; for {use}: {how}"
    yield _guarded("devices", _devices)
    yield _guarded("codecs", _codecs)


def _imported(name: str) -> tuple[bool, str]:
    def line() -> str:
        module = importlib.import_module(name)
        return f"{name} {getattr(module, '__version__', '')}".strip()

    return _guarded(name, line)


def _guarded(name: str, line: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, line()
    except Exception as error:  # whatever is wrong with it, the next is looked at
        return False, f"{name} does not work: {' '.join(str(error).split())}"


def _devices() -> str:
    import jax
    import jax.numpy as jnp

    assert float(jnp.ones(3).sum()) == 3
    kinds = {device.device_kind for device in jax.devices()}
    return f"{len(jax.devices())} x {', '.join(kinds)} ({jax.default_backend()})"


def _codecs() -> str:
    import av

    lacking = [name for name in CODECS if name not in av.codecs_available]
    if lacking:
        raise VisxpError(f"FFmpeg has no decoder for {', '.join(lacking)}")
    return f"FFmpeg decodes {', '.join(CODECS)}"


@command("stopped; nothing was written.")
def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 if all is well, 1 if something is not."""
    parser = Parser("visxp doctor", __doc__)
    parser.add_argument("--video", type=Path, help="that the reference is of")
    parser.add_argument("--reference", type=Path, help="MS_RATE.npz of VisXP")
    args = parser.parse_args(argv)
    if (args.video is None) != (args.reference is None):
        parser.error("--video and --reference go together")
    if args.video is not None:
        lines = compare_isolated(args.video, args.reference)
        print("\n".join(lines))
        return 0 if lines[0].startswith("equal") else 1
    well = True
    for there, line in installation():
        print(f"{'ok  ' if there else 'BAD '} {line}")
        well = well and there
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
