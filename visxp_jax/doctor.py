"""What is here and what is not, and whether a spectrogram is made as VisXP makes it.

    visxp doctor
    visxp doctor --video=V.mp4 --reference=spectrograms/1500_24000.npz

The second makes the spectrogram of the same second of the video and puts it beside the
reference; where they differ, it tries one other setting after another and names the one
by which they agree.
"""

import dataclasses
import importlib.util
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visxp_jax import __version__
from visxp_jax.audio.spectrogram import VISXP_RATES_HZ, Spectrogram, visxp_at
from visxp_jax.command_line import Parser, command
from visxp_jax.errors import VisxpError
from visxp_jax.media import printable, read_sounds
from visxp_jax.production.arrays import read_pickled_dict
from visxp_jax.production.folder import time_and_rate

NEEDED = (
    *("jax", "flax", "optax", "orbax.checkpoint", "clu", "av", "PIL", "librosa"),
    *("scipy", "sklearn", "pyarrow", "safetensors", "tensorflow_datasets", "yaml"),
)
# What is not needed for all: module, for what, how to get it.
OPTIONAL = (
    ("tensorflow", "data as TFRecord", "pip install 'visxp-jax[tf]'"),
    ("grain", "data as ArrayRecord", "pip install grain"),
    ("scenedetect", "shots", "pip install 'visxp-jax[shots]'"),
    ("usearch", "approximate search", "pip install 'visxp-jax[search]'"),
)
CODECS = ("h264", "hevc", "vp9", "mpeg4", "aac", "mp3", "opus")
# Of normalised values: decoders and resamplers differ by less.
TOLERANCE = 5e-3
STEP_MS, FURTHEST_MS = 10, 500  # of other times that are tried


class Setting(NamedTuple):
    """One way to make a spectrogram other than VisXP's.

    Attributes:
        name: What is different about it.
        spectrogram: The recipe.
        offset_ms: When the second begins, from where it should.
        rate_hz: Of the samples, if it is not that of the recipe.
    """

    name: str
    spectrogram: Spectrogram
    offset_ms: int = 0
    rate_hz: int | None = None


def settings(rate_hz: int) -> Iterator[Setting]:
    """Others, of which each differs in one thing from VisXP's."""
    right = visxp_at(rate_hz)

    def other(name: str, **changes: object) -> Setting:
        return Setting(name, dataclasses.replace(right, **changes))

    yield other("values are not normalised: (x - 1.93) / 17.89", mean=0.0, std=1.0)
    mean = right.mean + right.std * 0.0467
    yield other(
        "values are normalised twice: the network's own step is in them",
        **{"mean": mean, "std": right.std * 0.9170},
    )
    yield other(
        "log10 in place of the natural log",
        **{"mean": right.mean * np.log(10), "std": right.std * np.log(10)},
    )
    yield other(
        "decibels (10 log10) in place of the natural log",
        **{"mean": right.mean * np.log(10) / 10, "std": right.std * np.log(10) / 10},
    )
    yield other("samples in [-1, 1] in place of int16", sample_scale=1.0)
    yield other("no pre-emphasis (0.97)", pre_emphasis=0.0)
    yield other("a Hann window in place of none", window="hann")
    yield other("librosa's mel filters in place of whole bins", bank="mel")
    yield other("an FFT of 512 in place of 1024", n_fft=512)
    yield other("an FFT of 2048 in place of 1024", n_fft=2048)
    for ms in (25, 30, 32):
        samples = rate_hz * ms // 1000
        frames = 1 + (rate_hz - samples) // right.hop_samples
        if samples <= right.n_fft:
            yield other(
                f"windows of {ms} ms in place of 20",
                window_samples=samples,
                frames=frames,
            )
    yield other(
        "frames are centred: half a window of zeros comes first",
        pad_samples=right.window_samples // 2,
    )
    for rate in (16_000, 22_050, 24_000, 44_100, 48_000):
        if rate != rate_hz:
            yield Setting(
                f"sound of {rate} Hz under the name of {rate_hz} Hz", right, 0, rate
            )
    for size in range(STEP_MS, FURTHEST_MS + 1, STEP_MS):
        for ms in (size, -size):
            side = "later" if ms > 0 else "earlier"
            yield Setting(f"the second begins {size} ms {side}", right, ms)


