"""Stage 2: shards that TFDS can read, and an index of every clip in them."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.writer import ExampleWriter
from tensorflow_datasets.proto import tf_example_pb2

from visxp_jax.data.dataset import SPLITS
from visxp_jax.progress import progress_bar

NAME = "visxp_clips"
VERSION = "1.0.0"

INDEX_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("clip_id", pa.int64()),
        ("position", pa.int64()),  # of the record in the split, over its shards
        ("video_id", pa.int64()),
        ("video", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("frame_s", pa.float64()),
        ("label", pa.int64()),
        ("has_audio", pa.bool_()),
        ("silent", pa.bool_()),
        ("still", pa.bool_()),
        ("partial", pa.bool_()),
    ]
)
_STORED = tuple(n for n in INDEX_SCHEMA.names if n not in ("split", "position"))


class Video(NamedTuple):
    """A video to be written."""

    name: str
    video_id: int
    label: int  # -1 if none
    first_clip_id: int  # its clips are numbered from there
    clips: Callable[[], Iterator[dict[str, Any]]]


# Of videos and (bands, frames): a `PTransform` of Apache Beam to their examples.
Transform = Callable[[list[Video], tuple[int, int]], Any]


def examples_of(
    video: Video, log_mel_shape: tuple[int, int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The clips of a video as TFDS takes them, by their numbers."""
    for clip_id, clip in enumerate(video.clips(), video.first_clip_id):
        log_mel = np.frombuffer(clip["log_mel"], np.float16)
        yield (
            clip_id,
            {
                **clip,
                "log_mel": log_mel.reshape(log_mel_shape),
                "video": video.name,
                "video_id": video.video_id,
                "clip_id": clip_id,
                "label": video.label,
            },
        )


class _SameBytes(ExampleWriter):
    """Writes the same shards whenever the clips are the same.

    A record is a protocol buffer with a map, which is stored in no fixed order unless
    asked for.
    """

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, ((key, _sorted(data)) for key, data in examples))


def _sorted(data: bytes) -> bytes:
    example = tf_example_pb2.Example.FromString(data)  # pyright: ignore
    return example.SerializeToString(deterministic=True)


class _LocalInfo(tfds.core.DatasetInfo):
    """What TFDS knows of a data set that is nowhere else."""

    def initialize_from_bucket(self) -> None:
        """Not looked for: TFDS would leave a temporary folder behind."""


