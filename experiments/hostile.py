"""What the commands say of input that is broken, odd, or meant to do harm.

    python -m experiments.hostile --out=experiments/results/hostile.md

Makes such input, gives it to `visxp extract`, `prepare`, `segment`, `search`,
`folders`, `import` and `doctor` and to the page of `visxp page`, and writes a table of
what an archivist sees. Payloads would make a file named `owned`; it ends with an error
if there is one, or if a command has written anywhere but into its output. For Linux. It
imports from `tests`, which has what writes small videos, checkpoints without PyTorch,
and weights of a tiny network.
"""

import argparse
import csv
import html
import json
import os
import pickle
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.hostile_folders import (
    TRACE,
    Payload,
    write_archives,
    write_checkpoints,
    write_configs,
    write_folders,
    write_network,
    write_references,
)
from experiments.hostile_media import write_media, write_others
from experiments.hostile_scratch import Done, Scratch, Seen
from experiments.hostile_search import added, found, uploaded, write_index
from tests.small import small_config
from tests.test_weights import random_weights
from tests.videos import write_video
from visxp_jax.media import printable
from visxp_jax.methods import all_heads
from visxp_jax.weights import save_weights

TIMEOUT_S = 20  # of a reader that hangs
LONGEST = 400  # characters in a cell
ONE_LINE = (
    "visxp search find",
    "visxp page, upload",
    "visxp segment",
    "visxp import",
)

HEAD = """# What the commands say of bad input

Written by `python -m experiments.hostile`, on Linux. Every payload would have made a
file, and none has; no command wrote anywhere but into its output, or left a temporary
file. All media went to `visxp extract`, `visxp prepare` and `visxp segment` in one
command each, as did all folders and archives to `visxp folders`: the exit code is that
of the whole. Of `visxp prepare` the row of `manifest.csv` is shown, where it tells of
each file. Media, pictures and sounds were searched by (second 1 of each) with
`visxp search find`, one after the other, and on one page of `visxp page`, to which they
were sent as a browser sends them: there the code is the status of the answer. Feature
files, spectrograms and networks went to `visxp search add`, `visxp doctor --reference`
and `visxp import` one by one.
"""


def write_model(into: Path) -> None:
    """A model that extracts, of random weights."""
    config = small_config()
    params, state = random_weights(config)
    state = jax.tree.map(lambda x: np.abs(x) + 0.5, state)
    into.mkdir()
    what = (config.encoder, all_heads(config), params, state, {})
    save_weights(into, *what, config=config)


class Lost(NamedTuple):
    """Files that lose their reader.

    Attributes:
        faults: The signal that it gets.
        told: What that stands for.
    """

    faults: dict[Path, signal.Signals]
    told: dict[Path, str]


def write_lost(into: Path) -> Lost:
    """Sound ones, long enough to be struck."""
    crash, hang = into / "crash.mp4", into / "hang.mp4"
    for path in (crash, hang):
        write_video(path, seconds=300, fps=2, sound=None)
    return Lost(
        {crash: signal.SIGSEGV, hang: signal.SIGSTOP},
        {
            crash: "the decoder crashes (SIGSEGV while it reads)",
            hang: "the decoder hangs (SIGSTOP while it reads)",
        },
    )


def extracted(scratch: Scratch, media: dict[Path, str], lost: Lost) -> Iterator[Seen]:
    """`visxp extract`: all files in one command, and those that lose their reader."""
    files = media | lost.told
    out = scratch.out / "features"
    common = (f"--workdir={scratch.root / 'run'}", f"--out={out}")
    limit = f"--timeout-s={TIMEOUT_S}"
    (folder,) = {path.parent for path in media}
    inputs = (folder, *lost.told)
    done = scratch.visxp("extract", *common, limit, *inputs, faults=lost.faults)
    abouts = {}
    for path in out.glob("_*.json"):
        about = json.loads(path.read_text(encoding="utf-8"))
        abouts[about["video"]] = about
    told = 0
    for path, what in files.items():
        lines = [line for line in done.lines if f": {printable(path)}: " in line]
        told += len(lines)
        about = abouts[os.fsencode(path).decode("utf-8", "backslashreplace")]
        if not lines:
            keys = ("clips", "no_audio", "silent", "partial")
            flags = [f"{k} {about[k]}" for k in keys if about.get(k)]
            lines = [f"(nothing; its JSON: {about['status']}, {', '.join(flags)})"]
        yield Seen(what, "visxp extract", done.code, lines)
    rest = [line for line in done.lines if ": /" not in line or "clips of" in line]
    assert told + len(rest) == len(done.lines), done.lines
    yield Seen("all of these at once, the last line", "visxp extract", done.code, rest)
    for what, arg in (
        ("named -dash.mp4, as it is", "-dash.mp4"),
        ("named ./-dash.mp4", "./-dash.mp4"),
        ("a file that is not there", "none.mp4"),
    ):
        one = (*common[:1], f"--out={scratch.out / 'one'}", arg)
        done = scratch.visxp("extract", *one, cwd=folder)
        yield Seen(what, f"visxp extract {arg}", done.code, done.lines)


