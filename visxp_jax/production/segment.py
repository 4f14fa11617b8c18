"""Videos to VisXP's folders: keyframes, the sound around each, and shots.

    visxp segment VIDEOS --out=FOLDERS
    visxp folders FOLDERS --checkpoint=... --config=... --out=features

VIDEOS are files, or folders to search, where texts and pictures beside videos are left
out. For each video writes FOLDERS/NAME, NAME being the file's without its ending:

    keyframes/{ms}.jpg                              in full size, quality 100
    spectrograms/{ms}_{rate}.npz                    [ms - 500, ms + 500), (1, 257, 99)
    metadata/keyframes_timestamps_ms.txt            [ms, ...]
    metadata/shot_boundaries_timestamps_ms.txt      [(first, last), ...]
    provenance.json                                 from what, with what, how many

--keyframes=shots takes the frame nearest to the middle of each shot; where there is no
cut, all is one shot. --keyframes=seconds takes what is on show at 500, 1500, ... ms,
looks for no shots and writes the empty list of them, which reads as one. Where sound
ends within a window, silence fills it up; where half of it is missing, there is no
spectrogram, and the network is given zeros.

Of a file with several programmes, such as the transport stream of a broadcast, picture
and sound of the one that comes first in it are taken; of several sound tracks in other
files the one that the ffmpeg command takes. provenance.json has the numbers of the two
streams, as FFmpeg counts.

Pictures and sound are placed by their timestamps, from the first picture on. Production
counts the samples that ffmpeg decodes: it puts sound that begins later, or that has a
gap, too early by that much.

A folder appears once it is whole. Those that are done, of the same file with the same
options, are left alone; a video that cannot be used is named and skipped.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from visxp_jax.audio.spectrogram import VISXP_RATES_HZ
from visxp_jax.command_line import Parser, add_strict, command, tell_skipped
from visxp_jax.errors import VisxpError
from visxp_jax.hosts import ALONE, Shard, add_shard, parse_shard
from visxp_jax.media import printable
from visxp_jax.production.write_folder import (
    METHODS,
    UNFINISHED,
    Task,
    read_provenance,
    write_folder,
)
from visxp_jax.progress import progress_bar

RATES_HZ = (24_000,)
MAX_NAME_BYTES = 255  # of file systems


def run(
    videos: list[Path],
    out: Path,
    *,
    keyframes: str = "shots",
    rates_hz: tuple[int, ...] = RATES_HZ,
    archive: bool = False,
    workers: int | None = None,
    timeout_s: float = 120.0,
    shard: Shard = ALONE,
    strict: bool = False,
) -> None:
    """Make the folders of all videos.

    Args:
        videos: Files, and folders that are searched with their subfolders.
        out: Folder of folders.
        keyframes: 'shots' or 'seconds'.
        rates_hz: Samples per second of the spectrograms.
        archive: Write visxp_prep__NAME.tar.gz in place of folders.
        workers: Processes, a video at a time each; None for one per core.
        timeout_s: A video of which no further second is done for so long is skipped.
        shard: Only the videos of one of several hosts.
        strict: Whether a video that cannot be used is a mistake.

    Raises:
        VisxpError: an option is out of range, PySceneDetect is wanted and missing, two
            videos have one name, what is there is none of ours, `out` cannot be
            written to or is in use, or all videos
            (any if `strict`) were skipped.
    """
    from data_prep.pool import Failure, run_isolated
    from data_prep.sources import find_videos

    _check_options(keyframes, rates_hz, workers, timeout_s)
    every = [
        Task(source, out, keyframes, tuple(dict.fromkeys(rates_hz)), archive)
        for source in find_videos(videos, out)
    ]
    _check_names(every)
    tasks = [task for task in every if shard.has(task.source.path, videos)]
    to_do = [task for task in tasks if not _is_done(task)]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VisxpError(f"cannot write to {printable(out)}: {error}.") from error
    # The longest first: the last worker to finish then keeps the others waiting least.
    to_do.sort(key=lambda task: -task.source.num_bytes)
    failed = made = seconds = 0
    begun = time.monotonic()
    before = len(tasks) - len(to_do)

    def on_beat() -> None:
        nonlocal seconds
        seconds += 1
        speed = seconds / (time.monotonic() - begun)
        bar.set_postfix_str(f"{made} keyframes, {speed:.0f} x", refresh=False)
        bar.update(0)

    results = run_isolated(
        write_folder, to_do, workers=workers, timeout_s=timeout_s, on_beat=on_beat
    )
    with (
        shard.locked(out),
        _nothing_unfinished(out, None if shard == ALONE else tasks),
        progress_bar(
            desc="segment", unit="file", total=len(tasks), initial=before
        ) as bar,
        closing(results),
    ):
        for task, result in results:
            bar.update()
            name = printable(task.source.path)
            if not isinstance(result, Failure):
                made += result["keyframes"]
                tqdm.write(f"{name}: {told(result)}")
                continue
            shutil.rmtree(task.unfinished, ignore_errors=True)  # it may have crashed
            if isinstance(result.error, OSError):
                raise VisxpError(
                    f"cannot write to {printable(out)}: {result.error}; free space or "
                    "choose another --out, then run the same command again."
                )
            failed += 1
            why = " ".join(result.reason.split())
            tqdm.write(f"skipped: {name}: {why}", file=sys.stderr)
    if len(to_do) < len(tasks):
        print(f"{len(tasks) - len(to_do)} done before")
    tell_skipped(failed, len(tasks), strict=strict)


@contextmanager
def _nothing_unfinished(out: Path, tasks: list[Task] | None) -> Iterator[None]:
    """Clear away what was begun and not ended, by this or by a call that was killed.

    Args:
        out: Where it is.
        tasks: Of these alone, as other hosts are at work there; None for all.
    """

    def clear() -> None:
        own = None if tasks is None else {task.unfinished for task in tasks}
        for unfinished in out.glob(UNFINISHED.format("[0-9a-f]" * 24)):
            if own is None or unfinished in own:
                shutil.rmtree(unfinished, ignore_errors=True)

    clear()
    try:
        yield
    finally:  # workers have ended
        clear()


def told(about: dict[str, Any]) -> str:
    """A folder's provenance in one line."""
    notes = [f"{about['keyframes']} keyframes"]
    for rate, count in about["spectrograms"].items():
        at = f" at {rate} Hz" if len(about["spectrograms"]) > 1 else ""
        notes += [f"{count['missing']} without sound{at}"] if count["missing"] else []
        notes += [f"{count['padded']} padded{at}"] if count["padded"] else []
    if about["faults"]:
        notes.append(f"{about['faults']} damaged packets or frames")
    return ", ".join(notes)


