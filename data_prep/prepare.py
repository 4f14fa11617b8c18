"""Prepare any folder of videos: one-second clips, split by video, in TFDS shards.

    visxp prepare VIDEOS --out DIR

Writes to DIR:
  visxp_clips/1.0.0/   the shards; tfds.builder_from_directory reads them
  clips.parquet        an index of every clip: where it is, its times, label and flags
  manifest.csv         a row for every file in VIDEOS: kept, or skipped and why
  prepared.json        options, counts, shards; written last, the mark of completion

Of a file with several programmes, such as the transport stream of a broadcast, picture
and sound of the one that comes first in it are taken; of several sound tracks in other
files the one that the ffmpeg command takes. manifest.csv has the numbers of the two
streams, as FFmpeg counts.

The same command goes on after it was stopped, and does nothing once it is finished.
"""

import argparse
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_prep.manifest import VideoRow, manifest_csv, skipped_videos, summary
from data_prep.parts import PartTask, read_row, write_failure, write_part
from data_prep.pool import Failure, run_isolated
from data_prep.sources import find_sources, fingerprint
from visxp_jax.atomic import write_whole
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.command_line import Parser, add_strict, command, tell_skipped
from visxp_jax.config import MAX_SIZE_PX
from visxp_jax.data.dataset import (
    INDEX,
    MANIFEST,
    PREPARED,
    SPLITS,
    damaged,
    read_prepared,
)
from visxp_jax.errors import VisxpError
from visxp_jax.media import printable
from visxp_jax.progress import progress_bar
from visxp_jax.train.lock import LOCK, locked

FILE_FORMATS = ("tfrecord", "array_record")
UNFINISHED = "preparing.json"
PARTS = "parts"


def prepare(
    videos: Path,
    out: Path,
    *,
    spectrogram: str,
    size_px: int,
    labels: Path | None = None,
    file_format: str = "tfrecord",
    workers: int | None = None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    timeout_s: float = 120.0,
    leave_out: Path | None = None,
    progress: bool = True,
    beam_options: Any = None,
) -> None:
    """Prepare a folder of videos, or finish an earlier call that was stopped.

    Args:
        videos: Folder, searched with its subfolders; every file in it is tried.
        out: Where the data go; see the module's description.
        spectrogram: A key of `visxp_jax.audio.spectrogram.PRESETS`.
        size_px: Frames are stored as size_px x size_px.
        labels: Csv with columns file and label; without it subfolders are labels.
        file_format: 'tfrecord' or 'array_record'.
        workers: Processes, one file each at a time; None for one per core.
        fractions: Of the videos that go to train, validation and test.
        seed: Decides which video goes where.
        timeout_s: A file that yields no clip for so long is skipped.
        leave_out: Folder around `out` that is ours as well; not searched for videos.
        progress: Show progress on stderr, and a summary at the end.
        beam_options: A `PipelineOptions` of Apache Beam, whose workers then do the work
            instead of processes here; see `data_prep.beam`.

    Raises:
        VisxpError: an option is out of range, no file could be used, `out` holds other
            data or is in use, or it cannot be written.
    """
    videos, out = Path(os.path.abspath(videos)), Path(os.path.abspath(out))
    ours = {Path(os.path.realpath(path)) for path in (out, leave_out) if path}
    if Path(os.path.realpath(videos)) in ours:
        what = "--out" if leave_out is None else "--workdir"
        raise VisxpError(
            f"{what} must not be the folder of videos itself, got {printable(videos)}; "
            "a subfolder of it will do."
        )
    labels = None if labels is None else Path(os.path.abspath(labels))
    options = {
        "videos": _beside(videos, out),
        "labels": None if labels is None else _beside(labels, out),
        "spectrogram": spectrogram,
        "size_px": size_px,
        "file_format": file_format,
        "fractions": list(fractions),
        "seed": seed,
    }
    _check_options(options, workers, timeout_s)
    if (out / PREPARED).exists():
        _check_finished(videos, out, options, labels, ours)
        _clean_up(out)
        if progress:
            print(f"{printable(out)} is prepared already; nothing to do.")
        return
    sources = find_sources(videos, labels=labels, leave_out=ours)
    with locked(out):
        _begin(out, options)
        tasks = [PartTask(s, out / PARTS, spectrogram, size_px) for s in sources]
        rows = _write_parts(
            tasks,
            workers=workers,
            timeout_s=timeout_s,
            progress=progress,
            beam_options=beam_options,
        )
        if not any(row.status != "skipped" for row in rows):
            write_whole(out / MANIFEST, manifest_csv(rows))
            raise VisxpError(
                f"VIDEOS must hold a video of a second or more, got "
                f"{len(rows)} files, the first {printable(Path(rows[0].file))}: "
                f"{rows[0].reason}; {printable(out / MANIFEST)} names all."
            )
        _write_dataset(
            tasks, rows, out, options, progress=progress, beam_options=beam_options
        )
        _clean_up(out)
    if progress:
        print(summary(rows), f"-> {printable(out)}", sep="\n", flush=True)


