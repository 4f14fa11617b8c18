"""ArrayRecord shards through grain; no TensorFlow anywhere."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grain.python as grain
import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore
from PIL import Image

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

KEYS = ("frame", "log_mel", "clip_id", "video_id", "label")


class ArrayRecordReader:
    """See `visxp_jax.data.reader.Reader`.

    Records are read by position, so the order of an epoch is a permutation of all of
    them and does not depend on the number of hosts.
    """

    def __init__(
        self, dataset: PreparedDataset, *, host: int = 0, hosts: int = 1
    ) -> None:
        """Open a data set whose shards have been checked."""
        self._dataset = dataset
        self._builder = open_builder(dataset)
        self._host, self._hosts = host, hosts

    def train(
        self,
        *,
        batch_size: int,
        seed: int,
        start: int,
        weights: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """See `Reader.train`."""
        if weights is None:
            weights = np.ones(self._dataset.num_clips("train"))
        sums = weight_sums(self._dataset, weights)
        index = self._dataset.index("train")
        order = np.argsort(index["position"])
        positions, clip_id = index["position"][order], index["clip_id"][order]
        record = self._records("train")
        per_epoch = full_batches(
            int(sums[-1]) // UNIT, batch_size=batch_size, hosts=self._hosts
        )
        epoch, batch = divmod(start, per_epoch)
        kept = per_epoch * batch_size * self._hosts
        while True:
            rows = np.repeat(positions, repeats(sums, clip_id, seed=seed, epoch=epoch))
            rows = np.random.default_rng([seed, epoch]).permutation(rows)[:kept]
            rows = rows[batch * batch_size * self._hosts :]
            rows = rows.reshape(-1, self._hosts, batch_size)[:, self._host].ravel()
            with self._blaming_shard("train"):
                yield from _batches(record, rows, batch_size)
            epoch, batch = epoch + 1, 0

    def ordered(self, split: str, *, batch_size: int) -> Iterator[Batch]:
        """See `Reader.ordered`."""
        positions = self._usable(split)
        record = self._records(split)
        count = -(-len(positions) // (self._hosts * batch_size))
        # A host whose share ran out repeats record 0 with weight 0.
        padded = np.zeros(count * self._hosts * batch_size, np.int64)
        padded[: len(positions)] = positions
        real = np.arange(len(padded)) < len(positions)
        mine = slice(self._host, None, self._hosts)
        real = real[mine].reshape(count, batch_size)
        batches = _batches(record, padded[mine], batch_size)
        with self._blaming_shard(split):
            for batch, ok in zip(batches, real, strict=True):
                kept = Batch(*(x[ok] for x in batch))
                yield filled(kept, batch_size)

    def frames(self, split: str, clip_ids: Iterable[int]) -> dict[int, bytes]:
        """See `Reader.frames`."""
        index = self._dataset.index(split)
        position = dict(zip(index["clip_id"], index["position"], strict=True))
        record = self._records(split)
        with self._blaming_shard(split):
            return {i: record(int(position[i]))["frame"] for i in set(clip_ids)}

    @contextmanager
    def _blaming_shard(self, split: str) -> Iterator[None]:
        """Say which shard is damaged, and where: ArrayRecord says only where."""
        try:
            yield
        except RuntimeError as error:
            for shard in self._dataset.shards(split):
                try:
                    records = array_record_module.ArrayRecordReader(str(shard))
                    for number in range(records.num_records()):
                        records.read([number])
                except RuntimeError as found:
                    raise damaged(shard, found) from error
            raise

    def _records(self, split: str) -> Callable[[int], dict[str, Any]]:
        """From a position to the record's features of `KEYS`, the frame as JPEG."""
        source = self._builder.as_data_source(
            split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        stored = self._builder.info.features
        # Only these: half the time of parsing all, which threads cannot share.
        features: Any = tfds.features.FeaturesDict({key: stored[key] for key in KEYS})
        decoders = {"frame": tfds.decode.SkipDecoding()}
        return lambda position: features.deserialize_example_np(
            source[position], decoders=decoders
        )

    def _usable(self, split: str) -> np.ndarray:
        index = self._dataset.index(split)
        usable = index["has_audio"] & ~index["silent"]
        return np.sort(index["position"][usable])


def _batches(
    record: Callable[[int], dict[str, Any]], rows: np.ndarray, batch_size: int
) -> Iterator[Batch]:
    def read(row: int) -> dict[str, Any]:
        stored = record(row)
        frame = np.asarray(Image.open(io.BytesIO(stored["frame"])).convert("RGB"))
        return {**stored, "frame": frame}

    stream = (
        grain.MapDataset.source(rows.tolist())
        .map(read)
        .to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=256))
        .batch(batch_size, drop_remainder=True)
    )
    for r in stream:
        yield Batch(
            frame=r["frame"],
            log_mel=r["log_mel"],
            clip_id=r["clip_id"].astype(np.int32),
            video_id=r["video_id"].astype(np.int32),
            label=r["label"].astype(np.int32),
            weight=np.ones(len(r["clip_id"]), np.float32),
        )
