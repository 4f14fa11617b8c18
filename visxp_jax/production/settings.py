"""The YAML file that goes with a VisXP checkpoint."""

import ast
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from visxp_jax.errors import VisxpError
from visxp_jax.production.files import Unreadable, read_bytes

MAX_BYTES = 2**16
MAX_LITERAL = 500  # characters
# What YAML raises for values that are not what their tags say.
WRONG = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std, a number for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class AudioSettings:
    """How sounds come to the network."""

    bands: int
    frames: int
    rate_hz: int
    normalisation: Normalisation  # of one channel


@dataclass(frozen=True)
class Settings:
    """What a checkpoint's network is, and what it is given.

    Attributes:
        double_convolution: Two convolutions in each block instead of one.
        classes: Outputs of the head; None for a network of pictures alone.
        size: (height, width) of frames.
        frame: Of red, green and blue, in units of 1.
        audio: None for a network of pictures alone.
    """

    double_convolution: bool
    classes: int | None
    size: tuple[int, int]
    frame: Normalisation
    audio: AudioSettings | None


def read_settings(path: Path) -> Settings:
    """Read MODEL and INPUT of a VisXP model configuration.

    Tuples are written there as text, such as "(256, 256)", which the original
    evaluates; here they are read as literals, and nothing else is.

    Raises:
        VisxpError: it cannot be read, or lacks a value, which is named.
    """
    try:
        values = yaml.load(read_bytes(path, MAX_BYTES), _Plain)  # noqa: S506  (no tags)
    except Unreadable as error:
        raise VisxpError(f"{path} must be a configuration: {error}.") from error
    except RecursionError:
        raise VisxpError(
            f"{path} must be YAML: too much is inside each other."
        ) from None
    except (yaml.YAMLError, *WRONG) as error:
        line = " ".join(str(error).split())[:200]
        raise VisxpError(f"{path} must be YAML: {line}.") from None
    return _Reader(path, values).settings()


class _Plain(yaml.SafeLoader):
    """Of text, numbers and truth values; a reference to another part is a bomb."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (*name) are not allowed")
        return super().compose_node(parent, index)


class _Reader:
    def __init__(self, path: Path, values: Any) -> None:
        self._path = path
        self._values = values

    def settings(self) -> Settings:
        kind = self._at("MODEL.TYPE")
        if kind not in ("AVNet", "VisualNet"):
            raise self._wrong("MODEL.TYPE", "AVNet or VisualNet", kind)
        double = self._at("MODEL.DOUBLE_CONVOLUTION")
        if not isinstance(double, bool):
            raise self._wrong("MODEL.DOUBLE_CONVOLUTION", "true or false", double)
        height, width = self._sizes("INPUT.KEYFRAME.DIMENSIONALITY", 2)
        with_sound = kind == "AVNet"
        return Settings(
            double_convolution=double,
            classes=self._whole("MODEL.N_CLASSES") if with_sound else None,
            size=(height, width),
            frame=self._normalisation("INPUT.KEYFRAME.NORMALIZATION", 3),
            audio=self._audio() if with_sound else None,
        )

    def _audio(self) -> AudioSettings:
        # The first versions of the production system had no second r.
        try:
            self._at("INPUT.SPECTROGRAM")
            section = "INPUT.SPECTROGRAM"
        except VisxpError as error:
            section = "INPUT.SPECTOGRAM"
            try:
                self._at(section)
            except VisxpError:
                raise error from None
        one, bands, frames = self._sizes(f"{section}.DIMENSIONALITY", 3)
        if one != 1:
            raise self._wrong(f"{section}.DIMENSIONALITY", "(1, bands, frames)", one)
        return AudioSettings(
            bands=bands,
            frames=frames,
            rate_hz=self._whole(f"{section}.SAMPLERATE_HZ"),
            normalisation=self._normalisation(f"{section}.NORMALIZATION", 1),
        )

    def _at(self, key: str) -> Any:
        found = self._values
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                raise VisxpError(f"{self._path} must have {key}, but lacks it.")
            found = found[part]
        return found

    def _literal(self, key: str) -> Any:
        found = self._at(key)
        if not isinstance(found, str):
            return found
        try:
            if len(found) > MAX_LITERAL:
                raise ValueError("too long")
            return ast.literal_eval(found.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            raise self._wrong(key, "numbers in brackets", found) from None

    def _whole(self, key: str) -> int:
        found = self._at(key)
        if type(found) is not int or not 1 <= found <= 2**20:
            raise self._wrong(key, "a whole number from 1", found)
        return found

    def _sizes(self, key: str, count: int) -> tuple[int, ...]:
        found = self._literal(key)
        if not (
            isinstance(found, list | tuple)
            and len(found) == count
            and all(type(n) is int and 1 <= n <= 2**14 for n in found)
        ):
            raise self._wrong(key, f"{count} sizes", found)
        return tuple(found)

    def _normalisation(self, key: str, channels: int) -> Normalisation:
        found = self._literal(key)
        if isinstance(found, list | tuple) and len(found) == 2:
            parts = [n if isinstance(n, list | tuple) else (n,) for n in found]
            # One number stands for all channels, as in torchvision.
            parts = [tuple(p) * channels if len(p) == 1 else tuple(p) for p in parts]
            if all(
                len(part) == channels
                and all(type(n) in (int, float) and abs(n) < 1e6 for n in part)
                for part in parts
            ):
                mean, std = (tuple(map(float, part)) for part in parts)
                if all(n > 1e-6 for n in std):
                    return Normalisation(mean, std)
        raise self._wrong(key, f"(mean, std) of {channels} channels", found)

    def _wrong(self, key: str, must: str, got: Any) -> VisxpError:
        return VisxpError(
            f"{self._path}: {key} must be {must}, got {reprlib.repr(got)}."
        )
