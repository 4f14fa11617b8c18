"""Progress of long work: a bar on a terminal, a line now and then in a log file."""

import sys
from typing import Any

from tqdm import tqdm

LOG_EVERY_S = 30.0
_LINE = (
    "{desc}: {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
)


class _Lines:
    """Makes of a bar that is drawn over and over one line each time."""

    def write(self, text: str) -> None:
        if line := text.strip():  # tqdm sends also what moves the cursor
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(*, shown: bool = True, **options: Any) -> tqdm:
    """How far some work is, at which rate, and how long it will take yet, on stderr.

    Where stderr is no terminal, nothing is written in the first `LOG_EVERY_S` seconds,
    then a line that often, and one at the end.

    Args:
        shown: False for none of it.
        **options: Of tqdm, such as total, initial, desc and unit.
    """
    if not sys.stderr.isatty():
        options |= {
            "file": _Lines(),
            "bar_format": _LINE,
            "delay": LOG_EVERY_S,
            "mininterval": LOG_EVERY_S,
            "maxinterval": LOG_EVERY_S,
        }
    return tqdm(disable=not shown, **options)
