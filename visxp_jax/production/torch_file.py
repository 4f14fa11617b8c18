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
from visxp_jax.production.files import NoZip, Unreadable, Zip
from visxp_jax.production.pickles import (
    MAX_NAME,
    Name,
    PickleRefused,
    as_dict,
    read_pickle,
)

MAX_BYTES = 4 * 2**30
MAX_LIST_BYTES = 2**20  # of the list of parts: each has 46 and its name there
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
            self._zip = Zip(path, compressed=False, most=MAX_LIST_BYTES)
        except OSError as error:
            raise self._refused(error.strerror or "it cannot be read") from error
        except NoZip as error:
            raise self._refused(
                f"{error}; files of PyTorch before 1.6 must be loaded and saved again "
                "by a newer one"
            ) from error
        except Unreadable as error:
            raise self._refused(str(error)) from error
        # Bytes that tensors may have together, and that may be read for them.
        self._left = self._unread = status.st_size
        self._last: tuple[_Storage, np.ndarray] | None = None
        try:
            self.saved: Any = self._unpickled()
        except BaseException:
            self._zip.close()
            raise

    def _unpickled(self) -> Any:
        parts = self._zip.parts
        pickles = [name for name in parts if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise self._refused("it has no data.pkl, or several")
        (name,) = pickles
        self._root = name.removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        if order in parts and self._read(order, 16) != b"little":
            raise self._refused("its numbers are not little-endian")
        try:
            return read_pickle(
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

        The storage stays in memory until a tensor of another is asked for: ask for
        those of one storage one after another.

        Raises:
            VisxpError: the file does not hold them, so many tensors share them that
                they would be more than it holds, or more than all of it was read.
        """
        storage, numbers = tensor.storage, self._numbers(tensor.storage)
        last = tensor.offset + sum(
            (n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)
        )
        count = math.prod(tensor.shape)
        self._left -= count * storage.dtype.itemsize
        if self._left < 0 or (count and last >= len(numbers)):
            name = ascii(storage.part[:80])
            raise self._refused(f"a tensor reaches beyond its storage {name}")
        strides = tuple(step * storage.dtype.itemsize for step in tensor.strides)
        return np.array(
            np.lib.stride_tricks.as_strided(
                numbers[tensor.offset :], tensor.shape, strides
            )
        )

    def _numbers(self, storage: _Storage) -> np.ndarray:
        if self._last is None or self._last[0] != storage:
            most = storage.size * storage.dtype.itemsize
            data = self._read(f"{self._root}data/{storage.part}", most)
            self._unread -= len(data)
            if self._unread < 0:
                raise self._refused("its storages are more than it holds")
            self._last = storage, np.frombuffer(data, storage.dtype)
        return self._last[1]

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
        case ("storage", Name(full), str(part), str(), size) if (
            _sizes(size) and len(part) <= MAX_NAME
        ):
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
