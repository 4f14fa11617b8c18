"""Where numbers go: WORKDIR/metrics.jsonl always, TensorBoard through clu if it can."""

import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from visxp_jax.atomic import write_whole


class Writer(Protocol):
    """Part of clu's `MetricWriter` that is used here."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars of one step."""

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write texts of one step."""

    def flush(self) -> None:
        """Make what was written visible."""

    def close(self) -> None:
        """Flush, and let go of the file."""


class JsonlWriter:
    """One JSON object per line: {"step": ..., name: number or text, ...}.

    On opening, lines that will be written again are dropped: a run that died after its
    last checkpoint left them.
    """

    def __init__(self, path: Path, *, first_step: int, unlogged: int = 0) -> None:
        """Open for appending.

        Args:
            path: Of the file.
            first_step: Where the run starts or goes on.
            unlogged: So many steps before that one are yet to be reported.
        """

        def comes_again(row: Mapping[str, Any]) -> bool:
            if _begins(row, "skipped_"):
                return row["step"] >= first_step - unlogged
            # What precedes the first step itself is said once more.
            before = _begins(row, "chance/", "relabel/")
            return row["step"] >= first_step + (not before)

        kept = [row for row in read_jsonl(path) if first_step and not comes_again(row)]
        write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """NaN and infinity become null: JSON has neither."""
        values = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        self._write(step, values)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """As they are."""
        self._write(step, texts)

    def _write(self, step: int, values: Mapping[str, float | str | None]) -> None:
        self._file.write(json.dumps({"step": int(step), **values}) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Nothing left to do: each line is flushed."""

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _begins(row: Mapping[str, Any], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in row)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; what is none, such as a line cut off, is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


Hook = Callable[[int], Any]


def make_writers(
    workdir: Path,
    *,
    first_step: int,
    last_step: int,
    tensorboard: bool,
    unlogged: int = 0,
) -> tuple[list[Writer], list[Hook]]:
    """The writers of this host, and what is to be called after every step.

    Args:
        workdir: Of the run.
        first_step: Where the run starts or goes on.
        last_step: Where it ends.
        unlogged: So many steps before the first are yet to be reported.
        tensorboard: Also write event files, with clu's report of steps per second;
            both need TensorFlow, and are left out with one line where it is missing.
    """
    hooks: list[Hook] = []
    writers: list[Writer] = [
        JsonlWriter(workdir / "metrics.jsonl", first_step=first_step, unlogged=unlogged)
    ]
    if tensorboard and importlib.util.find_spec("tensorflow") is None:
        print("TensorFlow is not installed: metrics.jsonl only, no TensorBoard.")
    elif tensorboard:
        from clu import metric_writers, periodic_actions

        writer = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))
        writers.append(writer)
        progress = periodic_actions.ReportProgress(
            num_train_steps=last_step, every_secs=30, writer=writer
        )
        hooks.append(progress)
    return writers, hooks