class VisxpClips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One-second clips: a frame, the sound around it, times and flags."""

    name = NAME
    VERSION = tfds.core.Version(VERSION)
    # Nothing is downloaded. TFDS would look up checksums beside this module, with the
    # help of a package that it does not declare.
    url_infos = None

    def __init__(
        self,
        videos: dict[str, list[Video]],
        *,
        log_mel_shape: tuple[int, int],
        size_px: int,
        progress: bool,
        transform: Transform | None,
        **settings: Any,
    ) -> None:
        """Write `videos` by split, one after another or as `transform` wants."""
        self._videos = videos
        self._progress = progress
        self._transform = transform
        self._log_mel_shape = log_mel_shape
        self._size_px = size_px
        super().__init__(**settings)

    def _info(self) -> tfds.core.DatasetInfo:
        whole, flag = np.int64, np.bool_
        features = {
            "frame": tfds.features.Image(
                shape=(self._size_px, self._size_px, 3), encoding_format="jpeg"
            ),
            # As bytes: ten times faster to write than as a list of floats.
            "log_mel": tfds.features.Tensor(
                shape=self._log_mel_shape,
                dtype=np.float16,
                encoding=tfds.features.Encoding.BYTES,
            ),
            "start_s": _seconds(),
            "end_s": _seconds(),
            "frame_s": _seconds(),
            "video": tfds.features.Text(),
            "video_id": tfds.features.Scalar(whole),
            "clip_id": tfds.features.Scalar(whole),
            "label": tfds.features.Scalar(whole),
            "has_audio": tfds.features.Scalar(flag),
            "silent": tfds.features.Scalar(flag),
            "still": tfds.features.Scalar(flag),
            "partial": tfds.features.Scalar(flag),
        }
        return _LocalInfo(
            builder=self,
            description=self.__doc__ or "",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            split: self._generate_examples(split)
            for split in SPLITS
            if self._videos[split]
        }

    def _example_writer(self) -> ExampleWriter:
        return _SameBytes(self.info.file_format or tfds.core.FileFormat.TFRECORD)

    def _generate_examples(self, split: str) -> Any:
        if self._transform is None:
            return self._one_after_another(split)
        return self._transform(self._videos[split], self._log_mel_shape)

    def _one_after_another(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for video in progress_bar(
            iterable=self._videos[split],
            desc=f"{split} shards",
            unit="file",
            shown=self._progress,
        ):
            yield from examples_of(video, self._log_mel_shape)


def _seconds() -> tfds.features.Tensor:
    # As bytes: TFDS stores float64 as float32 otherwise, 0.5 ms off after two hours.
    return tfds.features.Tensor(
        shape=(), dtype=np.float64, encoding=tfds.features.Encoding.BYTES
    )


def write_shards(
    videos: dict[str, list[Video]],
    out: Path,
    *,
    scratch: Path,
    log_mel_shape: tuple[int, int],
    size_px: int,
    file_format: str,
    progress: bool = False,
    transform: Transform | None = None,
    beam_options: Any = None,
) -> Path:
    """Write OUT/visxp_clips/1.0.0; records are shuffled by a hash of their number.

    Args:
        videos: By split, sorted.
        out: Must not hold shards yet.
        scratch: Folder for what TFDS wants to create besides.
        log_mel_shape: (bands, frames).
        size_px: Of the frames.
        file_format: 'tfrecord' or 'array_record'.
        progress: Show it on stderr.
        transform: Makes Beam's workers do it.
        beam_options: `PipelineOptions` for them.

    Returns:
        That folder.
    """
    tfds.disable_progress_bar()
    with quiet():
        builder = VisxpClips(
            videos,
            log_mel_shape=log_mel_shape,
            size_px=size_px,
            progress=progress,
            transform=transform,
            data_dir=str(out),
            file_format=file_format,
        )
        builder.download_and_prepare(
            download_dir=str(scratch),
            download_config=tfds.download.DownloadConfig(
                try_download_gcs=False, beam_options=beam_options
            ),
        )
    return out / NAME / VERSION


@contextmanager
def quiet() -> Iterator[None]:
    """TFDS speaks of downloads, and warns of its own deprecated attributes."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def read_index(builder_dir: Path) -> pa.Table:
    """Read every record back, pictures undecoded, and say where each clip is.

    Returns:
        `INDEX_SCHEMA`, sorted by split and clip_id.
    """
    tables = []
    with quiet():
        builder = tfds.builder_from_directory(str(builder_dir))
        for split in SPLITS:
            if split in builder.info.splits:
                tables.append(_split_index(builder, split))
    return pa.concat_tables(tables)


def _split_index(builder: Any, split: str) -> pa.Table:
    columns = _columns(builder, split)
    count = len(columns["clip_id"])
    columns["video"] = [name.decode() for name in columns["video"]]
    columns["split"] = [split] * count
    columns["position"] = np.arange(count)
    table = pa.table({name: columns[name] for name in INDEX_SCHEMA.names})
    return table.cast(INDEX_SCHEMA).sort_by("clip_id")


def _columns(builder: Any, split: str) -> dict[str, Any]:
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        undecoded = {"frame": tfds.decode.SkipDecoding()}
        source = builder.as_data_source(split=split, decoders=undecoded)
        records = (source[i] for i in range(len(source)))
        # item(): without TensorFlow what is stored as bytes has the shape [1].
        rows = [
            [np.asarray(record[name]).item() for name in _STORED] for record in records
        ]
        return dict(zip(_STORED, zip(*rows, strict=True), strict=True))
    stored = tfds.decode.PartialDecoding(dict.fromkeys(_STORED, True))
    # One file after another: the order that readers count positions in.
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(split=split, decoders=stored, read_config=in_order)
    batches = list(dataset.batch(4096).as_numpy_iterator())
    return {
        name: np.concatenate([batch[name] for batch in batches]) for name in _STORED
    }