def _beside(path: Path, out: Path) -> str:
    """Relative where it lies beside `out`: both may then be moved together."""
    if path.is_relative_to(out.parent):
        return os.path.relpath(path, out)
    return os.fspath(path)


def _check_options(
    options: dict[str, Any], workers: int | None, timeout_s: float
) -> None:
    for name, choices in (("spectrogram", PRESETS), ("file_format", FILE_FORMATS)):
        if options[name] not in choices:
            raise VisxpError(
                f"{name} must be one of {', '.join(choices)}, got {options[name]!r}."
            )
    if not 16 <= options["size_px"] <= MAX_SIZE_PX:
        raise VisxpError(
            f"size_px must be 16 to {MAX_SIZE_PX}, got {options['size_px']}."
        )
    if options["file_format"] == "tfrecord" and find_spec("tensorflow") is None:
        raise VisxpError(
            "file_format 'tfrecord' needs TensorFlow, which is not installed; install "
            "it, or take 'array_record', which needs none."
        )
    if workers is not None and workers < 1:
        raise VisxpError(f"workers must be at least 1, got {workers}.")
    if not timeout_s > 0:
        raise VisxpError(f"timeout_s must be positive, got {timeout_s}.")
    shares = options["fractions"]
    fits = len(shares) == len(SPLITS) and min(shares) >= 0 and shares[0] > 0
    if not fits or not abs(sum(shares) - 1) <= 1e-6:  # not true of NaN, either
        raise VisxpError(
            "fractions must be three shares for train (more than 0), validation and "
            f"test that sum to 1, got {shares}."
        )


def _check_finished(
    videos: Path,
    out: Path,
    options: dict[str, Any],
    labels: Path | None,
    ours: set[Path],
) -> None:
    """Refuse to take finished data for what they are not."""
    prepared = read_prepared(out)
    _check_same(out, prepared["options"], options, "was prepared")
    if not videos.exists():
        return  # they may go once they have been prepared
    sources = find_sources(videos, labels=labels, leave_out=ours)
    if fingerprint(sources) != prepared["inputs_sha256"]:
        raise VisxpError(
            f"{printable(out)} was prepared from {printable(videos)}, whose files or "
            "labels have changed since; use another --out, or remove this one."
        )


def _check_same(out: Path, then: dict[str, Any], now: dict[str, Any], how: str) -> None:
    changed = [f"{k}={then.get(k)!r}, not {now[k]!r}" for k in now if then[k] != now[k]]
    if changed:
        raise VisxpError(
            f"{printable(out)} {how} with {'; '.join(changed)}; use another --out, "
            "or remove this one."
        )


def _begin(out: Path, options: dict[str, Any]) -> None:
    """Note what is being prepared; clear away what a killed job left unfinished."""
    started = out / UNFINISHED
    if started.exists():
        try:
            then = json.loads(started.read_text(encoding="utf-8"))
        except ValueError as error:
            raise damaged(started, error) from error
        _check_same(out, then, options, "was begun")
    else:
        strange = sorted(p for p in out.iterdir() if p.name != LOCK)
        if strange:
            raise VisxpError(
                f"--out must be a new or an empty folder, or one that was prepared, "
                f"got {printable(out)}, which holds {printable(strange[0])}."
            )
        write_whole(started, json.dumps(options, indent=2))
    (out / PARTS).mkdir(exist_ok=True)
    ours = [out.glob(f"{n}.*tmp") for n in (MANIFEST, INDEX, PREPARED, UNFINISHED)]
    for unfinished in itertools.chain(*ours, (out / PARTS).glob("*.tmp")):
        unfinished.unlink(missing_ok=True)


def _clean_up(out: Path) -> None:
    """Remove what is needed only until the data are finished."""
    if not (out / UNFINISHED).exists():
        return  # done before; what is there now is not ours
    shutil.rmtree(out / PARTS, ignore_errors=True)
    (out / UNFINISHED).unlink(missing_ok=True)