def prepared(scratch: Scratch, media: dict[Path, str]) -> Iterator[Seen]:
    """`visxp prepare`: all files in one command."""
    (folder,) = {path.parent for path in media}
    out = scratch.out / "prepared"
    options = ("--spectrogram=mel", "--size-px=16", "--format=array_record")
    done = scratch.visxp("prepare", folder, f"--out={out}", *options)
    if done.code:
        raise SystemExit("\n".join(done.lines))
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    for path, what in media.items():
        row = rows[os.fsencode(path.name).decode("utf-8", "backslashreplace")]
        flags = [
            f"{name} {row[name]}"
            for name in ("clips", "no_audio", "silent", "partial", "mismatched")
            if row[name] != "0"
        ]
        line = ": ".join(filter(None, (row["status"], row["reason"], ", ".join(flags))))
        yield Seen(what, "visxp prepare", done.code, [f"manifest.csv: {line}"])
    yield Seen("all of these at once", "visxp prepare", done.code, done.lines)
    strict = scratch.visxp("prepare", folder, f"--out={out}", *options, "--strict")
    yield Seen("again, --strict", "visxp prepare", strict.code, strict.lines)


def segmented(scratch: Scratch, media: dict[Path, str], lost: Lost) -> Iterator[Seen]:
    """`visxp segment`: all files in one command, and those that lose their reader."""
    files = media | lost.told
    options = (f"--out={scratch.out / 'segmented'}", f"--timeout-s={TIMEOUT_S}")
    done = scratch.visxp("segment", *files, *options, faults=lost.faults)
    yield from _named("visxp segment", files, done)


def _named(command: str, inputs: dict[Path, str], done: Done) -> Iterator[Seen]:
    """What a command said of each of its inputs, by name, and at its end."""
    told = 0
    for path, what in inputs.items():
        start = (f"skipped: {printable(path)}: ", f"{printable(path)}: ")
        lines = [line for line in done.lines if line.startswith(start)]
        told += len(lines)
        yield Seen(what, command, done.code, lines)
    rest = done.lines[-1:]
    assert told + len(rest) == len(done.lines), done.lines
    yield Seen("all of these at once, the last line", command, done.code, rest)


def folders(scratch: Scratch, command: str) -> Iterator[Seen]:
    """`visxp folders`: all folders in one command, each network in one of its own."""
    root = scratch.root
    inputs = write_folders(root / "folders", command)
    inputs |= write_archives(root / "folders", root / "elsewhere")
    checkpoint, config = write_network(root)
    networks = {
        path: (what, path, config)
        for path, what in write_checkpoints(root, command).items()
    }
    for path, what in write_configs(root, command).items():
        networks[path] = (what, checkpoint, path)
    scratch.seal()

    def run(inputs: Sequence[Path], out: str, network: Sequence[Path]) -> Done:
        options = [
            f"--{k}={v}" for k, v in zip(("checkpoint", "config"), network, strict=True)
        ]
        return scratch.visxp("folders", *inputs, *options, f"--out={scratch.out / out}")

    done = run(list(inputs), "visxp", (checkpoint, config))
    yield from _named("visxp folders", inputs, done)
    with ThreadPoolExecutor(2) as pool:
        sound = [root / "folders" / "sound"]
        runs = {
            path: pool.submit(run, sound, "networks", network)
            for path, (_, *network) in networks.items()
        }
        for path, (what, *_) in networks.items():
            done = runs[path].result()
            yield Seen(what, "visxp folders", done.code, done.lines)
        adopted = {
            path: pool.submit(adopt, scratch, network)
            for path, (_, *network) in networks.items()
        }
        for path, (what, *_) in networks.items():
            done = adopted[path].result()
            yield Seen(what, "visxp import", done.code, done.lines)


