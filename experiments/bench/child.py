"""A rival in PyTorch, in a process and usually an environment of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any


class TorchProcess:
    """Asked by lines of JSON; it answers each with one."""

    def __init__(self, python: str, script: str, *options: str) -> None:
        """Start it and wait until it is ready.

        Args:
            python: Of an environment that has torch and numpy.
            script: Name of a file beside this one.
            *options: Of its command line.
        """
        path = Path(__file__).with_name(script)
        self._process = subprocess.Popen(
            [python, str(path), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"the PyTorch process ended with code {self._process.wait()}; "
                "--torch-python must name a Python that has torch and numpy."
            )
        return json.loads(line)

    def run(self, **request: Any) -> Any:
        """Do it and come back with the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