def _write_parts(
    tasks: list[PartTask],
    *,
    workers: int | None,
    timeout_s: float,
    progress: bool,
    beam_options: Any,
) -> list[VideoRow]:
    """Stage 1; the rows are in the order of the tasks."""
    rows: dict[str, VideoRow] = {}
    for task in tasks:
        if task.source.hidden:
            why = "hidden: its name begins with a dot"
            rows[task.source.key] = VideoRow(task.source.name, "skipped", why)
        elif row := read_row(task):
            rows[task.source.key] = row
    to_do = [task for task in tasks if task.source.key not in rows]
    # The longest first: the last worker to finish then keeps the others waiting least.
    to_do.sort(key=lambda task: (-task.source.num_bytes, task.source.name))
    begun, clips = time.monotonic(), 0
    with progress_bar(
        total=len(tasks),
        initial=len(rows),
        desc="prepare",
        unit="file",
        shown=progress,
    ) as bar:

        def on_beat() -> None:
            nonlocal clips
            clips += 1
            rate = clips / (time.monotonic() - begun)
            bar.set_postfix_str(f"{clips} clips, {rate:.0f} clips/s", refresh=False)
            bar.update(0)

        if beam_options is None:
            results = run_isolated(
                write_part, to_do, workers=workers, timeout_s=timeout_s, on_beat=on_beat
            )
        else:
            from data_prep import pipelines

            results = pipelines.write_parts(to_do, beam_options, timeout_s=timeout_s)
        for task, result in results:
            if isinstance(result, Failure):
                result = write_failure(task, result)
            rows[task.source.key] = result
            bar.update()
    return [rows[task.source.key] for task in tasks]


def _write_dataset(
    tasks: list[PartTask],
    rows: list[VideoRow],
    out: Path,
    options: dict[str, Any],
    *,
    progress: bool,
    beam_options: Any,
) -> None:
    """Stage 2."""
    # Loads TensorFlow for TFRecords; ArrayRecords do without.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    from data_prep.shards import write_dataset

    if beam_options is None:
        from data_prep.builder import write_shards
    else:
        from data_prep import pipelines

        write_shards = partial(pipelines.write_shards, options=beam_options)
    inputs = fingerprint([task.source for task in tasks])
    try:
        write_dataset(
            tasks,
            rows,
            out,
            options,
            inputs=inputs,
            progress=progress,
            write=write_shards,
        )
    except (OSError, RuntimeError) as error:  # TFDS makes RuntimeErrors of all
        if "No space left" not in str(error):
            raise
        raise VisxpError(
            f"{printable(out)} must have room for the shards, but no space is left on "
            "the device; free some, then run the same command again."
        ) from error


def _folder(text: str) -> Path:
    if not text:  # a variable of the shell that is not set; not the current folder
        raise argparse.ArgumentTypeError("must name a folder, got ''")
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"must be a folder in the file system, got {text}; mount it as one"
        )
    return Path(text)


def parser_of(prog: str, description: str | None) -> Parser:
    """The command line of a program, as far as it is that of every engine."""
    parser = Parser(prog, description)
    add = parser.add_argument
    add("videos", type=_folder, metavar="VIDEOS", help="folder, with its subfolders")
    add("--out", type=_folder, required=True, metavar="DIR", help="where the data go")
    add(
        "--spectrogram",
        choices=list(PRESETS),
        default="visxp",
        help="preset; must be that of the model (default: visxp)",
    )
    add(
        "--size-px",
        type=int,
        default=256,
        metavar="N",
        help="frames are stored as N x N, aspect not kept (default: 256)",
    )
    add(
        "--labels",
        type=Path,
        metavar="CSV",
        help="columns file,label; file is the path within VIDEOS "
        "(default: subfolders are labels)",
    )
    add(
        "--format",
        choices=FILE_FORMATS,
        default="tfrecord",
        help="of the shards: tfrecord for tf.data, array_record for reading without "
        "TensorFlow (default: tfrecord)",
    )
    add(
        "--fractions",
        type=float,
        nargs=3,
        default=(0.7, 0.1, 0.2),
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares of the videos (default: 0.7 0.1 0.2)",
    )
    add("--seed", type=int, default=0, help="decides which video goes where")
    add(
        "--timeout-s",
        type=float,
        default=120.0,
        metavar="S",
        help="skip a file that yields no clip for so long (default: 120)",
    )
    add_strict(parser)
    return parser


def run_command(args: argparse.Namespace, **engine: Any) -> None:
    """Prepare as the command line says.

    Args:
        args: As `parser_of` reads them.
        **engine: More of the arguments of `prepare`.

    Raises:
        VisxpError: see `prepare`; or a video was skipped and is not to be.
    """
    prepare(
        args.videos,
        args.out,
        spectrogram=args.spectrogram,
        size_px=args.size_px,
        labels=args.labels,
        file_format=args.format,
        fractions=args.fractions,
        seed=args.seed,
        timeout_s=args.timeout_s,
        **engine,
    )
    if args.strict:
        skipped, of = skipped_videos(args.out / MANIFEST)
        tell_skipped(skipped, of, strict=True)


@command("stopped; the same command goes on from here.")
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = parser_of("visxp prepare", __doc__)
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one per core)"
    )
    args = parser.parse_args(argv)
    run_command(args, workers=args.workers)


if __name__ == "__main__":
    sys.exit(main())
