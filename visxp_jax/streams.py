"""Streams of items: read ahead in a thread, and grouped for batches."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any, TypeVar

T = TypeVar("T")
WAIT_S = 0.1


def read_ahead(
    make: Callable[[Callable[[], bool]], Generator[T]], size: int
) -> Generator[T]:
    """Items of a generator that runs up to `size` items ahead, in a thread of its own.

    What it raises is raised here; it is closed when this is.

    Args:
        make: Of a function that says whether to stop, for a generator that may take
            long over an item; called here.
        size: Number of items that wait at most.
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(size)
    stopped = threading.Event()
    items = make(stopped.is_set)

    def put(kind: str, value: Any = None) -> None:
        there = False
        while not there and not stopped.is_set():
            with suppress(queue.Full):
                waiting.put((kind, value), timeout=WAIT_S)
                there = True

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    put("item", item)
                    if stopped.is_set():
                        return
        except BaseException as error:
            put("error", error)
        put("end")

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()


def groups(items: Iterable[T], size: int, kind: type) -> Iterator[list[T]]:
    """Lists with `size` items of one kind each, and what comes among these.

    Args:
        items: In the order that they stay in.
        size: Of a batch.
        kind: Of what fills it.

    Yields:
        The last list has fewer, or none, and what comes after them.
    """
    group, count = [], 0
    for item in items:
        group.append(item)
        count += isinstance(item, kind)
        if count == size:
            yield group
            group, count = [], 0
    yield group
