r"""Train variants of a configuration over several seeds and put them side by side.

    python -m experiments.compare --data=runs/demo/data \
        --out=experiments/results/methods.json \
        --variant cnn --variant rnn model.audio=rnn

Every run is the main job by its command line, one after another, on the same prepared
data; seeds are interleaved, so that a machine that slows down slows all variants. A
variant may name a configuration of its own: `--variant xdc configs/xdc.py`.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path


def run(config: str, workdir: Path, data: Path, changes: list[str], seed: int) -> dict:
    """One run of the main job; its results.json.

    Args:
        config: Unless one is among the changes.
        workdir: Of the run.
        data: Prepared.
        changes: 'KEY=VALUE', or a configuration file.
        seed: Of the run.
    """
    config = next((c for c in changes if "=" not in c), config)
    settings = [c for c in changes if "=" in c]
    values = [f"--config.{change}" for change in (*settings, f"seed={seed}")]
    command = [
        *(sys.executable, "-m", "visxp_jax.main", f"--config={config}"),
        *(f"--workdir={workdir}", f"--config.data.dir={data}", *values),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((workdir / "results.json").read_text())


def commit() -> str:
    """Of the code, with '-dirty' where files differ from it; '' outside a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def table(rows: dict[str, list[dict]]) -> str:
    """Markdown: a line per figure, a column per variant, mean (lowest - highest)."""
    lines = ["| figure | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for figure in next(iter(rows.values()))[0]:
        cells = []
        for runs in rows.values():
            values = [r[figure] for r in runs if r.get(figure) is not None]
            if not values:
                cells.append("-")
                continue
            mean, low, high = statistics.mean(values), min(values), max(values)
            cells.append(f"{mean:.3f} ({low:.3f} - {high:.3f})")
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/selflabel.py")
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    parser.add_argument("--out", type=Path, required=True, help="JSON of all figures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--variant",
        action="append",
        nargs="+",
        required=True,
        metavar=("NAME", "KEY=VALUE or CONFIG"),
    )
    args = parser.parse_args()
    code = commit()  # before the runs: it may move on meanwhile
    rows: dict[str, list[dict]] = {name: [] for name, *_ in args.variant}
    for seed in args.seeds:
        for name, *changes in args.variant:
            workdir = args.runs / f"{name}-{seed}"
            if workdir.exists():  # it would only be judged again
                parser.error(f"{workdir} must not exist; choose another --runs")
            rows[name].append(run(args.config, workdir, args.data, changes, seed))
            print(f"{name} seed {seed}: {json.dumps(rows[name][-1])}", flush=True)
    record = {
        "config": args.config,
        "commit": code,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "variants": {name: changes for name, *changes in args.variant},
        "seeds": args.seeds,
        "results": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
