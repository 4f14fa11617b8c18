"""What training and evaluation ask of prepared data, however it is stored."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from visxp_jax.data.dataset import PreparedDataset, damaged
from visxp_jax.errors import VisxpError
from visxp_jax.types import Batch

UNIT = 2**32  # weight 1 in fixed point: sums are exact, on every host the same
GOLDEN = 2654435769  # UNIT / golden ratio: shifts by its multiples cover all evenly


class Reader(Protocol):
    """Reads one prepared data set; batches hold this host's share of the rows."""

    def train(
        self,
        *,
        batch_size: int,
        seed: int,
        start: int,
        weights: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """Shuffled batches without end, full ones only.

        Args:
            batch_size: Rows on this host.
            seed: Decides the order.
            start: Batches already consumed: `train(start=s)` gives exactly what
                `train(start=0)` gives after s batches, so a position is one integer.
            weights: [n], row i of clip_id i: how often, on average, an epoch holds
                the clip; rows of unusable clips and past the last do not count. None:
                every clip once. An epoch ends with its last full batch.

        Raises:
            VisxpError: (with the first batch) an epoch holds no batch for every host,
                or a weight is negative or not finite.
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


def full_batches(clips: int, *, batch_size: int, hosts: int) -> int:
    """Full batches of an epoch on each host.

    Raises:
        VisxpError: there is none.
    """
    if clips < batch_size * hosts:
        raise VisxpError(
            f"an epoch must hold a batch of {batch_size} training clips for each of "
            f"{hosts} host(s), got {clips} clips; make the batch smaller, or the "
            "weights of the clips larger."
        )
    return clips // (batch_size * hosts)


def weight_sums(dataset: PreparedDataset, weights: np.ndarray) -> np.ndarray:
    """Sums of the weights of usable training clips: what `repeats` draws from.

    Args:
        dataset: Whose training clips.
        weights: [n], see `Reader.train`.

    Returns:
        int64 [n + 1]: row i is the sum over the clips before clip i, times `UNIT`. An
        epoch holds `sums[-1] // UNIT` clips, some epochs one more.

    Raises:
        VisxpError: a weight is negative or not finite.
    """
    index = dataset.index("train")
    usable = index["clip_id"][index["has_audio"] & ~index["silent"]]
    kept = weights[usable].astype(np.float64)
    wrong = kept[~((kept >= 0) & (kept < np.inf))]
    if len(wrong):
        raise VisxpError(
            f"weights of clips must be finite and not negative, got {wrong[0]}; look "
            "at what they were computed from."
        )
    sums = np.zeros(len(weights) + 1)
    sums[usable + 1] = kept
    sums = np.cumsum(sums)
    # Weights that add up to a number but for their rounding do so exactly: otherwise
    # an epoch would lack a clip, and perhaps a batch.
    whole = np.rint(sums[-1])
    if abs(sums[-1] - whole) < min(1e-5 * sums[-1], 1e-2):
        sums *= whole / max(sums[-1], 1e-300)
    return np.rint(sums * UNIT).astype(np.int64)


def repeats(sums: Any, clip_id: Any, *, seed: int, epoch: Any) -> Any:
    """How often an epoch holds clips of weight w: floor(w) or ceil(w) times.

    Systematic sampling: of a line on which each clip covers its weight, the points one
    apart are taken, and each epoch shifts them. So all epochs are of one length, to one
    clip, where rounding each weight alone would leave the number of batches to chance.
    As shifts by multiples of the golden ratio are evenly spread, a clip also comes
    evenly over the epochs. Neighbours on the line are clips of one video: no video gets
    more than its share.

    Args:
        sums: int64 [n + 1], from `weight_sums`; numpy or TensorFlow, like the next.
        clip_id: Integers of any shape; a scalar for TensorFlow.
        seed: Decides the shift of epoch 0.
        epoch: An integer, or an int64 scalar of TensorFlow.

    Returns:
        int64, one count for each of `clip_id`.
    """
    shift = (int(np.random.default_rng(seed).integers(UNIT)) + epoch * GOLDEN) % UNIT
    # `//`, not a shift of bits: tensors have no operator for that.
    return (sums[clip_id + 1] + shift) // UNIT - (sums[clip_id] + shift) // UNIT


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