def _check_options(
    keyframes: str, rates_hz: tuple[int, ...], workers: int | None, timeout_s: float
) -> None:
    for rate in rates_hz:
        if rate not in VISXP_RATES_HZ:
            raise VisxpError(
                f"--rate must be a multiple of {VISXP_RATES_HZ.step} from "
                f"{VISXP_RATES_HZ[0]} to {VISXP_RATES_HZ[-1]}, got {rate}."
            )
    if workers is not None and workers < 1:
        raise VisxpError(f"--workers must be at least 1, got {workers}.")
    if not timeout_s > 0:
        raise VisxpError(f"--timeout-s must be positive, got {timeout_s}.")
    if keyframes == "shots":
        from visxp_jax.shots import check_detector

        check_detector()  # at once, not in every worker


def _check_names(tasks: list[Task]) -> None:
    by_name: dict[str, Task] = {}
    for task in tasks:
        name, other = ascii(task.name), by_name.setdefault(task.name, task)
        if other is not task:
            raise VisxpError(
                f"VIDEOS must differ in name without ending, as their folders do, got "
                f"{printable(other.source.path)} and {printable(task.source.path)}; "
                "give one of them another --out."
            )
        too_long = len(os.fsencode(task.target.name)) > MAX_NAME_BYTES
        if task.name in ("", ".", "..") or too_long:
            raise VisxpError(
                f"{printable(task.source.path)} must have a name that a folder can "
                f"have, got {name} without its ending; rename it."
            )
        there = os.path.lexists(task.target)
        if there and read_provenance(task) is None:
            raise VisxpError(
                f"{printable(task.target)} must be new, or made by this from a video "
                "before, but is neither; use another --out."
            )


def _is_done(task: Task) -> bool:
    found = read_provenance(task)
    return found is not None and task.inputs.items() <= found.items()


@command("stopped; folders that are done are kept.")
def main(argv: list[str] | None = None) -> None:
    """Entry point; a mistake if no video has a folder."""
    parser = Parser("visxp segment", __doc__)
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEOS", help="files or folders")
    add("--out", required=True, type=Path, metavar="FOLDERS", help="where folders go")
    add(
        "--keyframes",
        choices=METHODS,
        default="shots",
        help="one for each shot, or for each second (default: shots)",
    )
    add(
        "--rate",
        type=int,
        nargs="+",
        default=RATES_HZ,
        metavar="HZ",
        help="of the spectrograms' sound, one or more (default: 24000)",
    )
    add(
        "--archive",
        action="store_true",
        help="write visxp_prep__NAME.tar.gz in place of folders",
    )
    add("--workers", type=int, metavar="N", help="processes (default: one per core)")
    add(
        "--timeout-s",
        type=float,
        default=120.0,
        metavar="S",
        help="skip a file of which no second is done for so long (default: 120)",
    )
    add_shard(parser)
    add_strict(parser)
    args = parser.parse_args(argv)
    run(
        args.videos,
        args.out,
        keyframes=args.keyframes,
        rates_hz=tuple(args.rate),
        archive=args.archive,
        workers=args.workers,
        timeout_s=args.timeout_s,
        shard=parse_shard(args.shard),
        strict=args.strict,
    )


if __name__ == "__main__":
    sys.exit(main())
