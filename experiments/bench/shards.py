"""Writing TFDS shards of prepared clips (256 x 256 JPEG, 257 x 99 log-mel), per second.

    python -m experiments.bench.shards

Goal: at least 2,000 examples/s. The rival is TFDS with the encoding it chooses by
itself for a float32 array. Floor: the finished records written one after another.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data_prep.builder import quiet
from experiments.bench import synthetic
from experiments.bench.measure import arguments, as_json, finish, interleaved, table

PEER = "TFDS, default encoding"
OURS = "visxp_jax, tfrecord"
OURS_TOO = "visxp_jax, array_record"
FLOOR = "floor: ready records"


class DefaultEncoding(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The same clips as float32, which TFDS stores as a list of floats."""

    name = "default_encoding"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def __init__(self, num_clips: int, made: synthetic.Made, **settings: Any) -> None:
        """Write `num_clips` clips."""
        self._num_clips, self._made = num_clips, made
        super().__init__(**settings)

    def _info(self) -> tfds.core.DatasetInfo:
        size = synthetic.SIZE_PX
        features = {
            "frame": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg"),
            "log_mel": tfds.features.Tensor(
                shape=synthetic.LOG_MEL_SHAPE, dtype=np.float32
            ),
            "clip_id": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__ or "",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, clip in enumerate(synthetic.clips(self._num_clips, self._made)):
            sound = np.frombuffer(clip["log_mel"], np.float16)
            sound = sound.reshape(synthetic.LOG_MEL_SHAPE).astype(np.float32)
            yield i, {"frame": clip["frame"], "log_mel": sound, "clip_id": i}


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--clips", type=int, default=4000, help="of ours, per round")
    args = parser.parse_args()
    made = synthetic.make()
    peer_clips = args.clips // 10
    folder = tempfile.TemporaryDirectory()
    count = 0

    def fresh() -> Path:
        nonlocal count
        count += 1
        path = Path(folder.name) / str(count)
        path.mkdir()
        return path

    def peer() -> None:
        with quiet():
            path = str(fresh())
            builder = DefaultEncoding(peer_clips, made, data_dir=path)
            builder.download_and_prepare()

    def ours(file_format: str) -> Path:
        return synthetic.write(
            fresh(), num_clips=args.clips, made=made, file_format=file_format
        )

    with folder:
        shards = [str(p) for p in ours("tfrecord").glob("*.tfrecord*")]
        records = list(tf.data.TFRecordDataset(shards).as_numpy_iterator())

        def floor() -> None:
            with tf.io.TFRecordWriter(str(fresh() / "ready")) as writer:
                for record in records:
                    writer.write(record)

        rates = interleaved(
            {
                PEER: peer,
                OURS: lambda: ours("tfrecord"),
                OURS_TOO: lambda: ours("array_record"),
                FLOOR: floor,
            },
            units={
                PEER: peer_clips,
                OURS: args.clips,
                OURS_TOO: args.clips,
                FLOOR: len(records),
            },
            reference=PEER,
            rounds=args.rounds,
            warm_ups=0,
        )
    share = rates[OURS].per_s / rates[FLOOR].per_s
    kilobytes = sum(map(len, records)) / len(records) / 1e3
    print(table(f"shards, {kilobytes:.0f} KB a record", "examples/s", rates, PEER))
    print(f"  share of the floor: {share:.0%}")
    figures = {"rates": as_json(rates), "share_of_floor": share, "record_kb": kilobytes}
    finish(args.out, "shards", figures)


if __name__ == "__main__":
    main()
