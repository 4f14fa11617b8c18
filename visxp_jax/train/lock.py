"""One run at a time that writes into a folder."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visxp_jax.errors import VisxpError

LOCK = "LOCK"


@contextmanager
def locked(workdir: Path, *, name: str = LOCK) -> Iterator[None]:
    """Hold WORKDIR/<name> for the duration; the system lets go if the process dies.

    Each host of a multi-host run holds a file of its own.

    Raises:
        VisxpError: another process holds it, or the directory cannot be written; says
            who and since when.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = open(workdir / name, "a+")  # noqa: SIM115  (held past this block)
    except OSError as error:
        raise VisxpError(f"cannot write to {workdir}: {error}.") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise VisxpError(
                f"{workdir} must not be in use, but another run holds it "
                f"({handle.read().strip() or 'unknown'}); wait, or use another."
            ) from None
        handle.seek(0)
        handle.truncate()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        handle.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        handle.flush()
        yield
