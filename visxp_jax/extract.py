"""Features of videos: `python -m visxp_jax.extract --workdir=... FILES --out=...`.

Writes one row per second of every file: where it is, and its audio and video vectors.
Files are read as for training, by `data_prep`: in worker processes with limits, so that
a file that crashes, hangs or eats memory is left out alone.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from visxp_jax import __version__
from visxp_jax.errors import VisxpError
from visxp_jax.media import printable
from visxp_jax.progress import progress_bar
from visxp_jax.types import Batch

# Late, for the worker processes, which import this module and read files only.
if TYPE_CHECKING:
    from visxp_jax.weights import Trained


class Row(NamedTuple):
    """One clip of one file; the order of columns in the output."""

    path: str
    start_s: float
    end_s: float
    frame_s: float
    has_audio: bool
    silent: bool
    partial: bool


Clips = Iterator[tuple[Row, np.ndarray, np.ndarray]]  # with its frame and its log-mel
Vectors = tuple[list[Row], np.ndarray, np.ndarray]  # rows, audio [n, d], video [n, d]


def read_files(trained: "Trained", files: list[Path], *, timeout_s: float) -> Clips:
    """Clips of files: those of one in the order of time, files in that they are done.

    Frames pass through JPEG and log-mels through float16, as those the model was
    trained on. One that cannot be read is reported on standard error and left out
    whole.

    Args:
        trained: Whose configuration names the size of frame and spectrogram.
        files: Videos.
        timeout_s: A file that yields no clip for so long is left out.
    """
    from data_prep.parts import PartTask, read_clips_of, write_part
    from data_prep.pool import Failure, run_isolated
    from data_prep.sources import source_of

    encoder = trained.encoder
    with (
        tempfile.TemporaryDirectory(prefix="visxp-extract-") as scratch,
        progress_bar(desc="read", unit="file", total=len(files)) as bar,
    ):
        tasks = [
            PartTask(
                source_of(file), Path(scratch), encoder.spectrogram, encoder.size_px
            )
            for file in files
        ]
        for task, result in run_isolated(write_part, tasks, timeout_s=timeout_s):
            bar.update()
            name = printable(task.source.path)  # of one line, for people
            if isinstance(result, Failure):
                if isinstance(result.error, OSError):
                    raise VisxpError(
                        f"cannot write clips to {scratch}: {result.error}; free space "
                        "there, or set TMPDIR to another place."
                    )
                tqdm.write(f"skipped: {name}: {result.reason}", file=sys.stderr)
                continue
            if result.status != "kept":
                tqdm.write(f"{result.status}: {name}: {result.reason}", file=sys.stderr)
            if result.status == "skipped":
                continue
            for clip, frame, log_mel in read_clips_of(task):
                values = (clip[key] for key in Row._fields[1:])
                yield Row(task.source.name, *values), frame, log_mel
            task.part.unlink()


def encode(trained: "Trained", clips: Clips, *, batch_size: int) -> Iterator[Vectors]:
    """Vectors of clips, in batches of one fixed shape filled across files.

    Args:
        trained: From `load_weights`.
        clips: From `read_files`.
        batch_size: Clips at a time, rounded up to a multiple of the devices; the last
            batch is padded, so that there is one compilation.

    Yields:
        `Vectors` in order. Where `has_audio` is False the audio vector is zeros: there
        was nothing to hear.
    """
    from visxp_jax.data.reader import filled
    from visxp_jax.features import Encoder
    from visxp_jax.sharding import make_mesh

    mesh = make_mesh()
    encoder = Encoder(trained.model, mesh)
    size = -(-batch_size // mesh.size) * mesh.size

    def batch_of(group: list[tuple[Row, np.ndarray, np.ndarray]]) -> Vectors:
        rows, frames, log_mels = (list(column) for column in zip(*group, strict=True))
        n = len(rows)
        batch = Batch(
            frame=np.stack(frames),
            log_mel=np.stack(log_mels),
            clip_id=np.arange(n, dtype=np.int32),
            video_id=np.zeros(n, np.int32),
            label=np.full(n, -1, np.int32),
            weight=np.ones(n, np.float32),
        )
        batches = [filled(batch, size)]
        features = encoder(trained.params, trained.model_state, batches)
        heard = np.array([row.has_audio for row in rows])[:, None]
        return rows, features.audio * heard, features.video

    group = []
    for clip in clips:
        group.append(clip)
        if len(group) == size:
            yield batch_of(group)
            group = []
    if group:
        yield batch_of(group)


def write_npz(
    out: Path, rows: list[Row], audio: np.ndarray, video: np.ndarray, about: str
) -> None:
    """Columns as arrays, and `about` as a JSON string; nothing pickled."""
    columns: dict[str, Any] = {
        name: np.array([getattr(row, name) for row in rows]) for name in Row._fields
    }
    with out.open("wb") as file:
        np.savez(
            file,
            audio=audio,
            video=video,
            about=np.array(about),
            **columns,
        )


def write_parquet(
    out: Path, rows: list[Row], audio: np.ndarray, video: np.ndarray, about: str
) -> None:
    """One row per clip, vectors as fixed-size lists, `about` in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        name: [getattr(row, name) for row in rows] for name in Row._fields
    }
    for name, vectors in (("audio", audio), ("video", video)):
        flat = pa.array(vectors.astype(np.float32).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    table = pa.table(columns).replace_schema_metadata({"about": about})
    pq.write_table(table, out)


WRITERS = {".npz": write_npz, ".parquet": write_parquet}


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 if something was extracted, 2 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m visxp_jax.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILES",
        help="videos; one whose name begins with a dash as ./-name",
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, help="of a finished training run"
    )
    parser.add_argument("--out", required=True, type=Path, help=".npz or .parquet")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=120.0,
        metavar="S",
        help="skip a file that yields no clip for so long (default: 120)",
    )
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(
            args.workdir,
            args.files,
            args.out,
            batch_size=args.batch_size,
            timeout_s=args.timeout_s,
        )
    except VisxpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


