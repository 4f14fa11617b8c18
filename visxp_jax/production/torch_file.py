"""Tensors of a file that torch.save wrote, without torch and without running it.

Such a file is a zip: 'NAME/data.pkl', a pickle of what was saved, in which tensors
refer to storages, and 'NAME/data/0', 'NAME/data/1', ... with their bytes.
"""

import math
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.production.files import Unreadable, Zip
from visxp_jax.production.pickles import Name, PickleRefused, as_dict, read_pickle

MAX_BYTES = 4 * 2**30
MAX_PARTS = 100_000
MAX_PICKLE_BYTES = 64 * 2**20
MAX_DIMENSIONS = 8

_DTYPES: dict[str, np.dtype] = {
    f"torch.{name}Storage": np.dtype(kind)
    for name, kind in {
        "Float": "<f4",
        "Double": "<f8",
        "Half": "<f2",
        "BFloat16": ml_dtypes.bfloat16,
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}


class _Storage(NamedTuple):
    """Numbers without a shape, not read yet."""

    part: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A tensor of a file, whose numbers are not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


class TorchFile:
    """What torch.save wrote; tensors are read when they are asked for.

    Attributes:
        saved: The value, of plain values and `Tensor`.
    """

    def __init__(self, path: Path) -> None:
        """Read the pickle.

        Raises:
            VisxpError: it cannot be read, is no such file, is over a limit, or names
                anything but tensors and plain values.
        """
        self._path = path
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise self._refused("it is not a file")
            if status.st_size > MAX_BYTES:
                raise self._refused(f"it is over the limit of {MAX_BYTES:,} bytes")
            self._zip = Zip(path, compressed=False)
        except OSError as error:
            raise self._refused(error.strerror or "it cannot be read") from error
        except Unreadable as error:
            raise self._refused(
                f"{error}; files of PyTorch before 1.6 must be loaded and saved again "
                "by a newer one"
            ) from error
        self._left = status.st_size  # of numbers that tensors may have together
        parts = self._zip.parts
        if len(parts) > MAX_PARTS:
            raise self._refused(f"it is over the limit of {MAX_PARTS:,} parts")
        pickles = [name for name in parts if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise self._refused("it has no data.pkl, or several")
        (name,) = pickles
        self._root = name.removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        if order in parts and self._read(order, 16) != b"little":
            raise self._refused("its numbers are not little-endian")
        try:
            self.saved: Any = read_pickle(
                self._read(name, MAX_PICKLE_BYTES),
                {
                    "collections.OrderedDict": lambda pairs=(): as_dict(pairs),
                    "torch._utils._rebuild_tensor_v2": _tensor,
                    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
                },
                persistent=_storage,
            )
        except PickleRefused as error:
            raise self._refused(str(error).removesuffix(".")) from error

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def array(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor, of its shape and type.

        Raises:
            VisxpError: the file does not hold them, or so many tensors share them that
                they would be more than it holds.
        """
        storage, name = tensor.storage, f"{self._root}data/{tensor.storage.part}"
        numbers = np.frombuffer(
            self._read(name, storage.size * storage.dtype.itemsize), storage.dtype
        )
        last = tensor.offset + sum(
            (n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)
        )
        count = math.prod(tensor.shape)
        self._left -= count * storage.dtype.itemsize
        if self._left < 0 or (count and last >= len(numbers)):
            raise self._refused(f"a tensor reaches beyond its part {ascii(name)}")
        strides = tuple(step * storage.dtype.itemsize for step in tensor.strides)
        return np.array(
            np.lib.stride_tricks.as_strided(
                numbers[tensor.offset :], tensor.shape, strides
            )
        )

    def _read(self, name: str, most: int) -> bytes:
        try:
            return self._zip.read(name, most)
        except Unreadable as error:
            raise self._refused(str(error)) from error

    def _refused(self, why: str) -> VisxpError:
        path = ascii(os.fspath(self._path))
        return VisxpError(f"{path} must be a checkpoint that torch.save wrote: {why}.")


def _sizes(*values: Any) -> bool:
    """Whether these are numbers as small as sizes of arrays are."""
    return all(type(n) is int and 0 <= n < 2**40 for n in values)


def _storage(reference: Any) -> _Storage:
    match reference:
        case ("storage", Name(full), str(part), str(), size) if _sizes(size):
            if full not in _DTYPES:
                raise PickleRefused(f"numbers of type {full[:80]!r} are not known.")
            return _Storage(part, _DTYPES[full], size)
    raise PickleRefused("a tensor must refer to a storage, got something else.")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    match (storage, offset, shape, strides):
        case (_Storage(), int(), tuple(), tuple()) if len(shape) == len(
            strides
        ) <= MAX_DIMENSIONS and _sizes(offset, *shape, *strides):
            return Tensor(storage, offset, shape, strides)
    raise PickleRefused("a tensor must have a storage, an offset, a shape and strides.")