def adopt(scratch: Scratch, network: Sequence[Path]) -> Done:
    """`visxp import` of a checkpoint and its configuration."""
    checkpoint, config = network
    workdir = scratch.out / "imported" / checkpoint.parent.name / config.parent.name
    options = (f"--checkpoint={checkpoint}", f"--config={config}")
    return scratch.visxp("import", *options, f"--workdir={workdir}")


def diagnosed(scratch: Scratch, references: dict[Path, str]) -> Iterator[Seen]:
    """`visxp doctor --reference`, a command for each spectrogram."""

    def run(path: Path) -> Done:
        video = f"--video={scratch.root / 'sound.mp4'}"
        return scratch.visxp("doctor", video, f"--reference={path}")

    with ThreadPoolExecutor(2) as pool:
        for what, done in zip(
            references.values(), pool.map(run, references), strict=True
        ):
            yield Seen(what, "visxp doctor --reference", done.code, done.lines)


def table(rows: Sequence[Seen], scratch: Scratch) -> str:
    """Markdown; what is in a cell stays there."""

    def cell(text: str) -> str:
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
        return html.escape(text, quote=False).replace("|", "\\|").replace("`", "'")

    def said(lines: list[str]) -> str:
        short = [scratch.short(line) for line in lines if line.strip()]
        cut = [x if len(x) <= LONGEST else f"{x[:LONGEST]} ..." for x in short]
        return "<br>".join(map(cell, cut)) or "(nothing)"

    lines = ["| input | command | exit code | said |", "|---|---|---|---|"]
    for row in rows:
        what, command = cell(scratch.short(row.what)), cell(row.command)
        lines.append(f"| {what} | {command} | {row.code} | {said(row.lines)} |")
    return "\n".join(lines)


def complaints(rows: Sequence[Seen]) -> list[str]:
    """What is wrong with what was said, whatever it was."""
    found = []
    for row in rows:
        text = "\n".join(row.lines)
        if not row.lines:
            found.append(f"{row.what}: nothing was said")
        if row.command in ONE_LINE and len(row.lines) > 1:
            found.append(f"{row.what}: {row.command} said {row.lines}")
        if "Traceback" in text or re.search(r"[\x00-\x08\x0b-\x1f]", text):
            found.append(f"{row.what}: {text[:200]!r}")
    return found


def main() -> int:
    """Entry point; 1 if a payload ran, a file escaped, or a command said nothing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="also write the table here")
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        scratch = Scratch(Path(os.path.realpath(name)))
        control = scratch.root / TRACE
        payload = pickle.dumps(Payload(f"touch {control}"))
        pickle.loads(payload)  # noqa: S301  (that it does harm)
        control.unlink()
        write_model(scratch.root / "run")
        media = write_media(scratch.root / "media")
        others = write_others(scratch.root / "others")
        lost = write_lost(scratch.root / "lost")
        write_video(scratch.root / "sound.mp4")
        references = write_references(scratch.root / "references", f"touch {TRACE}")
        scratch.seal()
        rows = [*extracted(scratch, media, lost), *prepared(scratch, media)]
        rows += segmented(scratch, media, lost)
        index = write_index(scratch, scratch.out / "one")
        rows += found(scratch, index, media | others)
        rows += uploaded(scratch, index, media | others)
        rows += added(scratch, index)
        rows += diagnosed(scratch, references)
        wrong = scratch.strange()
        rows += folders(scratch, f"touch {TRACE}")
        wrong += scratch.strange() + complaints(rows)
        text = table(rows, scratch)
    print(text)
    print(f"\n{len(rows)} rows in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    if args.out and not wrong:
        args.out.write_text(f"{HEAD}\n{text}\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
