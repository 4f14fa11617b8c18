"""Writes what torch.save writes, without torch: for tests alone."""

import collections
import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "u1": "Byte"}


class Saved:
    """A tensor to be; a part of another array, `whole`, if it shares the storage."""

    def __init__(self, array: np.ndarray, whole: np.ndarray | None = None) -> None:
        self.array, self.whole = array, whole


def _rebuild_tensor_v2(*args: Any) -> None:
    raise AssertionError("a pickle was run")


def save(path: Path, value: Any, *, pickled: bytes | None = None) -> None:
    """Write a value of plain values and `Saved` as torch would.

    Args:
        path: Of the file.
        value: What to save.
        pickled: The pickle to write instead.
    """
    parts: list[np.ndarray] = []
    torch = types.ModuleType("torch")
    kinds = {}
    for name in STORAGES.values():
        kind = type(f"{name}Storage", (), {"__module__": "torch"})
        kinds[name] = kind
        setattr(torch, kind.__name__, kind)
    inner = types.ModuleType("torch._utils")
    rebuild = types.FunctionType(
        _rebuild_tensor_v2.__code__, {}, name="_rebuild_tensor_v2"
    )
    rebuild.__module__ = "torch._utils"
    rebuild.__qualname__ = "_rebuild_tensor_v2"
    inner.__dict__["_rebuild_tensor_v2"] = rebuild

    class Storage:
        def __init__(self, number: int, array: np.ndarray) -> None:
            self.number, self.array = number, array

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if not isinstance(obj, Storage):
                return None
            kind = kinds[STORAGES[obj.array.dtype.str[1:]]]
            return ("storage", kind, str(obj.number), "cpu", obj.array.size)

        def reducer_override(self, obj: Any) -> Any:
            if not isinstance(obj, Saved):
                return NotImplemented
            array, offset = obj.array, 0
            if obj.whole is not None:
                bytes_before = array.ctypes.data - obj.whole.ctypes.data
                offset = bytes_before // array.itemsize
            stored = np.ascontiguousarray(array) if obj.whole is None else obj.whole
            known = [number for number, part in enumerate(parts) if part is stored]
            if not known:
                parts.append(stored)
            strides = tuple(
                int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)
            )
            number = known[0] if known else len(parts) - 1
            storage = Storage(number, stored)
            args = (
                storage,
                offset,
                array.shape,
                strides,
                False,
                collections.OrderedDict(),
            )
            return rebuild, args

    out = io.BytesIO()
    names = {"torch": torch, "torch._utils": inner}
    sys.modules.update(names)
    try:
        Pickler(out, protocol=2).dump(value)
    finally:
        for name in names:
            del sys.modules[name]
    with zipfile.ZipFile(path, "w") as file:
        root = path.stem
        file.writestr(
            f"{root}/data.pkl", out.getvalue() if pickled is None else pickled
        )
        file.writestr(f"{root}/byteorder", "little")
        for number, part in enumerate(parts):
            file.writestr(f"{root}/data/{number}", part.tobytes())
        file.writestr(f"{root}/version", "3\n")
