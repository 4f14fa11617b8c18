"""What training and evaluation ask of prepared data, however it is stored."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from visxp_jax.data.dataset import PreparedDataset, damaged
from visxp_jax.types import Batch


class Reader(Protocol):
    """Reads one prepared data set; batches hold this host's share of the rows."""

    def train(self, *, batch_size: int, seed: int, start: int) -> Iterator[Batch]:
        """Shuffled batches without end, full ones only.

        Args:
            batch_size: Rows on this host.
            seed: Decides the order.
            start: Batches already consumed: `train(start=s)` gives exactly what
                `train(start=0)` gives after s batches, so a position is one integer.
        """
        ...

    def ordered(self, split: str, *, batch_size: int) -> Iterator[Batch]:
        """Every usable clip of a split once; the last batch filled up with weight 0."""
        ...

    def frames(self, split: str, clip_ids: Iterable[int]) -> dict[int, bytes]:
        """JPEG bytes of the frames of some clips."""
        ...


def open_builder(dataset: PreparedDataset) -> Any:
    """TFDS's view of the shards.

    Raises:
        VisxpError: the files that describe them are damaged.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(dataset.builder_dir)
    except Exception as error:  # of json, protobuf and TFDS
        raise damaged(dataset.builder_dir, error) from error


def filled(batch: Batch, batch_size: int) -> Batch:
    """Fill a batch up to `batch_size` rows with zeros of weight 0 and clip_id -1."""
    missing = batch_size - batch.size
    if not missing:
        return batch

    def fill(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])

    full = Batch(*(fill(x) for x in batch))
    full.clip_id[-missing:] = -1
    return full
