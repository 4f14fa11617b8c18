"""Stage 1: the clips of one video, as one Parquet file beside a row of the manifest.

A part appears only when it is whole, so a killed job goes on with the videos that are
missing.
"""

import dataclasses
import io
import json
import os
from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_prep.manifest import VideoRow
from data_prep.pool import Beat, Failure
from data_prep.sources import Source
from visxp_jax.atomic import write_whole
from visxp_jax.audio.spectrogram import PRESETS
from visxp_jax.errors import VisxpError
from visxp_jax.media import (
    Clip,
    MediaError,
    ReadReport,
    printable,
    probe,
    read_clips,
)

CLIPS_PER_GROUP = 64  # held in memory at a time, 70 KB each
JPEG_QUALITY = 90
THUMBNAIL_QUALITY = 75  # 3 KB each at 128 pixels

SCHEMA = pa.schema(
    [
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("frame_s", pa.float64()),
        ("frame", pa.binary()),  # JPEG
        ("log_mel", pa.binary()),  # float16, bands x frames
        ("has_audio", pa.bool_()),
        ("silent", pa.bool_()),
        ("still", pa.bool_()),
        ("partial", pa.bool_()),
    ]
)
SHOTS = b"shots"  # [[start_s, end_s], ...], in the file's metadata
THUMBNAIL = pa.field("thumbnail", pa.binary())  # JPEG, where they are asked for


class PartTask(NamedTuple):
    """What a worker needs to know to prepare one video."""

    source: Source
    folder: Path
    spectrogram: str
    size_px: int
    thumbnail_px: int = 0
    shots: bool = False  # look for them

    @property
    def part(self) -> Path:
        """Where the clips go."""
        return self.folder / f"{self.source.key}.parquet"


def write_part(task: PartTask, beat: Beat) -> VideoRow:
    """Write the clips of one video and its row; runs in a worker.

    Returns:
        The row, of status 'skipped' if the file cannot be used.
    """
    try:
        row = _write_clips(task, beat)
    except MediaError as error:
        row = VideoRow(
            task.source.name, "skipped", error.reason, label=task.source.label
        )
    write_row(task, row)
    return row


def write_failure(task: PartTask, failure: Failure) -> VideoRow:
    """Write and return the row of a file whose worker failed.

    Raises:
        VisxpError: it was the disk, not the file.
    """
    if isinstance(failure.error, OSError):
        raise VisxpError(
            f"cannot write {printable(task.folder)}: {failure.error}; free space or "
            "choose another --out, then run the same command again."
        )
    source = task.source
    row = VideoRow(source.name, "skipped", failure.reason, label=source.label)
    write_row(task, row)
    return row


def write_row(task: PartTask, row: VideoRow) -> None:
    """Note that a video is done with, and from which state of the file."""
    stamp = {"num_bytes": task.source.num_bytes, "mtime_ns": task.source.mtime_ns}
    text = json.dumps({"row": dataclasses.asdict(row), **stamp})
    write_whole(task.part.with_suffix(".json"), text)


def read_row(task: PartTask) -> VideoRow | None:
    """The row of a video that is done with; None if it is not, or has changed since.

    None as well where a power cut left half a part.
    """
    try:
        done = json.loads(task.part.with_suffix(".json").read_text(encoding="utf-8"))
        stamp = (done["num_bytes"], done["mtime_ns"])
        row = VideoRow(**done["row"])
        if row.status != "skipped":
            pq.read_metadata(task.part)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None  # not there, or cut off: it is made again
    if stamp != (task.source.num_bytes, task.source.mtime_ns):
        return None
    row.label = task.source.label  # which a new csv may have changed
    return row


def read_part(task: PartTask) -> Iterator[dict[str, Any]]:
    """The clips of one video, as dictionaries with the columns of the part."""
    # Without pre_buffer groups are not kept: memory stays flat here, too.
    with pq.ParquetFile(task.part, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=CLIPS_PER_GROUP):
            yield from batch.to_pylist()


