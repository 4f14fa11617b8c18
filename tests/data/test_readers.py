"""Both readers: the same clips, positions that are one integer, equal shares."""

import itertools
import shutil

import numpy as np
import pytest

from visxp_jax.data.array_record import ArrayRecordReader
from visxp_jax.data.dataset import open_dataset
from visxp_jax.data.reader import UNIT, repeats, weight_sums
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


def usable_clips(prepared) -> np.ndarray:
    index = open_dataset(prepared["tfrecord"]).index("train")
    return index["clip_id"][index["has_audio"] & ~index["silent"]]


@pytest.fixture
def weighted(prepared) -> tuple[np.ndarray, int]:
    """Weights by clip_id, 0 for unusable clips, and the batches of 8 in their sum."""
    usable = usable_clips(prepared)
    weights = np.zeros(usable.max() + 5)
    weights[usable] = np.array([0, 0.25, 1, 1.5, 2.75])[usable % 5]
    weights[usable[0]] += -weights.sum() % 8
    return weights, round(weights.sum() / 8)


def clip_ids(source, count: int, start: int = 0, **settings) -> np.ndarray:
    stream = source.train(seed=3, start=start, **settings)
    return np.stack([batch.clip_id for batch in itertools.islice(stream, count)])


@pytest.mark.parametrize("file_format", FORMATS)
def test_weighted_clips_come_as_often_as_their_weight_says(
    prepared, weighted, file_format
):
    weights, per_epoch = weighted
    unusable = np.setdiff1d(np.arange(len(weights)), usable_clips(prepared))
    given = weights.copy()
    given[unusable] = 9  # does not count
    source = reader(prepared, file_format)
    ids = clip_ids(source, 4 * per_epoch, batch_size=8, weights=given)
    epochs = ids.reshape(4, -1)
    found = np.stack([np.bincount(e, minlength=len(weights)) for e in epochs])
    assert (found >= np.floor(weights)).all()
    assert (found <= np.ceil(weights)).all()
    assert np.abs(found.sum(0) - 4 * weights).max() < 2
    assert not np.array_equal(found[0], found[1])


@pytest.mark.parametrize("file_format", FORMATS)
def test_weighted_position_is_one_integer(prepared, weighted, file_format):
    weights, per_epoch = weighted
    source = reader(prepared, file_format)
    settings = {"batch_size": 8, "weights": weights}
    whole = clip_ids(source, 2 * per_epoch + 2, **settings)
    for start in (per_epoch - 1, 2 * per_epoch - 1):
        again = clip_ids(source, 3, start=start, **settings)
        np.testing.assert_array_equal(again, whole[start : start + 3])


@pytest.mark.parametrize("file_format", FORMATS)
def test_hosts_share_what_one_host_draws(prepared, weighted, file_format):
    weights, per_epoch = weighted
    alone, first, second = (
        clip_ids(
            reader(prepared, file_format, host=host, hosts=hosts),
            2 * per_epoch,
            batch_size=8 // hosts,
            weights=weights,
        ).reshape(2, -1)
        for host, hosts in ((0, 1), (0, 2), (1, 2))
    )
    shared = np.concatenate([first, second], axis=1)
    np.testing.assert_array_equal(np.sort(shared), np.sort(alone))


@pytest.mark.parametrize("file_format", FORMATS)
def test_weights_of_one_change_nothing(prepared, file_format):
    source = reader(prepared, file_format)
    usable = usable_clips(prepared)
    per_epoch = len(usable) // 8
    plain = clip_ids(source, per_epoch + 2, batch_size=8)
    ones = np.ones(usable.max() + 1, np.float32)
    same = clip_ids(source, per_epoch + 2, batch_size=8, weights=ones)
    np.testing.assert_array_equal(plain, same)
    each_once = clip_ids(source, len(usable), batch_size=1, weights=ones)
    np.testing.assert_array_equal(np.sort(each_once.ravel()), usable)


def test_unweighted_order_is_that_of_older_runs(prepared):
    index = open_dataset(prepared["array_record"]).index("train")
    usable = index["has_audio"] & ~index["silent"]
    clip_at = dict(zip(index["position"], index["clip_id"], strict=True))
    positions = np.sort(index["position"][usable])
    order = np.random.default_rng([3, 0]).permutation(positions)[:16]
    found = clip_ids(reader(prepared, "array_record"), 2, batch_size=8)
    assert found.ravel().tolist() == [clip_at[position] for position in order]


@pytest.mark.parametrize("file_format", FORMATS)
def test_too_few_draws_for_a_batch_are_refused(prepared, weighted, file_format):
    weights, per_epoch = weighted
    source = reader(prepared, file_format, host=0, hosts=2)
    few = weights * (15.5 / weights.sum())
    with pytest.raises(VisxpError, match="batch of 8 .* 2 host.*got 15 clips; make"):
        next(source.train(batch_size=8, seed=0, start=0, weights=few))
    for wrong in (-1.0, np.nan, np.inf):
        weights[usable_clips(prepared)[3]] = wrong
        with pytest.raises(VisxpError, match=f"not negative, got {wrong};"):
            next(source.train(batch_size=8, seed=0, start=0, weights=weights))


def test_repeats_keep_to_the_weights_over_epochs():
    weights = np.random.default_rng(0).gamma(0.5, 2.0, 500)
    units = np.rint(weights * UNIT).astype(np.int64)
    sums = np.concatenate([[0], np.cumsum(units)])
    clips = np.arange(500)
    found = np.stack([repeats(sums, clips, seed=7, epoch=e) for e in range(100)])
    assert ((found == np.floor(weights)) | (found == np.ceil(weights))).all()
    assert np.abs(found.sum(0) - 100 * weights).max() < 3
    assert set(found.sum(1)) == {int(weights.sum()), int(weights.sum()) + 1}
    over_seeds = [repeats(sums, clips, seed=s, epoch=0) for s in range(2000)]
    np.testing.assert_allclose(np.mean(over_seeds, 0), weights, atol=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_weights_that_add_up_but_for_rounding_lose_no_clip(prepared, seed):
    dataset = open_dataset(prepared["tfrecord"])
    index = dataset.index("train")
    usable = index["clip_id"][index["has_audio"] & ~index["silent"]]
    weights = np.zeros(dataset.num_clips("train"), np.float32)
    draw = np.random.default_rng(seed).exponential(size=len(usable))
    weights[usable] = draw * (len(usable) / draw.sum())
    assert int(weight_sums(dataset, weights)[-1]) == len(usable) * UNIT
    weights[usable] *= 1.25  # a fraction of a clip is not rounding
    sums = weight_sums(dataset, weights)
    assert sums[-1] / UNIT == pytest.approx(1.25 * len(usable), rel=1e-6)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("seed", [0, 2**30 - 1])
def test_batches_come_for_every_seed(prepared, file_format, seed):
    source = reader(prepared, file_format)
    weights = np.ones(open_dataset(prepared[file_format]).num_clips("train"))
    batch = next(source.train(batch_size=8, seed=seed, start=0, weights=weights))
    assert batch.size == 8


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
