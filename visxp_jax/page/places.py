"""Limits on how much is done at once: beyond them a request is told to come again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from visxp_jax.errors import VisxpError

WAIT_S = 30.0  # for a worker
BUSY = "the page is busy; try again in a moment."


class Busy(VisxpError):
    """As much as may be is being done already."""


@contextmanager
def taken(places: threading.Semaphore, wait_s: float = 0.0) -> Iterator[None]:
    """One of several places, for as long as it is needed.

    Args:
        places: As many as there are.
        wait_s: For so long for one to become free.

    Raises:
        Busy: none has.
    """
    if not places.acquire(timeout=wait_s):
        raise Busy(BUSY)
    try:
        yield
    finally:
        places.release()
