"""Time rivals turn by turn in one run, so that a busy machine slows them alike."""

import argparse
import json
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Rate(NamedTuple):
    """What one rival reached.

    Attributes:
        per_s: Units of work per second, median over the rounds.
        low: The slowest round.
        high: The fastest round.
        ratio: Median over the rounds of its rate over the reference's, same round.
    """

    per_s: float
    low: float
    high: float
    ratio: float


def interleaved(
    jobs: Mapping[str, Callable[[], object]],
    *,
    units: Mapping[str, int],
    reference: str,
    rounds: int,
    warm_ups: int = 1,
    lead_ins: int = 0,
) -> dict[str, Rate]:
    """Run all jobs once per round.

    Args:
        jobs: By name; each does its whole work per call.
        units: Of work per call, by the same names.
        reference: The job that ratios refer to.
        rounds: Timed calls of each job.
        warm_ups: Calls before the first round, not timed.
        lead_ins: Calls at the start of every turn, not timed.

    Returns:
        A rate per job, in their order.
    """
    for _ in range(warm_ups):
        for job in jobs.values():
            job()
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            for _ in range(lead_ins):
                job()
            begun = time.perf_counter()
            job()
            rates[name].append(units[name] / (time.perf_counter() - begun))
    return {
        name: Rate(
            per_s=statistics.median(own),
            low=min(own),
            high=max(own),
            ratio=statistics.median(
                a / b for a, b in zip(own, rates[reference], strict=True)
            ),
        )
        for name, own in rates.items()
    }


def table(title: str, unit: str, rates: Mapping[str, Rate], reference: str) -> str:
    """Plain text, one line per rival."""
    width = max(len(name) for name in rates)
    lines = [f"{title} ({unit}; ratio to {reference})"]
    for name, r in rates.items():
        lines.append(
            f"  {name:{width}}  {r.per_s:10.1f}  [{r.low:.1f} .. {r.high:.1f}]"
            f"  x{r.ratio:.2f}"
        )
    return "\n".join(lines)


def as_json(rates: Mapping[str, Rate]) -> dict[str, dict[str, float]]:
    """The same for `finish`."""
    return {name: rate._asdict() for name, rate in rates.items()}


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each")
    parser.add_argument("--out", type=Path, help="also write the figures here, JSON")
    return parser


def peak_gib() -> float:
    """Of this process since it began: what getrusage says counts its parent, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 2**20 if found else math.nan


def finish(out: Path | None, name: str, figures: Mapping[str, Any]) -> None:
    """Write the figures beside what they were measured on."""
    if out is None:
        return
    machine = {
        "benchmark": name,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_at_end": os.getloadavg()[0],
        "unix_s": int(time.time()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**machine, **figures}, indent=2) + "\n")
