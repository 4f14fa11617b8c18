"""Augmentation: what each setting changes, by how much, and what it leaves alone."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small import small_batch, small_config
from visxp_jax.augment import augment
from visxp_jax.config import DataConfig
from visxp_jax.types import Batch

OFF = dataclasses.replace(
    small_config().data,
    crop=1.0,
    flip=False,
    colour=0.0,
    brightness=0.0,
    roll=False,
    gain=0.0,
    mask=0.0,
)
ALL = small_config().data


def changed(config: DataConfig, batch: Batch | None = None, key: int = 0) -> Batch:
    run = jax.jit(partial(augment, config=config))
    return jax.device_get(run(jax.random.key(key), batch or distinct_batch()))


def only(**settings) -> DataConfig:
    return dataclasses.replace(OFF, **settings)


def distinct_batch() -> Batch:
    """32 times the same clip, in which no two cells of the sound are equal."""
    frame = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
    sound = np.arange(1, 8 * 20 + 1, dtype=np.float16).reshape(8, 20)
    return small_batch(32)._replace(
        frame=np.tile(frame, (32, 1, 1, 1)), log_mel=np.tile(sound, (32, 1, 1))
    )


def filled(value: int) -> Batch:
    batch = distinct_batch()
    return batch._replace(frame=np.full_like(batch.frame, value))


def kinds(rows: np.ndarray) -> int:
    """How many different rows there are."""
    return len({row.tobytes() for row in rows})


def test_augment_with_everything_off_changes_only_the_type_of_sounds():
    batch = distinct_batch()
    out = changed(OFF, batch)
    for name in Batch._fields:
        np.testing.assert_array_equal(getattr(out, name), getattr(batch, name))
    assert out.frame.dtype == np.uint8
    assert out.log_mel.dtype == np.float32


def test_augment_repeats_itself_by_key_and_differs_by_key_and_row():
    once, again, other = changed(ALL), changed(ALL), changed(ALL, key=1)
    for name in ("frame", "log_mel"):
        a, b, c = (getattr(x, name) for x in (once, again, other))
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        assert kinds(a) == 32


def test_augment_keeps_shapes_types_range_and_identity_of_clips():
    batch = distinct_batch()
    out = changed(dataclasses.replace(ALL, colour=3.0, brightness=1.0), batch)
    assert out.frame.dtype == np.uint8
    assert out.frame.shape == batch.frame.shape
    assert out.log_mel.dtype == np.float32
    assert out.log_mel.shape == batch.log_mel.shape
    assert np.isfinite(out.log_mel).all()
    for name in ("clip_id", "video_id", "label", "weight"):
        np.testing.assert_array_equal(getattr(out, name), getattr(batch, name))


def test_flip_mirrors_left_and_right_of_about_half_of_the_frames():
    batch = distinct_batch()
    frame = batch.frame[0]
    mirrored = [
        np.array_equal(x, frame[:, ::-1]) for x in changed(only(flip=True)).frame
    ]
    kept = [np.array_equal(x, frame) for x in changed(only(flip=True)).frame]
    assert np.all(np.array(mirrored) ^ np.array(kept))
    assert 6 <= sum(mirrored) <= 26


@pytest.mark.parametrize("axis", [1, 2])
def test_crop_shows_a_window_of_at_least_that_share_inside_the_frame(axis):
    ramp = np.linspace(20, 240, 12 if axis == 2 else 16)
    ramp = ramp[None, None, :, None] if axis == 2 else ramp[None, :, None, None]
    batch = distinct_batch()
    batch = batch._replace(frame=np.broadcast_to(ramp, batch.frame.shape).astype("u1"))
    out = changed(only(crop=0.6), batch).frame.astype(int)
    assert out.min() >= 19
    assert out.max() <= 240
    lines = np.moveaxis(out, axis, 1)[:, :, 0, 0]
    assert (np.diff(lines, axis=1) >= 0).all()
    # The ends of a window that reaches the border repeat: half a cell at each end.
    share = (lines[:, -1] - lines[:, 0]) / 220
    assert share.min() > 0.6 - 1 / lines.shape[1]
    assert share.max() <= 1
    assert share.min() < 0.75
    assert kinds(out) > 16


def test_crop_leaves_out_as_much_on_the_left_as_on_the_right():
    ramp = np.linspace(0, 255, 16).astype(np.uint8)[None, None, :, None]
    batch = small_batch(256)
    batch = batch._replace(frame=np.broadcast_to(ramp, batch.frame.shape))
    out = changed(only(crop=0.2), batch).frame.astype(int)
    left, right = out[:, 0, 0, 0], 255 - out[:, 0, -1, 0]
    assert left.mean() > 255 * 0.15
    assert abs(left.mean() - right.mean()) < 255 * 0.06


def test_crop_leaves_no_dark_border_on_a_plain_frame():
    out = changed(only(crop=0.5), filled(200)).frame.astype(int)
    assert np.abs(out - 200).max() <= 1


def test_brightness_adds_one_number_per_frame_up_to_that_share_of_full_scale():
    out = changed(only(brightness=0.1), filled(100)).frame.astype(int) - 100
    per_frame = out[:, :1, :1, :1]
    np.testing.assert_array_equal(out, np.broadcast_to(per_frame, out.shape))
    assert np.abs(per_frame).max() <= 26
    assert per_frame.min() < -10
    assert per_frame.max() > 10


def test_brightness_stops_at_black_and_white():
    black, white = (changed(only(brightness=0.5), filled(v)).frame for v in (0, 255))
    assert 0 in black[:, 0, 0, 0]
    assert 255 in white[:, 0, 0, 0]
    assert black.max() <= 128
    assert white.min() >= 127


def test_colour_mixes_channels_around_grey_by_one_matrix_per_frame():
    grey = changed(only(colour=0.5), filled(127)).frame.astype(int)
    assert np.abs(grey - 127).max() <= 2
    red = filled(127)
    red.frame[..., 0] = 227
    out = changed(only(colour=0.2), red).frame.astype(int)
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))
    assert kinds(out) == 32
    assert np.abs(out[:, 0, 0, 1] - 127).max() > 10
    assert np.abs(np.median(out[:, 0, 0], axis=0) - [227, 127, 127]).max() < 15


def test_roll_turns_all_bands_of_a_sound_by_the_same_number_of_frames():
    batch = distinct_batch()
    sound = batch.log_mel[0].astype(np.float32)
    turns = []
    for row in changed(only(roll=True), batch).log_mel:
        turns.append(int(np.flatnonzero(row[0] == sound[0, 0])[0]))
        np.testing.assert_array_equal(row, np.roll(sound, turns[-1], axis=1))
    assert len(set(turns)) > 8


def test_gain_adds_one_number_per_sound_within_its_limits():
    batch = distinct_batch()
    change = changed(only(gain=0.3), batch).log_mel - batch.log_mel.astype(np.float32)
    np.testing.assert_allclose(
        change, np.broadcast_to(change[:, :1, :1], change.shape), atol=1e-4
    )
    assert np.abs(change).max() < 0.3 + 1e-4
    assert change.min() < -0.1
    assert change.max() > 0.1


def test_mask_blanks_one_stretch_of_bands_and_one_of_frames_and_nothing_else():
    batch = distinct_batch()
    out = changed(only(mask=0.5), batch).log_mel
    blank = out == 0
    np.testing.assert_array_equal(out[~blank], batch.log_mel[~blank])
    bands, times = blank.all(axis=2), blank.all(axis=1)
    np.testing.assert_array_equal(blank, bands[:, :, None] | times[:, None, :])
    for stretch in (bands, times):
        ends = np.diff(np.pad(stretch.astype(int), ((0, 0), (1, 1))), axis=1)
        assert np.count_nonzero(ends == 1, axis=1).max() == 1
        assert stretch.sum(axis=1).max() <= stretch.shape[1] / 2 + 1
        assert stretch.sum(axis=1).max() > stretch.shape[1] / 4
        assert kinds(stretch) > 8


def test_one_change_leaves_the_random_numbers_of_the_others():
    gain, both = changed(only(gain=0.3)), changed(only(gain=0.3, mask=0.5))
    kept = both.log_mel != 0
    assert not kept.all()
    np.testing.assert_array_equal(both.log_mel[kept], gain.log_mel[kept])
    bright = changed(only(brightness=0.1), filled(100))
    flipped = changed(only(brightness=0.1, flip=True), filled(100))
    np.testing.assert_array_equal(flipped.frame, bright.frame)


def test_augment_takes_a_batch_of_one():
    batch = jax.tree.map(lambda x: jnp.asarray(x[:1]), distinct_batch())
    assert changed(ALL, batch).frame.shape == (1, 16, 12, 3)
