"""Features of videos, a Parquet file for each.

    visxp extract --workdir=runs/mine --out=features VIDEOS ...

VIDEOS are files, or folders to search. OUT gets a row for each second of each: where it
is, its flags, its audio and its video vector, a thumbnail, and, if correspondence was
learnt, the probability that its sound belongs to its picture; beside it `_NAME.json`,
which says what made it. The same command goes on after it was stopped, and does again
only what has changed. Several hosts share the work by --shard.

Of a file with several programmes, such as the transport stream of a broadcast, picture
and sound of the one that comes first in it are taken; of several sound tracks in other
files the one that the ffmpeg command takes. `_NAME.json` has the numbers of the two
streams, as FFmpeg counts.

Files are read as for training, by `data_prep`: in worker processes with limits, so that
one that crashes, hangs or eats memory is left out alone. Clips of the videos at hand
wait in the folder for temporary files (TMPDIR), some 0.5 GB for 2 hours at 256 pixels.
"""

import os
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from visxp_jax import __version__
from visxp_jax.command_line import (
    Parser,
    add_strict,
    command,
    tell_skipped,
    without,
)
from visxp_jax.errors import VisxpError
from visxp_jax.feature_files import (
    ClipRow,
    Writer,
    about_of,
    file_name,
    remove_unfinished,
)
from visxp_jax.hosts import ALONE, Shard, add_shard, parse_shard
from visxp_jax.media import flags_told, printable
from visxp_jax.progress import progress_bar
from visxp_jax.streams import groups, read_ahead
from visxp_jax.types import Batch

# Late, for the worker processes, which import this module and read files only.
if TYPE_CHECKING:
    from data_prep import manifest
    from data_prep.sources import Source
    from visxp_jax.weights import Trained

THUMBNAIL_PX = 128
PACKAGES = ("jax", "av", "numpy", "pillow")


class Decoded(NamedTuple):
    """One second of a video, as it is read."""

    source: "Source"
    row: ClipRow
    frame: np.ndarray  # uint8 [h, w, 3]
    log_mel: np.ndarray  # float16 [m, f]


class End(NamedTuple):
    """There are no more clips of a video."""

    source: "Source"
    row: "manifest.VideoRow"  # what became of it
    unread: bool  # it may be there again, or give more, another time


class Encoded(NamedTuple):
    """A clip with its vectors, float32 [d] by modality."""

    source: "Source"
    row: ClipRow
    vectors: dict[str, np.ndarray]


