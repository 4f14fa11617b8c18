"""Where `experiments.hostile` works, and how it runs commands there.

For Linux: a worker process is found by the file that it has open.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from experiments.hostile_folders import TRACE

VISXP = (sys.executable, "-m", "visxp_jax.cli")
LONGEST_S = 900  # of a command that does not end
PROGRESS = re.compile(r"\w+: +\d+/\d+ \w+ \[")


class Seen(NamedTuple):
    """A row of the table."""

    what: str
    command: str
    code: int
    lines: list[str]


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    lines: list[str]  # of stdout, then of stderr


class Scratch:
    """Where all of it happens: inputs, outputs, and nothing else."""

    def __init__(self, root: Path) -> None:
        """Make the folders."""
        self.root, self.out = root, root / "out"
        self.cwd, self.tmp = root / "cwd", root / "tmp"
        for path in (self.out, self.cwd, self.tmp):
            path.mkdir()
        self._own: set[bytes] = set()

    def visxp(
        self,
        *args: str | Path,
        cwd: Path | None = None,
        faults: Mapping[Path, int] = MappingProxyType({}),
    ) -> Done:
        """Run a command to its end.

        Args:
            *args: Of visxp.
            cwd: Where.
            faults: Signals for the worker process that has one of these files open.
        """
        with self.started(*args, cwd=cwd) as process:
            threads = [
                threading.Thread(target=_strike, args=(process, *fault), daemon=True)
                for fault in faults.items()
            ]
            for thread in threads:
                thread.start()
            return ended(process)

    @contextmanager
    def started(
        self, *args: str | Path, cwd: Path | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs."""
        env = {"JAX_PLATFORMS": "cpu", "TMPDIR": str(self.tmp)}
        pythonpath = f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"
        with subprocess.Popen(
            [*VISXP, *(os.fspath(arg) for arg in args)],
            cwd=cwd or self.cwd,
            env=os.environ | env | {"PYTHONPATH": pythonpath},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                yield process
            finally:
                process.kill()  # if something went wrong

    def seal(self) -> None:
        """What is there now is ours."""
        self._own = set(self._files())

    def strange(self) -> list[str]:
        """Files that have come since, but for outputs; and all named as the trace."""
        new = [path for path in self._files() if path not in self._own]
        return [ascii(path) for path in new]

    def _files(self) -> Iterator[bytes]:
        out = os.fsencode(self.out)
        for folder, folders, files in os.walk(os.fsencode(self.root)):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                if name == TRACE.encode() or not path.startswith(out):
                    yield path

    def short(self, line: str) -> str:
        """Without the places of this run."""
        line = line.replace(f"{self.root}/", "")
        return line.replace(str(self.root), ".")


def ended(process: subprocess.Popen[bytes]) -> Done:
    """What a command has said, once it has ended; how far it was does not count."""
    told = process.communicate(timeout=LONGEST_S)
    lines = "".join(x.decode("utf-8", "backslashreplace") for x in told).splitlines()
    return Done(process.returncode, [x for x in lines if not PROGRESS.match(x)])


def _strike(process: subprocess.Popen, path: Path, number: int) -> None:
    """Send a signal to the process below a command that has a file open."""
    wanted = os.fspath(path)
    while process.poll() is None:
        for child in _below(process.pid):
            try:
                held = [os.readlink(fd) for fd in Path(f"/proc/{child}/fd").iterdir()]
            except OSError:
                continue  # it has ended, or closed one
            if wanted in held:
                os.kill(child, number)
                return
        time.sleep(0.002)


def _below(pid: int) -> list[int]:
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_below(int(child))]
    except OSError:
        pass  # it has ended
    return found
