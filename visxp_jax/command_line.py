"""How every command reads its arguments, and how it ends."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

from visxp_jax.errors import VisxpError

P = ParamSpec("P")
NEGATIVE = re.compile(r"-\d*\.?\d+")  # and no option


def command(stopped: str) -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Decorates the entry point of a command; SIGTERM stops it as Ctrl-C does.

    Args:
        stopped: What to say once it was stopped: what is kept.

    Returns:
        Makes it return its exit code: its own or 0, 2 on a mistake in the input, 130 if
        it was stopped. Of the last two it says so in one line on stderr.
    """

    def decorate(main: Callable[P, int | None]) -> Callable[P, int]:
        @wraps(main)
        def ended(*args: P.args, **kwargs: P.kwargs) -> int:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                return main(*args, **kwargs) or 0
            except VisxpError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(stopped, file=sys.stderr)
                return 130

        return ended

    return decorate


def without(inputs: Iterable[Path]) -> list[str]:
    """The command line but for its inputs, for what is written beside each output.

    There may be a million of them, and each output names its own.
    """
    left_out = set(inputs)
    return [arg for arg in sys.argv if Path(arg) not in left_out]


def add_strict(parser: argparse.ArgumentParser) -> None:
    """The option --strict, for `tell_skipped`."""
    parser.add_argument(
        "--strict", action="store_true", help="exit code 2 if any input is skipped"
    )


def tell_skipped(skipped: int, of: int, *, strict: bool) -> None:
    """The end of a command that goes on where one of its inputs cannot be used.

    Raises:
        VisxpError: all are skipped, or any if `strict`: else damaged files, which every
            archive has, would make each night's work a failure.
    """
    told = f"{skipped} of {of} were skipped."
    if skipped and (strict or skipped == of):
        raise VisxpError(told)
    if skipped:
        print(told, file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Of a command line; a mistake in it is one line, and usage is for --help."""

    def __init__(self, prog: str, description: str | None = None, **more: Any) -> None:
        """Its description is shown as it is written."""
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=raw, **more)
        self._given: list[str] = []

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As of argparse, but whatever is unknown is a mistake, after a verb too."""
        self._given = sys.argv[1:] if args is None else list(args)
        found, unknown = super().parse_known_args(self._given, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """End with one line and exit code 2."""
        # argparse takes such a name for an option, and then misses something else.
        given = takewhile(lambda arg: arg != "--", self._given)
        strange = next(filter(self._is_no_option, given), None)
        if strange is not None:
            message = f"there is no option {strange}"
            if os.path.lexists(strange) or not strange.startswith("--"):
                message += f"; a file of that name is written ./{strange}"
        line = message if message.isprintable() else repr(message)[1:-1]
        self.exit(2, f"error: {line}; see {self.prog} --help\n")

    def _is_no_option(self, arg: str) -> bool:
        """Whether it begins with a dash, but is none of the options."""
        if not arg.startswith("-") or " " in arg or NEGATIVE.fullmatch(arg):
            return False
        if self._subparsers is not None:
            return False  # it may be one of the verb's
        options, name = self._option_string_actions, arg.partition("=")[0]
        if name in options:
            return False
        # Options may be cut short, and `-k5` has its value in it.
        like_one = arg[:2] in options or any(x.startswith(name) for x in options)
        return os.path.lexists(arg) or not like_one
