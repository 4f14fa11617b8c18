"""Worker processes that crash, hang or eat memory without taking the job along."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

Beat = Callable[[], None]
# Address space of a worker: a few hundred MB are its libraries.
MEMORY_LIMIT_BYTES = 6 * 2**30


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Failure(NamedTuple):
    """A task that gave no result."""

    reason: str
    error: Exception | None  # None if the process crashed or hung


class _Worker:
    """A process, and the task it is at."""

    def __init__(self, function: Callable[[Any, Beat], Any]) -> None:
        # Not fork: the caller may hold threads, of jax for one.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, function), daemon=True
        )
        self.process.start()
        theirs.close()
        self.task: Any = None
        self.seen = time.monotonic()

    def give(self, task: Any) -> None:
        self.task, self.seen = task, time.monotonic()
        # A dead worker is noticed when its pipe is read.
        with suppress(OSError):
            self.pipe.send(task)

    def stop(self) -> int | None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


def run_isolated(
    function: Callable[[Any, Beat], Any],
    tasks: Iterable[Any],
    *,
    timeout_s: float,
    workers: int | None = None,
    on_beat: Beat = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[tuple[Any, Any]]:
    """Results of `function(task, beat)`, each in one of several processes.

    Args:
        function: At the top of a module; calls `beat()` while it makes progress.
        tasks: What to work on; sent to the processes.
        timeout_s: A task that does not beat for so long is killed.
        workers: Number of processes; one per core by default.
        on_beat: Called here for every beat there.
        stopped: Asked now and then; once it says so, what is being done is given up.

    Yields:
        (task, result) as they are done; the result is a `Failure` where the process
        crashed or hung, or the function raised.
    """
    workers = workers or num_cores()
    waiting = iter(tasks)
    pool: list[_Worker] = []
    try:
        for task in waiting:
            pool.append(_Worker(function))
            pool[-1].give(task)
            if len(pool) == workers:
                break
        while pool and not stopped():
            wait([worker.pipe for worker in pool], timeout=1.0)
            for worker in list(pool):
                done = _result(worker, timeout_s, on_beat)
                if done is None:
                    continue
                task = worker.task
                _next_task(pool, worker, function, waiting)
                yield task, done[0]
    finally:
        for worker in pool:
            worker.stop()


class IsolatedProcess:
    """One process for tasks that come one at a time; a new one when it is lost."""

    def __init__(
        self, function: Callable[[Any, Beat], Any], *, timeout_s: float
    ) -> None:
        """Take the arguments of `run_isolated`; nothing is started yet."""
        self._function = function
        self._timeout_s = timeout_s
        self._worker: _Worker | None = None

    def run(self, task: Any) -> Any:
        """The result of a task, or a `Failure`."""
        if self._worker is None or not self._worker.process.is_alive():
            self.close()
            self._worker = _Worker(self._function)
        self._worker.give(task)
        while True:
            wait([self._worker.pipe], timeout=1.0)
            if done := _result(self._worker, self._timeout_s, lambda: None):
                return done[0]

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


def _result(worker: _Worker, timeout_s: float, on_beat: Beat) -> tuple[Any] | None:
    """What a worker came to, or None while it is busy."""
    try:
        while worker.pipe.poll():
            kind, value = worker.pipe.recv()
            worker.seen = time.monotonic()
            if kind == "done":
                return (value,)
            on_beat()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return (Failure(f"crashed ({how})", None),)
    if time.monotonic() - worker.seen > timeout_s:
        worker.stop()
        return (Failure(f"timeout (no clip for {timeout_s:g} s)", None),)
    return None


def _next_task(
    pool: list[_Worker],
    worker: _Worker,
    function: Callable[[Any, Beat], Any],
    waiting: Iterator[Any],
) -> None:
    """Give a worker its next task; replace it if it is gone, dismiss it if none."""
    try:
        task = next(waiting)
    except StopIteration:
        pool.remove(worker)
        worker.stop()
        return
    if not worker.process.is_alive():
        worker.stop()
        pool[pool.index(worker)] = worker = _Worker(function)
    worker.give(task)


def _serve(pipe: Connection, function: Callable[[Any, Beat], Any]) -> None:
    """Work off tasks until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _limit_memory()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = pipe.recv()
            try:
                result = function(task, lambda: pipe.send(("beat", None)))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                result = Failure(f"{type(error).__name__}: {error}", _plain(error))
            pipe.send(("done", result))


def _limit_memory() -> None:
    """A file that would eat the machine's memory fails alone."""
    if sys.platform != "linux":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or soft > MEMORY_LIMIT_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, hard))


def _plain(error: Exception) -> Exception:
    """An exception that surely goes through a pipe."""
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, error.filename)
    return RuntimeError(f"{type(error).__name__}: {error}")
