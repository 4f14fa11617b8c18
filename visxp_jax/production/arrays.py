"""The npz files of VisXP's spectrograms: a dict pickled inside, read as data."""

import io
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.production.files import Unreadable, Zip, read_bytes
from visxp_jax.production.pickles import Buildable, PickleRefused, read_pickle

MAX_BYTES = 64 * 2**20  # of a file, and of what is in it
MAX_LIST_BYTES = 2**10  # of one part
PART = "arr_0.npy"
KIND = re.compile("[fiu][1248]|b1|O8?")
# Of numpy's format, versions 1 to 3, for one pickled object.
HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '\|O', 'fortran_order': False, 'shape': \(\), \} *\n",
    re.DOTALL,
)


class _DType(Buildable):
    """numpy.dtype, of plain numbers or of objects."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if not isinstance(kind, str) or not KIND.fullmatch(kind):
            raise PickleRefused("arrays must be of numbers.")
        self.is_object = kind.startswith("O")
        self._kind = kind
        self._order: Any = "="

    def build(self, state: Any) -> None:
        """Take the order of bytes."""
        match state:
            case (_, ("<" | ">" | "|" | "=") as order, *_):
                self._order = order
            case _:
                raise PickleRefused("a type of numbers has no order of bytes.")

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
                if not all(type(n) is int and 0 <= n < 2**40 for n in shape[:8]):
                    raise PickleRefused("an array has no shape.")
                if dtype.is_object and isinstance(raw, list):
                    self.value = raw
                    return
                if not dtype.is_object and isinstance(raw, bytes):
                    numbers = np.frombuffer(raw, dtype.plain)
                    if len(shape) > 8 or numbers.size != math.prod(shape):
                        raise PickleRefused("an array is not of its shape.")
                    self.value = numbers.reshape(shape, order="F" if fortran else "C")
                    return
        raise PickleRefused("an array has no numbers.")


def _encoded(text: Any, encoding: Any) -> bytes:
    """How pickles before protocol 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise PickleRefused("bytes must be written as latin1.")
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
        data = read_bytes(path, MAX_BYTES)
        file = Zip(data, compressed=True, most=MAX_LIST_BYTES)
        if list(file.parts) != [PART]:
            raise Unreadable(f"{PART} must be its one part")
        value = _read_npy(file.read(PART, MAX_BYTES))
        if not isinstance(value, dict):
            raise Unreadable("there is no dict in it")
        arrays = {}
        for name, array in value.items():
            if not isinstance(name, str) or not isinstance(array, _Array):
                raise Unreadable("its dict holds more than arrays")
            if not isinstance(array.value, np.ndarray):
                raise Unreadable("its dict holds more than arrays of numbers")
            arrays[name] = array.value
    except (Unreadable, PickleRefused) as error:
        why = str(error).removesuffix(".")
        raise VisxpError(
            f"{ascii(os.fspath(path))} must be a spectrogram as VisXP writes them: "
            f"{why}."
        ) from error
    return arrays


def _read_npy(data: bytes) -> Any:
    """The one object of an array of objects in numpy's file format."""
    found = HEADER.match(data)
    if found is None:
        raise Unreadable("one pickled dict expected, got something else")
    match read_pickle(data[found.end() :], MEANING):
        case _Array(value=[value]):
            return value
    raise Unreadable("one pickled dict expected, got something else")


def pickled_dict(arrays: dict[str, np.ndarray]) -> bytes:
    """Such a file, byte by byte as `numpy.savez(path, arrays)` writes it."""
    out = io.BytesIO()
    np.savez(out, arrays)  # type: ignore[arg-type]
    return out.getvalue()