def read_clips_of(task: PartTask) -> Iterator[tuple[dict[str, Any], Any, Any]]:
    """The same with frame, uint8 [h, w, 3], and log-mel, float16 [m, f], decoded.

    Where shots were looked for, with the one that the frame of the clip is of.
    """
    shape = PRESETS[task.spectrogram].shape
    shots = _read_shots(task)
    for clip in read_part(task):
        if shots:
            # Times of cuts have been rounded to microseconds.
            time_s = clip["frame_s"] + 1e-6
            at = bisect_right(shots, time_s, key=lambda shot: shot[0]) - 1
            clip["shot_start_s"], clip["shot_end_s"] = shots[max(at, 0)]
        frame = np.asarray(Image.open(io.BytesIO(clip["frame"])))
        yield clip, frame, np.frombuffer(clip["log_mel"], np.float16).reshape(shape)


def _read_shots(task: PartTask) -> list[list[float]]:
    return json.loads((pq.read_metadata(task.part).metadata or {}).get(SHOTS, b"[]"))


def _write_clips(task: PartTask, beat: Beat) -> VideoRow:
    path = task.source.path
    info, report = probe(path), ReadReport()
    detector = None
    if task.shots:
        from visxp_jax.shots import ShotDetector

        detector = ShotDetector(Fraction(info.fps).limit_denominator())
    row = VideoRow(
        task.source.name,
        "kept",
        label=task.source.label,
        fps=round(info.fps, 3),
        width=info.width,
        height=info.height,
        audio_rate=info.audio_rate_hz,
    )
    clips = read_clips(
        path,
        size_px=task.size_px,
        spectrogram=PRESETS[task.spectrogram],
        thumbnail_px=task.thumbnail_px,
        on_frame=detector.add if detector else None,
        report=report,
    )
    schema = SCHEMA.append(THUMBNAIL) if task.thumbnail_px else SCHEMA
    unfinished = task.part.with_name(f"{task.part.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(
            unfinished,
            schema,
            compression="NONE",  # JPEG and half floats hardly shrink
            use_dictionary=False,
            write_statistics=False,
        ) as writer:
            group = []
            for clip in clips:
                row.no_audio += not clip.has_audio
                row.silent += clip.silent
                row.still += clip.still
                row.partial += clip.partial
                group.append(_record(clip))
                beat()
                if len(group) == CLIPS_PER_GROUP:
                    writer.write_table(pa.Table.from_pylist(group, schema))
                    group.clear()
            if group:
                writer.write_table(pa.Table.from_pylist(group, schema))
            if detector is not None:
                shots = json.dumps(detector.shots(report.seconds))
                writer.add_key_value_metadata({SHOTS.decode(): shots})
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(task.part)
    finally:
        unfinished.unlink(missing_ok=True)
    row.seconds, row.sound_seconds = report.seconds, report.sound_seconds
    apart_s = abs(row.sound_seconds - row.seconds)
    row.mismatched = int(row.sound_seconds > 0 and apart_s > 1)
    row.clips, row.dropped = report.clips, report.dropped
    row.video_stream, row.audio_stream = report.video_stream, report.audio_stream
    # A file cut without encoding anew counts frames that it does not show.
    expected = min(info.num_frames, round(info.seconds * info.fps))
    expected = max(expected, report.frames)
    faults, dropped, leaps = report.faults, report.dropped, report.leaps
    if faults or dropped or leaps or report.frames < 0.98 * expected:
        row.status = "partial"
        row.reason = (
            f"{report.frames} of {expected} frames, {faults} damaged packets or "
            f"frames, {dropped} seconds dropped, {leaps} leaps of the clock"
        )
    return row


def _record(clip: Clip) -> dict[str, Any]:
    record = clip._asdict()
    record["frame"] = jpeg_of(clip.frame, JPEG_QUALITY)
    if clip.thumbnail is not None:
        record["thumbnail"] = jpeg_of(clip.thumbnail, THUMBNAIL_QUALITY)
    record["log_mel"] = clip.log_mel.astype(np.float16).tobytes()
    return record


def jpeg_of(image: np.ndarray, quality: int) -> bytes:
    """uint8 [h, w, 3] as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()