def run(
    workdir: Path,
    files: list[Path],
    out: Path,
    *,
    batch_size: int,
    timeout_s: float = 120.0,
) -> None:
    """Extract `files` with the model in `workdir` into one file, rows in their order.

    Raises:
        VisxpError: no model, an output of unknown kind, or no clip in any file. The
            output appears only once it is whole.
    """
    from data_prep.sources import source_of
    from visxp_jax.weights import load_weights

    if out.suffix not in WRITERS:
        raise VisxpError(f"--out must end in .npz or .parquet, got {str(out)!r}.")
    if not out.absolute().parent.is_dir():
        raise VisxpError(f"the folder of --out must exist, got {str(out)!r}.")
    if batch_size < 1:
        raise VisxpError(f"--batch-size must be at least 1, got {batch_size}.")
    if not timeout_s > 0:
        raise VisxpError(f"--timeout-s must be positive, got {timeout_s}.")
    trained = load_weights(workdir)
    files = list(dict.fromkeys(files))
    twice = [n for n, k in Counter(source_of(f).name for f in files).items() if k > 1]
    if twice:  # bytes that are no UTF-8, and a name that spells them out
        raise VisxpError(f"FILES must differ as text, got two that read {twice[0]!r}.")
    clips = read_files(trained, files, timeout_s=timeout_s)
    rows: list[Row] = []
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    with progress_bar(desc="extract", unit="clip") as bar:
        for new, audio, video in encode(trained, clips, batch_size=batch_size):
            rows += new
            parts.append((audio, video))
            bar.update(len(new))
    if not rows:
        raise VisxpError("none of the files gave a clip; nothing was written.")
    audio, video = (np.concatenate(x) for x in zip(*parts, strict=True))
    # Files are done in any order: as they were given, then by time.
    place = {source_of(file).name: i for i, file in enumerate(files)}
    order = sorted(
        range(len(rows)), key=lambda i: (place[rows[i].path], rows[i].start_s)
    )
    rows, audio, video = [rows[i] for i in order], audio[order], video[order]
    about = {
        "visxp_jax": __version__,
        "model": str(workdir),
        "model_sha256": trained.about["sha256"],
        "config": trained.encoder.name,
        "spectrogram": trained.encoder.spectrogram,
        "size_px": trained.encoder.size_px,
        "command": sys.argv,
    }
    partial = out.with_name(out.name + ".partial")
    try:
        WRITERS[out.suffix](partial, rows, audio, video, json.dumps(about))
        partial.replace(out)
    except OSError as error:
        raise VisxpError(f"cannot write {out}: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)
    print(f"{len(rows)} clips of {len({r.path for r in rows})} files -> {out}")


if __name__ == "__main__":
    sys.exit(main())
