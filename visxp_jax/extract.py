"""Features of videos: `python -m visxp_jax.extract --workdir=... FILES --out=...`.

Writes one row per second of every file: where it is, and its audio and video vectors.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from visxp_jax import __version__
from visxp_jax.data.reader import filled
from visxp_jax.errors import VisxpError
from visxp_jax.media import Clip, printable, read_clips
from visxp_jax.types import Batch
from visxp_jax.weights import Trained, load_weights


class Row(NamedTuple):
    """One clip of one file; the order of columns in the output."""

    path: str
    start_s: float
    end_s: float
    frame_s: float
    has_audio: bool
    silent: bool
    partial: bool


def extract(
    trained: Trained, files: Iterable[Path], *, batch_size: int
) -> Iterator[tuple[list[Row], np.ndarray, np.ndarray]]:
    """Features of files, in batches of one fixed shape filled across files.

    Args:
        trained: From `load_weights`.
        files: Videos; one that cannot be read is reported and left out.
        batch_size: Clips at a time; the last batch is padded, so that there is one
            compilation.

    Yields:
        (rows, audio [n, d], video [n, d]) with n <= batch_size, in order. Where
        `has_audio` is False the audio vector is zeros: there was nothing to hear.
    """
    import jax

    @jax.jit
    def embed(params: Any, model_state: Any, batch: Batch) -> tuple:
        return trained.model.embed(
            params, model_state, batch.frame, batch.log_mel, train=False
        )[0]

    waiting: list[tuple[Row, Clip]] = []

    def encode() -> tuple[list[Row], np.ndarray, np.ndarray]:
        rows = [row for row, _ in waiting]
        n = len(waiting)
        batch = Batch(
            frame=np.stack([clip.frame for _, clip in waiting]),
            # As stored for training: float16.
            log_mel=np.stack([c.log_mel for _, c in waiting]).astype(np.float16),
            clip_id=np.arange(n, dtype=np.int32),
            video_id=np.zeros(n, np.int32),
            label=np.full(n, -1, np.int32),
            weight=np.ones(n, np.float32),
        )
        video, audio = embed(
            trained.params, trained.model_state, filled(batch, batch_size)
        )
        heard = np.array([row.has_audio for row in rows])[:, None]
        return rows, np.asarray(audio)[:n] * heard, np.asarray(video)[:n]

    for path in files:
        try:
            for clip in read_clips(
                path,
                size_px=trained.config.data.size_px,
                spectrogram=trained.spectrogram,
            ):
                flags = (bool(clip.has_audio), bool(clip.silent), bool(clip.partial))
                row = Row(
                    printable(path), clip.start_s, clip.end_s, clip.frame_s, *flags
                )
                waiting.append((row, clip))
                if len(waiting) == batch_size:
                    yield encode()
                    waiting.clear()
        except VisxpError as error:
            print(f"skipped: {error}", file=sys.stderr)
    if waiting:
        yield encode()


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
        prog="python -m visxp_jax.extract", description=__doc__
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILES")
    parser.add_argument(
        "--workdir", required=True, type=Path, help="of a finished training run"
    )
    parser.add_argument("--out", required=True, type=Path, help=".npz or .parquet")
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args(argv)
    try:
        run(args.workdir, args.files, args.out, batch_size=args.batch_size)
    except VisxpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(workdir: Path, files: list[Path], out: Path, *, batch_size: int) -> None:
    """Extract `files` with the model in `workdir` into one file.

    Raises:
        VisxpError: no model, an output of unknown kind, or no clip in any file. The
            output appears only once it is whole.
    """
    if out.suffix not in WRITERS:
        raise VisxpError(f"--out must end in .npz or .parquet, got {str(out)!r}.")
    if not out.absolute().parent.is_dir():
        raise VisxpError(f"the folder of --out must exist, got {str(out)!r}.")
    if batch_size < 1:
        raise VisxpError(f"--batch-size must be at least 1, got {batch_size}.")
    trained = load_weights(workdir)
    rows: list[Row] = []
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    with tqdm(desc="extract", unit="clip", disable=None) as bar:
        for new, audio, video in extract(trained, files, batch_size=batch_size):
            rows += new
            parts.append((audio, video))
            bar.update(len(new))
    if not rows:
        raise VisxpError("none of the files gave a clip; nothing was written.")
    audio, video = (np.concatenate(x) for x in zip(*parts, strict=True))
    about = {
        "visxp_jax": __version__,
        "model": str(workdir),
        "model_sha256": trained.about["sha256"],
        "config": trained.config.name,
        "spectrogram": trained.config.data.spectrogram,
        "size_px": trained.config.data.size_px,
        "command": sys.argv,
    }
    partial = out.with_name(out.name + ".partial")
    WRITERS[out.suffix](partial, rows, audio, video, json.dumps(about))
    partial.replace(out)
    print(f"{len(rows)} clips of {len({r.path for r in rows})} files -> {out}")


if __name__ == "__main__":
    sys.exit(main())
