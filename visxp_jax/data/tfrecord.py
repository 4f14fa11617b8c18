"""TFRecord shards through tf.data; the only reader that loads TensorFlow."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from visxp_jax.data.dataset import PreparedDataset, damaged
from visxp_jax.data.reader import (
    UNIT,
    filled,
    full_batches,
    open_builder,
    repeats,
    weight_sums,
)
from visxp_jax.types import Batch


class TFRecordReader:
    """See `visxp_jax.data.reader.Reader`.

    Records are filtered, shuffled and skipped as bytes; JPEGs are decoded last, only
    for the clips that are used.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        *,
        shuffle_buffer: int,
        host: int = 0,
        hosts: int = 1,
    ) -> None:
        """Open a data set whose shards have been checked.

        Args:
            dataset: From `open_dataset`.
            shuffle_buffer: Records held while shuffling.
            host: This process.
            hosts: Number of processes; each reads every `hosts`-th usable record.
        """
        tf.config.set_visible_devices([], "GPU")  # the accelerator is jax's
        self._dataset = dataset
        self._builder = open_builder(dataset)
        self._buffer = shuffle_buffer
        self._host, self._hosts = host, hosts

    def train(
        self,
        *,
        batch_size: int,
        seed: int,
        start: int,
        weights: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """See `Reader.train`.

        A clip that comes more than once in an epoch comes within about one shuffle
        buffer.
        """
        records = self._usable("train")
        if weights is None:
            sums, clips = None, self._num_usable("train")
        else:
            sums = tf.constant(weight_sums(self._dataset, weights))
            clips = int(sums[-1]) // UNIT
        per_epoch = full_batches(clips, batch_size=batch_size, hosts=self._hosts)
        epoch, position = divmod(start, per_epoch)
        first = seed * 2**32

        def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
            def repeated(record: dict[str, Any]) -> tf.data.Dataset:
                count = repeats(
                    sums, record["clip_id"], seed=seed, epoch=number - first
                )
                return tf.data.Dataset.from_tensors(record).repeat(count)

            drawn = records if sums is None else records.flat_map(repeated)
            # Shared out after repeating: all hosts' epochs are of one length.
            shuffled = drawn.shard(self._hosts, self._host).shuffle(
                # tf.data takes a tensor as seed, whatever its annotation says.
                self._buffer,
                seed=cast(Any, number),
                reshuffle_each_iteration=False,
            )
            return shuffled.batch(batch_size, drop_remainder=True).take(per_epoch)

        # One number per epoch seeds its order: no state but the count of batches.
        numbers = tf.data.Dataset.range(first + epoch, 2**62)
        stream = numbers.flat_map(one_epoch).skip(position)
        yield from self._batches(stream, "train")

    def ordered(self, split: str, *, batch_size: int) -> Iterator[Batch]:
        """See `Reader.ordered`."""
        records = self._usable(split).shard(self._hosts, self._host)
        count = -(-self._num_usable(split) // (self._hosts * batch_size))
        last = None
        for batch in self._batches(records.batch(batch_size), split):
            last = filled(batch, batch_size)
            count -= 1
            yield last
        # All hosts must hand out the same number of batches.
        while count > 0 and last is not None:
            count -= 1
            yield last._replace(
                weight=np.zeros_like(last.weight),
                clip_id=np.full_like(last.clip_id, -1),
            )

    def frames(self, split: str, clip_ids: Iterable[int]) -> dict[int, bytes]:
        """See `Reader.frames`."""
        wanted = tf.constant(sorted(set(clip_ids)), tf.int64)
        records = self._records(split).filter(
            lambda r: tf.reduce_any(wanted == r["clip_id"])
        )
        rows: Any = records.as_numpy_iterator()
        with self._blaming_shard(split):
            return {int(r["clip_id"]): r["frame"] for r in rows}

    def _records(self, split: str) -> tf.data.Dataset:
        return self._builder.as_dataset(
            split=split,
            decoders={"frame": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )

    def _usable(self, split: str) -> tf.data.Dataset:
        records = self._records(split).filter(lambda r: r["has_audio"] & ~r["silent"])
        keys = ("frame", "log_mel", "clip_id", "video_id", "label")
        records = records.map(lambda r: {key: r[key] for key in keys})
        # Small sets stay in memory as records (frames still compressed).
        return records.cache() if self._dataset.num_bytes < 2**28 else records

    def _num_usable(self, split: str) -> int:
        return self._dataset.num_usable(split)

    def _batches(self, stream: tf.data.Dataset, split: str) -> Iterator[Batch]:
        size = self._dataset.size_px

        def decode(record: dict[str, Any]) -> dict[str, Any]:
            image = tf.map_fn(
                # The exact transform: the same pixels as Pillow's.
                lambda data: tf.io.decode_jpeg(
                    data, channels=3, dct_method="INTEGER_ACCURATE"
                ),
                record["frame"],
                fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
            )
            return {**record, "frame": image}

        stream = stream.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.deterministic = True
        iterator = stream.with_options(options).prefetch(4).as_numpy_iterator()
        with self._blaming_shard(split):
            for r in iterator:
                yield Batch(
                    frame=r["frame"],
                    log_mel=r["log_mel"],
                    clip_id=r["clip_id"].astype(np.int32),
                    video_id=r["video_id"].astype(np.int32),
                    label=r["label"].astype(np.int32),
                    weight=np.ones(len(r["clip_id"]), np.float32),
                )

    @contextmanager
    def _blaming_shard(self, split: str) -> Iterator[None]:
        """Say which shard is damaged, and where: TensorFlow says only where."""
        try:
            yield
        except tf.errors.DataLossError as error:
            for shard in self._dataset.shards(split):
                try:
                    for _ in tf.data.TFRecordDataset(str(shard)):
                        pass
                except tf.errors.DataLossError as found:
                    what = re.search(r"(\w+ record at) (\d+)", str(found))
                    where = "{} byte {}".format(*what.groups()) if what else found
                    raise damaged(shard, where) from error
            raise damaged(self._dataset.builder_dir, error) from error