class Sound:
    """A video's sound around a time."""

    def __init__(self, path: Path, middle_ms: int) -> None:
        """Two seconds to each side, decoded anew for each rate."""
        self._path, self._middle_ms = path, middle_ms
        self._first = max(0, middle_ms // 1000 - 2)
        self._waves: dict[int, np.ndarray] = {}

    def second(self, offset_ms: int, rate_hz: int, samples: int) -> np.ndarray:
        """float32 [samples] in [-1, 1], zeros where there is none.

        Args:
            offset_ms: From half a second before the middle.
            rate_hz: Of the samples.
            samples: How many.
        """
        if rate_hz not in self._waves:
            wanted = range(self._first, self._first + 5)
            found = read_sounds(self._path, wanted, rate_hz=rate_hz)
            if not found:
                raise VisxpError(
                    f"{printable(self._path)} must have sound at "
                    f"{self._middle_ms / 1000:.1f} s, but has none there."
                )
            empty = np.zeros(rate_hz, np.int16)
            self._waves[rate_hz] = np.concatenate(
                [found.get(second, empty) for second in wanted]
            )
        wave = self._waves[rate_hz]
        begin_ms = self._middle_ms - 500 + offset_ms - 1000 * self._first
        begin = begin_ms * rate_hz // 1000
        out = np.zeros(samples, np.float32)
        kept = wave[max(begin, 0) : max(begin + samples, 0)]
        at = max(-begin, 0)
        out[at : at + len(kept)] = kept.astype(np.float32) / 32_768
        return out


def difference(found: np.ndarray, reference: np.ndarray) -> float:
    """Largest, over the frames that both have; infinite if bands differ."""
    if len(found) != len(reference):
        return float("inf")
    frames = min(found.shape[1], reference.shape[1])
    return float(np.abs(found[:, :frames] - reference[:, :frames]).max())


def compare(video: Path, reference: Path) -> list[str]:
    """What to say of a reference and the same second of a video.

    Returns:
        Lines; the first begins with 'equal' or 'differs'.

    Raises:
        VisxpError: a file cannot be used.
    """
    middle_ms, rate_hz = time_and_rate(reference)
    if rate_hz not in VISXP_RATES_HZ:
        raise VisxpError(
            f"{os.fspath(reference)!r} must be named by its time and a rate that is a "
            f"multiple of {VISXP_RATES_HZ.step} from {VISXP_RATES_HZ[0]} to "
            f"{VISXP_RATES_HZ[-1]}, got {rate_hz}."
        )
    stored = read_pickled_dict(reference).get("audio")
    if stored is None or stored.ndim != 3 or stored.shape[0] != 1 or not stored.size:
        got = "nothing of that name" if stored is None else str(list(stored.shape))
        raise VisxpError(
            f"{os.fspath(reference)!r} must have an array [1, bands, frames] named "
            f"'audio', got {got}."
        )
    if not np.isfinite(stored).all():
        raise VisxpError(
            f"{os.fspath(reference)!r} must be finite, got NaN or infinity."
        )
    wanted = stored[0].astype(np.float64)
    sound, right = Sound(video, middle_ms), visxp_at(rate_hz)

    def error(setting: Setting) -> float:
        wave = sound.second(
            setting.offset_ms, setting.rate_hz or rate_hz, setting.spectrogram.rate_hz
        )
        return difference(setting.spectrogram.log_mel(wave), wanted)

    notes = []
    if wanted.shape != right.shape:
        notes.append(
            f"shape: [1, {right.bands}, {right.frames}] expected, got "
            f"{list(stored.shape)}; {_why(wanted.shape, right.shape)}"
        )
    own = error(Setting("", right))
    if own < TOLERANCE:
        return [f"equal: largest difference {own:.1e} (limit {TOLERANCE})", *notes]
    with warnings.catch_warnings():  # librosa's, of filters that no bin feeds
        warnings.simplefilter("ignore", UserWarning)
        tried = [(error(setting), setting.name) for setting in settings(rate_hz)]
    best, name = min(tried)
    first = f"differs: largest difference {own:.2g} (limit {TOLERANCE})"
    if best < TOLERANCE:
        return [first, f"because: {name} (then {best:.1e})", *notes]
    near = "no single setting explains it"
    if np.isfinite(best):  # or the bands are others, whatever is tried
        near += f"; nearest: {name} (then {best:.2g})"
    return [first, near, *notes]


def _why(got: tuple[int, ...], want: tuple[int, ...]) -> str:
    if got[0] != want[0]:
        return "another number of bands"
    if got[1] < want[1]:
        return "the window reaches over the end of the sound, or windows are longer"
    return "windows are padded at both ends"


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
        lines = compare(args.video, args.reference)
        print("\n".join(lines))
        return 0 if lines[0].startswith("equal") else 1
    well = True
    for there, line in installation():
        print(f"{'ok  ' if there else 'BAD '} {line}")
        well = well and there
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
