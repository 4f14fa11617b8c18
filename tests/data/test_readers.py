"""Both readers: the same clips, positions that are one integer, equal shares."""

import itertools
import shutil

import numpy as np
import pytest

from visxp_jax.data.array_record import ArrayRecordReader
from visxp_jax.data.dataset import open_dataset
from visxp_jax.data.tfrecord import TFRecordReader
from visxp_jax.errors import VisxpError
from visxp_jax.types import Batch

FORMATS = ("tfrecord", "array_record")


def reader(prepared, file_format: str, **hosts):
    dataset = open_dataset(prepared[file_format])
    if file_format == "tfrecord":
        return TFRecordReader(dataset, shuffle_buffer=1000, **hosts)
    return ArrayRecordReader(dataset, **hosts)


def joined(batches) -> Batch:
    columns = zip(*batches, strict=True)
    rows = Batch(*(np.concatenate(column) for column in columns))
    kept = Batch(*(column[rows.weight > 0] for column in rows))
    order = np.argsort(kept.clip_id)
    return Batch(*(column[order] for column in kept))


def test_both_readers_give_the_same_clips(prepared):
    a, b = (joined(reader(prepared, f).ordered("test", batch_size=16)) for f in FORMATS)
    dataset = open_dataset(prepared["tfrecord"])
    assert len(a.clip_id) == dataset.num_usable("test") > 0
    for ours, theirs in zip(a, b, strict=True):
        assert ours.dtype == theirs.dtype
        if ours.ndim == 4:  # two JPEG decoders may round differently
            difference = np.abs(ours.astype(int) - theirs.astype(int))
            assert difference.mean() < 1.0
        else:
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("file_format", FORMATS)
def test_train_position_is_one_integer(prepared, file_format):
    source = reader(prepared, file_format)
    per_epoch = open_dataset(prepared[file_format]).num_usable("train") // 16
    count = per_epoch + 3
    whole = list(itertools.islice(source.train(batch_size=16, seed=3, start=0), count))
    again = source.train(batch_size=16, seed=3, start=per_epoch - 1)
    for expected, batch in zip(whole[per_epoch - 1 :], again, strict=False):
        for x, y in zip(expected, batch, strict=True):
            np.testing.assert_array_equal(x, y)
    epoch = np.concatenate([b.clip_id for b in whole[:per_epoch]])
    assert len(set(epoch.tolist())) == len(epoch)
    assert not np.array_equal(whole[0].clip_id, whole[per_epoch].clip_id)


@pytest.mark.parametrize("file_format", FORMATS)
def test_two_hosts_share_the_clips_without_overlap(prepared, file_format):
    hosts = [reader(prepared, file_format, host=h, hosts=2) for h in (0, 1)]
    parts = [list(h.ordered("train", batch_size=16)) for h in hosts]
    assert len(parts[0]) == len(parts[1])
    ids = [set(joined(p).clip_id.tolist()) for p in parts]
    assert not ids[0] & ids[1]
    usable = open_dataset(prepared[file_format]).num_usable("train")
    assert len(ids[0] | ids[1]) == usable
    training = [
        next(iter(h.train(batch_size=16, seed=0, start=0))).clip_id for h in hosts
    ]
    assert not set(training[0].tolist()) & set(training[1].tolist())


@pytest.mark.parametrize("file_format", FORMATS)
def test_frames_of_some_clips_are_jpegs(prepared, file_format):
    found = reader(prepared, file_format).frames("test", [0, 5])
    assert set(found) == {0, 5}
    assert all(data.startswith(b"\xff\xd8") for data in found.values())


@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_shard_is_named_with_the_place(prepared, tmp_path, file_format):
    folder = tmp_path / "data"
    shutil.copytree(prepared[file_format], folder)
    shard = next(folder.rglob(f"*train*{file_format}*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    source = reader({file_format: folder}, file_format)
    clips = range(open_dataset(folder).num_clips("train"))
    for read in (
        lambda: list(source.ordered("train", batch_size=16)),
        lambda: [next(b) for b in [source.train(batch_size=16, seed=0, start=0)] * 50],
        lambda: source.frames("train", clips),
    ):
        with pytest.raises(VisxpError, match=rf"{shard.name} is damaged: .*at byte \d"):
            read()
