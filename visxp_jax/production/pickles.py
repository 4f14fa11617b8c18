"""Pickles read as data: a list of what to build, of which nothing is ever called.

A pickle is a program. This reads it instruction by instruction with the standard
library's disassembler, keeps plain values, and refuses every name that the caller did
not give a meaning to: nothing is imported, and no code from the file can run.
"""

import pickletools
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from visxp_jax.errors import VisxpError

# Of one pickle: instructions, of which each may make an empty dict out of one byte.
MAX_STEPS = 1_000_000
# What calls may make: values and bytes, beside its own length, and entries of dicts.
MAX_MADE = 1_000_000
MAX_ENTRIES = 100_000
MAX_BITS = 64  # of whole numbers: to hash a long one takes long each time
MAX_NAME = 1_000  # characters: to compare or join long ones takes long each time


class PickleRefused(VisxpError):
    """A pickle that is damaged, too large, or asks for something it may not have."""


class Name(NamedTuple):
    """A class or function that a pickle names; only a name here."""

    full: str  # 'module.name'


class Buildable:
    """A value that a pickle makes in two steps."""

    def build(self, state: Any) -> None:
        """Take the state that the second step brings."""
        raise NotImplementedError


class _Mark:
    """Where the arguments of an instruction begin on the stack."""


_MARK = _Mark()


def read_pickle(
    data: bytes,
    meaning: Mapping[str, Callable[..., Any]],
    *,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value that a pickle describes.

    Args:
        data: One pickle, of any protocol.
        meaning: What to make of a call of 'module.name', by functions of its arguments
            that do nothing but make values. A value that gets a state afterwards must
            be `Buildable`; what a dict gets is dropped.
        persistent: What to make of a reference to something outside the pickle.

    Returns:
        Plain values, `Name`, and what `meaning` and `persistent` made.

    Raises:
        PickleRefused: it names anything else, or is damaged.
    """
    machine = _Machine(meaning, persistent, MAX_MADE + len(data))
    try:
        for step, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            if step >= MAX_STEPS:
                raise PickleRefused(f"a pickle must have at most {MAX_STEPS:,} steps.")
            machine.run(opcode.name, arg)
        return machine.result()
    except PickleRefused:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        why = " ".join(str(error).split())[:200]
        raise PickleRefused(f"a pickle is damaged: {why}.") from None


class _Machine:
    def __init__(
        self,
        meaning: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any] | None,
        budget: int,
    ) -> None:
        self._budget = budget  # of values and bytes that calls make
        self._entries = MAX_ENTRIES
        self._meaning = meaning
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        (value,) = self._stack
        return value

    def run(self, name: str, arg: Any) -> None:
        stack = self._stack
        if name in _IGNORED:
            return
        if name in _LITERAL:
            if isinstance(arg, int) and arg.bit_length() > MAX_BITS:
                raise PickleRefused(
                    f"numbers must be of at most {MAX_BITS // 8} bytes."
                )
            stack.append(arg)
        elif name in _CONSTANT:
            stack.append(_CONSTANT[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[arg])
        elif name in _TUPLE:
            values = [stack.pop() for _ in range(_TUPLE[name])]
            stack.append(tuple(reversed(values)))
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name == "LIST":
            stack.append(self._marked())
        elif name == "DICT":
            stack.append(_pairs(self._marked()))
        elif name in ("APPEND", "APPENDS"):
            values = [stack.pop()] if name == "APPEND" else self._marked()
            _as(list, stack[-1]).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEM":
                value, key = stack.pop(), stack.pop()
                values = [key, value]
            else:
                values = self._marked()
            _as(dict, stack[-1]).update(_pairs(values))
        elif name == "GLOBAL":
            stack.append(Name(arg.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            last, first = stack.pop(), stack.pop()
            if len(_as(str, first)) + len(_as(str, last)) > MAX_NAME:
                raise PickleRefused(
                    f"names must be of at most {MAX_NAME:,} characters."
                )
            stack.append(Name(f"{first}.{last}"))
        elif name in ("REDUCE", "NEWOBJ"):
            args, what = stack.pop(), stack.pop()
            stack.append(self._made(what, _as(tuple, args)))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], dict):
                _as(Buildable, stack[-1]).build(state)
        elif name == "BINPERSID" and self._persistent:
            stack.append(self._persistent(stack.pop()))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            raise PickleRefused(f"a pickle may not hold the instruction {name}.")

    def _made(self, what: Any, args: tuple) -> Any:
        full = _as(Name, what).full
        if full not in self._meaning:
            raise PickleRefused(
                f"a pickle may not call {reprlib.repr(full)}; nothing of it was run."
            )
        made = self._meaning[full](*args)
        self._budget -= len(made) if isinstance(made, bytes) else 1
        self._entries -= len(made) if isinstance(made, dict) else 0
        if min(self._budget, self._entries) < 0:
            raise PickleRefused("a pickle makes too much of too little.")
        return made

    def _marked(self) -> list[Any]:
        """What was put on the stack after the last mark, taken from it."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise PickleRefused("a pickle is damaged: a mark is missing.")
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise PickleRefused(
            f"a pickle is damaged: {kind.__name__} expected, got "
            f"{type(value).__name__}."
        )
    return value


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return as_dict(zip(values[::2], values[1::2], strict=True))


def as_dict(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict by short names or numbers: others could take forever to find a place.

    Raises:
        PickleRefused: a key is something else, or too long.
    """
    found = {}
    for key, value in pairs:
        if type(key) not in (str, int, bool):
            raise PickleRefused("keys of a dict must be names or numbers.")
        if isinstance(key, str) and len(key) > MAX_NAME:
            raise PickleRefused(f"names must be of at most {MAX_NAME:,} characters.")
        found[key] = value
    return found


_IGNORED = {"PROTO", "FRAME", "STOP"}
_LITERAL = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "FLOAT", "BINFLOAT"),
}
_CONSTANT: dict[str, Any] = {
    **{"NONE": None, "NEWTRUE": True, "NEWFALSE": False},
    **{"EMPTY_TUPLE": (), "MARK": _MARK},
}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLE = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
