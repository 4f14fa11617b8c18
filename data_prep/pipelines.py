"""The two stages as pipelines of Apache Beam, whose workers share a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam  # pyright: ignore

from data_prep import builder
from data_prep.builder import Video, examples_of
from data_prep.manifest import VideoRow
from data_prep.parts import PartTask, read_row, write_failure, write_part
from data_prep.pool import Failure, IsolatedProcess
from visxp_jax.errors import VisxpError
from visxp_jax.media import printable


def write_parts(
    tasks: list[PartTask], options: Any, *, timeout_s: float
) -> Iterator[tuple[PartTask, VideoRow]]:
    """Stage 1: a video is an element, and its result a file in the folder of parts.

    Args:
        tasks: What is to be done.
        options: `PipelineOptions`.
        timeout_s: A file that yields no clip for so long is skipped.

    Yields:
        Task and row, once all are done.

    Raises:
        VisxpError: a worker could not write its part, wrote it elsewhere, or does not
            see the video.
    """
    if not tasks:
        return
    with _errors_as_here(), beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Videos" >> beam.Create(tasks)
            | "Spread" >> beam.Reshuffle()  # or one worker would get them all
            | "WriteParts" >> beam.ParDo(_WriteParts(timeout_s))
        )
    for task in tasks:
        row = read_row(task)
        if row is None:
            raise VisxpError(
                "--out must be one folder for all of Beam's workers and this process, "
                f"but what they wrote of {printable(task.source.path)} is not in "
                f"{printable(task.folder)}; share it under one path."
            )
        yield task, row


class _WriteParts(beam.DoFn):
    """Writes parts in a process beside: what crashes a worker fails the pipeline."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def setup(self) -> None:
        self._process = IsolatedProcess(write_part, timeout_s=self._timeout_s)

    def process(self, task: PartTask) -> None:
        if read_row(task) is not None:
            return  # a bundle of elements that failed is given out again
        source = task.source
        if source.mtime_ns and not source.path.exists():  # not a link to nothing
            raise VisxpError(
                "VIDEOS must be one folder for all of Beam's workers, but one has no "
                f"{printable(source.path)}; share it under one path."
            )
        result = self._process.run(task)
        if isinstance(result, Failure):
            write_failure(task, result)

    def teardown(self) -> None:
        self._process.close()


def write_shards(*args: Any, options: Any, **settings: Any) -> Path:
    """Stage 2: `builder.write_shards` with `PipelineOptions`."""
    with _errors_as_here():
        return builder.write_shards(
            *args, **settings, transform=_examples, beam_options=options
        )


def _examples(videos: list[Video], log_mel_shape: tuple[int, int]) -> Any:
    return (
        beam.Create(videos)
        | beam.Reshuffle()
        | beam.FlatMap(examples_of, log_mel_shape)
    )


@contextmanager
def _errors_as_here() -> Iterator[None]:
    """What a worker raises arrives as a RuntimeError that holds it as text."""
    try:
        yield
    except RuntimeError as error:
        if KeyboardInterrupt.__name__ in str(error):
            raise KeyboardInterrupt from error
        _, found, message = str(error).rpartition(f"{VisxpError.__name__}: ")
        if not found:
            raise
        raise VisxpError(message.strip()) from error
