"""Training input: shuffled batches of 256 x 256 JPEG and 257 x 99 log-mel, per second.

    python -m experiments.bench.pipeline

Both readers, without a training step beside them. Goal: at least 2,500 clips/s by
tf.data on two cores. Floor: decoding the same JPEGs from memory on all cores.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from experiments.bench import synthetic
from experiments.bench.measure import arguments, as_json, finish, interleaved, table
from visxp_jax.data.array_record import ArrayRecordReader
from visxp_jax.data.tfrecord import TFRecordReader
from visxp_jax.types import Batch

BATCH = 64
TFRECORD = "tfrecord, tf.data"
ARRAY_RECORD = "array_record, grain"
FLOOR = "floor: JPEG decoding"


def decoder(pictures: list[bytes]) -> Iterator[tf.Tensor]:
    """Batches of decoded pictures, endless, from memory."""
    stream = tf.data.Dataset.from_tensor_slices(pictures).cache().repeat()
    stream = stream.map(
        lambda data: tf.io.decode_jpeg(data, channels=3),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return iter(stream.batch(BATCH).prefetch(2))


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--clips", type=int, default=5000, help="in the data set")
    parser.add_argument("--batches", type=int, default=40, help="of 64, per round")
    args = parser.parse_args()

    def take(stream: Iterator[Batch | tf.Tensor]) -> None:
        for _ in itertools.islice(stream, args.batches):
            pass

    with tempfile.TemporaryDirectory() as folder:
        sets = {
            name: synthetic.dataset(
                Path(folder) / name, num_clips=args.clips, file_format=name
            )
            for name in ("tfrecord", "array_record")
        }
        by_tf = TFRecordReader(sets["tfrecord"], shuffle_buffer=1000)
        by_grain = ArrayRecordReader(sets["array_record"])
        # Endless streams. While another one is timed they fill their buffers: each turn
        # begins by using these up.
        streams = {
            TFRECORD: by_tf.train(batch_size=BATCH, seed=0, start=0),
            ARRAY_RECORD: by_grain.train(batch_size=BATCH, seed=0, start=0),
            FLOOR: decoder(synthetic.make().pictures),
        }
        rates = interleaved(
            {
                TFRECORD: lambda: take(streams[TFRECORD]),
                ARRAY_RECORD: lambda: take(streams[ARRAY_RECORD]),
                FLOOR: lambda: take(streams[FLOOR]),
            },
            units=dict.fromkeys(streams, BATCH * args.batches),
            reference=FLOOR,
            rounds=args.rounds,
            lead_ins=1,
        )
        megabytes = sets["tfrecord"].num_bytes / 1e6
    title = f"input, batches of {BATCH} from {args.clips} clips, {megabytes:.0f} MB"
    print(table(title, "clips/s", rates, FLOOR))
    finish(args.out, "pipeline", {"rates": as_json(rates), "data_mb": megabytes})


if __name__ == "__main__":
    main()
