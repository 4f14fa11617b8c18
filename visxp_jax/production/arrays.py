"""The npz files of VisXP's spectrograms: a dict pickled inside, read as data."""

import ast
import io
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from visxp_jax.atomic import write_whole
from visxp_jax.errors import VisxpError
from visxp_jax.production.pickles import Buildable, PickleRefused, read_pickle

MAX_BYTES = 64 * 2**20  # of a file, and of what is in it


class _DType(Buildable):
    """numpy.dtype, of plain numbers or of objects."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if not isinstance(kind, str) or kind[:1] not in ("f", "i", "u", "b", "O"):
            raise PickleRefused(f"arrays may not be of type {kind!r}")
        self.is_object = kind.startswith("O")
        self._kind = kind
        self._order: Any = "="

    def build(self, state: Any) -> None:
        """Take the order of bytes."""
        match state:
            case (_, ("<" | ">" | "|" | "=") as order, *_):
                self._order = order
            case _:
                raise PickleRefused("a type of numbers has no order of bytes")

    @property
    def plain(self) -> np.dtype:
        """Of numbers."""
        return np.dtype(self._kind).newbyteorder(self._order)


class _Array(Buildable):
    """numpy.ndarray."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def build(self, state: Any) -> None:
        """Take shape, type and bytes; of an array of objects, a list of these."""
        match state:
            case (_, tuple(shape), _DType() as dtype, bool() | int() as fortran, raw):
                if not all(type(n) is int and n >= 0 for n in shape):
                    raise PickleRefused("an array has no shape")
                if dtype.is_object and isinstance(raw, list):
                    self.value = raw
                    return
                if not dtype.is_object and isinstance(raw, bytes):
                    numbers = np.frombuffer(raw, dtype.plain)
                    if numbers.size != math.prod(shape):
                        raise PickleRefused("an array is not of its shape")
                    self.value = numbers.reshape(shape, order="F" if fortran else "C")
                    return
        raise PickleRefused("an array has no numbers")


def _encoded(text: Any, encoding: Any) -> bytes:
    """How pickles before protocol 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise PickleRefused("bytes must be written as latin1")
    return text.encode("latin1")


MEANING: dict[str, Any] = {
    "numpy.dtype": _DType,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "_codecs.encode": _encoded,
}


def read_pickled_dict(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file that holds one dict of them, as VisXP writes it.

    Never by numpy's own unpickling: a name that is not of arrays is refused.

    Raises:
        VisxpError: it cannot be read, is over a limit, or holds anything else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _refused(path, f"it is over the limit of {MAX_BYTES:,} bytes")
        with zipfile.ZipFile(path) as file:
            (part,) = file.infolist()
            if part.file_size > MAX_BYTES:
                raise _refused(path, f"it is over the limit of {MAX_BYTES:,} bytes")
            data = file.read(part)
        value = _read_npy(data)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    except PickleRefused as error:
        raise _refused(path, str(error).removesuffix(".")) from error
    except VisxpError:
        raise
    except (ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise _refused(path, f"it is damaged: {error}") from error
    if not isinstance(value, dict):
        raise _refused(path, "there is no dict in it")
    arrays = {}
    for name, array in value.items():
        if not isinstance(name, str) or not isinstance(array, _Array):
            raise _refused(path, "its dict holds more than arrays")
        if not isinstance(array.value, np.ndarray):
            raise _refused(path, f"{name!r} is no array of numbers")
        arrays[name] = array.value
    return arrays


def _read_npy(data: bytes) -> Any:
    """The one object of an array of objects in numpy's file format."""
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise ValueError("no array of numpy")
    wide = data[6] > 1
    start = 12 if wide else 10
    (length,) = struct.unpack("<I" if wide else "<H", data[8:start])
    header = ast.literal_eval(data[start : start + length].decode("latin1").strip())
    if header != {"descr": "|O", "fortran_order": False, "shape": ()}:
        raise ValueError(f"one pickled dict expected, got {header}")
    match read_pickle(data[start + length :], MEANING):
        case _Array(value=[value]):
            return value
    raise ValueError("one pickled dict expected")


def write_pickled_dict(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write such a file, byte by byte as `numpy.savez(path, arrays)` does."""
    out = io.BytesIO()
    np.savez(out, arrays)  # type: ignore[arg-type]
    write_whole(path, out.getvalue())


def _refused(path: Path, why: str) -> VisxpError:
    return VisxpError(
        f"{os.fspath(path)!r} must be a spectrogram as VisXP writes them: {why}."
    )