def read_files(
    trained: "Trained",
    sources: Sequence["Source"],
    *,
    shots: bool,
    timeout_s: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[Decoded | End]:
    """Clips of videos: those of one in the order of time, then its end.

    Frames pass through JPEG and log-mels through float16, as those the model was
    trained on. Videos come in the order that they are done.

    Args:
        trained: Whose configuration names the size of frame and spectrogram.
        sources: Videos.
        shots: Look for shots.
        timeout_s: One that yields no clip for so long is left out.
        stopped: Asked now and then whether to give up.
    """
    from data_prep import manifest
    from data_prep.parts import PartTask, read_clips_of, write_part
    from data_prep.pool import Failure, run_isolated

    encoder = trained.encoder
    with tempfile.TemporaryDirectory(prefix="visxp-extract-") as scratch:
        folder, preset = Path(scratch), encoder.spectrogram
        what = (folder, preset, encoder.size_px, THUMBNAIL_PX, shots)
        tasks = [PartTask(source, *what) for source in sources]
        for task, result in run_isolated(
            write_part, tasks, timeout_s=timeout_s, stopped=stopped
        ):
            source = task.source
            unread = isinstance(result, Failure) or not os.access(source.path, os.R_OK)
            if isinstance(result, Failure):
                if isinstance(result.error, OSError):
                    raise VisxpError(
                        f"cannot write clips to {scratch}: {result.error}; free space "
                        "there, or set TMPDIR to another place."
                    )
                result = manifest.VideoRow(source.name, "skipped", result.reason)
            if result.status != "skipped":
                for clip, frame, log_mel in read_clips_of(task):
                    values = {key: clip[key] for key in ClipRow._fields if key in clip}
                    yield Decoded(
                        source, ClipRow(source.name, **values), frame, log_mel
                    )
            task.part.unlink(missing_ok=True)
            yield End(source, result, unread)


def encode(
    trained: "Trained", items: Iterable[Decoded | End], *, batch_size: int
) -> Iterator[Encoded | End]:
    """Vectors of clips, in batches of one fixed shape filled across videos.

    Args:
        trained: From `load_weights`.
        items: From `read_files`.
        batch_size: Clips at a time, rounded up to a multiple of the devices; the last
            batch is padded, so that there is one compilation.

    Yields:
        The same in their order, clips with vectors. Where `has_audio` is False the
        audio vector is zeros: there was nothing to hear.
    """
    import jax

    from visxp_jax.features import Encoder
    from visxp_jax.methods.avc import match_probability
    from visxp_jax.sharding import everywhere, make_mesh

    mesh = make_mesh()
    size = -(-batch_size // mesh.size) * mesh.size
    # On the devices once, not with every batch.
    weights = (trained.params, trained.model_state)
    params, model_state = jax.device_put(weights, everywhere(mesh))
    match = None
    if "avc" in trained.heads:
        match = jax.jit(partial(match_probability, trained.model))
    waiting: deque[list[Decoded | End]] = deque()  # what a batch was made of

    def batches() -> Iterator[Batch]:
        for group in groups(items, size, Decoded):
            waiting.append(group)
            clips = [item for item in group if isinstance(item, Decoded)]
            if clips:
                yield _batch(clips, size)

    encoder = Encoder(trained.model, mesh)
    for found in encoder.each(params, model_state, batches()):
        agreement = None
        if match is not None:
            pad = ((0, size - len(found.video)), (0, 0))
            pair = np.pad(found.video, pad), np.pad(found.audio, pad)
            agreement = np.asarray(match(params, *pair))
        at = 0
        for item in waiting.popleft():
            if isinstance(item, End):
                yield item
                continue
            row = item.row
            if agreement is not None and row.has_audio and not row.silent:
                row = row._replace(agreement=float(agreement[at]))
            audio = found.audio[at] if row.has_audio else np.zeros_like(found.audio[at])
            yield Encoded(item.source, row, {"video": found.video[at], "audio": audio})
            at += 1
    for group in waiting:  # the ends after the last clip
        for item in group:
            assert isinstance(item, End)
            yield item


def _batch(clips: list[Decoded], size: int) -> Batch:
    from visxp_jax.data.reader import filled

    n = len(clips)
    batch = Batch(
        frame=np.stack([clip.frame for clip in clips]),
        log_mel=np.stack([clip.log_mel for clip in clips]),
        clip_id=np.arange(n, dtype=np.int32),
        video_id=np.zeros(n, np.int32),
        label=np.full(n, -1, np.int32),
        weight=np.ones(n, np.float32),
    )
    return filled(batch, size)


def is_done(path: Path, about: dict[str, Any]) -> bool:
    """Whether a feature file is there, made of the same video by the same."""
    try:
        found = about_of(path)
    except VisxpError:
        return False
    same = all(found.get(key) == value for key, value in about.items())
    return same and path.with_name(f"_{path.stem}.json").exists()


class Files:
    """The feature files that are being written."""

    def __init__(
        self, out: Path, made_by: dict[str, Any], notes: dict[str, Any]
    ) -> None:
        """Written to `out`, each told what made it, and notes that change nothing."""
        self._out = out
        self._notes = notes
        self._made_by = made_by
        self._open: dict[str, Writer] = {}
        self.ends: Counter[str] = Counter()  # by what became of videos
        self.clips = 0
        self.flags: Counter[str] = Counter()  # clips by what is wrong with their sound

    def about(self, source: "Source") -> dict[str, Any]:
        """What a feature file depends on."""
        return {
            **self._made_by,
            "video": source.name,
            "num_bytes": source.num_bytes,
            "mtime_ns": source.mtime_ns,
        }

    def done(self, source: "Source") -> bool:
        """Whether there is nothing to do."""
        path = self._out / f"{file_name(source.name, source.key)}.parquet"
        return is_done(path, self.about(source))

    def add(self, item: Encoded | End) -> None:
        """Write a clip, or end a file."""
        source = item.source
        writer = self._open.get(source.key)
        if writer is None:
            writer = Writer(self._out, file_name(source.name, source.key))
            self._open[source.key] = writer
        if isinstance(item, Encoded):
            writer.add(item.row, item.vectors)
            self.clips += 1
            return
        row = item.row
        self.ends[row.status] += 1
        flags = {"no_audio": row.no_audio, "silent": row.silent, "partial": row.partial}
        self.flags.update(flags)
        writer.finish(
            {
                **self.about(source),
                "status": row.status,
                "reason": row.reason,
                "clips": row.clips,
                **flags,
                "seconds": row.seconds,
                "video_stream": row.video_stream,
                "audio_stream": row.audio_stream,
                "made_s": round(time.time()),
                **self._notes,
                "visxp_jax": __version__,
                "versions": {name: version(name) for name in PACKAGES},
            },
            keep=item.unread,
        )
        del self._open[source.key]

    def close(self) -> None:
        """Leave nothing of what is not finished."""
        for writer in self._open.values():
            writer.discard()


def run(
    workdir: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    batch_size: int = 32,
    timeout_s: float = 120.0,
    shots: bool = False,
    shard: Shard = ALONE,
    strict: bool = False,
) -> None:
    """Extract videos with the model in `workdir` into the folder `out`.

    Args:
        workdir: Of a finished training run.
        paths: Videos, and folders of them.
        out: Made if it is not there.
        batch_size: Clips that are encoded at once.
        timeout_s: A video that yields no clip for so long is left out.
        shots: Look for shots, which needs PySceneDetect.
        shard: Only the videos of one of several hosts.
        strict: Whether a video that cannot be used is a mistake.

    Raises:
        VisxpError: no model, nothing to write to or another run writes there, or all
            videos (any if `strict`) are skipped.
    """
    from data_prep.sources import find_videos
    from visxp_jax.shots import detector_name
    from visxp_jax.weights import load_weights

    if out.exists() and not out.is_dir():
        raise VisxpError(f"--out must be a folder, got the file {printable(out)}.")
    if batch_size < 1:
        raise VisxpError(f"--batch-size must be at least 1, got {batch_size}.")
    if not timeout_s > 0:
        raise VisxpError(f"--timeout-s must be positive, got {timeout_s}.")
    # At once, not in every worker.
    detector = detector_name() if shots else None
    trained = load_weights(workdir)
    sources = [x for x in find_videos(paths, out) if shard.has(x.path, paths)]
    files = Files(
        out,
        {
            "model_sha256": trained.about["sha256"],
            "spectrogram": trained.encoder.spectrogram,
            "size_px": trained.encoder.size_px,
            "thumbnail_px": THUMBNAIL_PX,
            "shots": detector,
        },
        {
            "model": os.fspath(workdir),
            "config": trained.encoder.name,
            "command": without(paths),
        },
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        todo = [source for source in sources if not files.done(source)]
        before = len(sources) - len(todo)
        read = partial(read_files, trained, todo, shots=shots, timeout_s=timeout_s)
        with (
            shard.locked(out),
            closing(
                read_ahead(lambda stopped: read(stopped=stopped), 2 * batch_size)
            ) as ahead,
            progress_bar(
                desc="extract", unit="file", total=len(sources), initial=before
            ) as bar,
        ):
            remove_unfinished(out, {file_name(x.name, x.key) for x in todo})
            _write(encode(trained, ahead, batch_size=batch_size), files, bar)
    except OSError as error:
        raise VisxpError(f"cannot write to {printable(out)}: {error}.") from error
    finally:
        files.close()
    kept = files.ends["kept"] + files.ends["partial"]
    flags = flags_told(files.flags)
    told = f"{files.clips} clips of {kept} videos" + f" ({flags})" * bool(flags)
    told += f" -> {printable(out)}"
    told += f"; {before} done before" * bool(before)
    print(told)
    tell_skipped(files.ends["skipped"], len(sources), strict=strict)


def _write(items: Iterable[Encoded | End], files: Files, bar: tqdm) -> None:
    begun = time.monotonic()
    for item in items:
        files.add(item)
        if isinstance(item, Encoded):
            rate = files.clips / (time.monotonic() - begun)
            told = f"{files.clips} clips, {rate:.0f} clips/s"
            bar.set_postfix_str(told, refresh=False)
            continue
        bar.update()
        if item.row.status != "kept":
            name = printable(item.source.path)  # of one line, for people
            told = f"{item.row.status}: {name}: {item.row.reason}"
            tqdm.write(told, file=sys.stderr)


@command("stopped; the same command goes on from here.")
def main(argv: list[str] | None = None) -> None:
    """Entry point; a mistake if nothing was extracted."""
    parser = Parser("visxp extract", __doc__)
    add = parser.add_argument
    add(
        "videos",
        nargs="+",
        type=Path,
        metavar="VIDEOS",
        help="files or folders; one whose name begins with a dash as ./-name",
    )
    add("--workdir", required=True, type=Path, help="of a finished training run")
    add("--out", required=True, type=Path, metavar="OUT", help="folder of features")
    add("--batch-size", type=int, default=32, metavar="N")
    add(
        "--shots",
        action="store_true",
        help="tell of each second which shot it is in (pip install '.[shots]')",
    )
    add_shard(parser)
    add_strict(parser)
    add(
        "--timeout-s",
        type=float,
        default=120.0,
        metavar="S",
        help="skip a video that yields no clip for so long (default: 120)",
    )
    args = parser.parse_args(argv)
    run(
        args.workdir,
        args.videos,
        args.out,
        batch_size=args.batch_size,
        timeout_s=args.timeout_s,
        shots=args.shots,
        shard=parse_shard(args.shard),
        strict=args.strict,
    )


if __name__ == "__main__":
    sys.exit(main())
