"""Passes over clips: vectors on the host for judging, on the devices for labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small import small_batch, small_config, small_model
from visxp_jax.data.reader import filled
from visxp_jax.features import Encoder, LabelPass
from visxp_jax.sharding import make_mesh, to_global
from visxp_jax.sharding import rows as rows_of
from visxp_jax.types import Batch

CONFIG = small_config()
MODEL = small_model(CONFIG)
BATCHES = 3


def weights():
    return jax.jit(MODEL.init)(jax.random.key(0))


def batches(seed: int = 0) -> list[Batch]:
    """48 clips by other numbers than their places, of which the last 5 fill up."""
    order = np.random.default_rng(seed).permutation(BATCHES * 16).astype(np.int32)
    found = []
    for i in range(BATCHES):
        batch = small_batch(16, seed=i)._replace(clip_id=order[16 * i : 16 * (i + 1)])
        found.append(batch)
    part = Batch(*(x[:11] for x in found[-1]))
    return [*found[:-1], filled(part, 16)]


def label_pass(mesh, names=("fused",), **options):
    how = {"num_batches": BATCHES, "dtype": "float32"} | options
    return LabelPass(MODEL, mesh, names, **how)


def by_id(clip_id, x) -> dict[int, np.ndarray]:
    rows = zip(np.asarray(clip_id).tolist(), np.asarray(x), strict=True)
    return {i: row for i, row in rows if i >= 0}


@pytest.mark.parametrize("devices", [1, 8])
def test_label_pass_keeps_the_vectors_that_the_encoder_gives(devices):
    mesh = make_mesh(jax.devices()[:devices])
    names = ("video", "audio", "fused")
    expected = Encoder(MODEL, mesh)(*weights(), batches())
    found = label_pass(mesh, names)(*weights(), batches(), jax.random.key(0))
    assert found.clip_id.shape == (48,)
    assert len(expected.clip_id) == 43
    for name in names:
        rows = by_id(found.clip_id, found.vectors[name])
        assert found.vectors[name].sharding == rows_of(mesh)
        assert set(rows) == set(expected.clip_id.tolist())
        for i, row in zip(expected.clip_id, getattr(expected, name), strict=True):
            np.testing.assert_allclose(rows[int(i)], row, atol=1e-5)


def test_label_pass_moves_nothing_between_devices():
    mesh = make_mesh()
    made = label_pass(mesh)
    batch = to_global(batches()[0], mesh)
    kept = made._nothing(*weights(), batch)
    lowered = made._add.lower(kept, jnp.int32(0), jax.random.key(0), *weights(), batch)
    text = lowered.compile().as_text()
    for crossing in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert crossing not in text


def test_label_pass_in_half_floats_of_augmented_clips_and_batch_statistics():
    mesh = make_mesh(jax.devices()[:1])
    plain = label_pass(mesh)(*weights(), batches(), jax.random.key(0))
    half = label_pass(mesh, dtype="float16")(*weights(), batches(), jax.random.key(0))
    assert half.vectors["fused"].dtype == jnp.float16
    np.testing.assert_allclose(
        half.vectors["fused"], plain.vectors["fused"], rtol=1e-3, atol=1e-3
    )

    def darker(key, batch):
        return batch._replace(frame=batch.frame // jnp.uint8(2), log_mel=batch.log_mel)

    for changed in (
        label_pass(mesh, augment=darker),
        label_pass(mesh, train=True),
    ):
        found = changed(*weights(), batches(), jax.random.key(0))
        apart = np.abs(found.vectors["fused"] - plain.vectors["fused"])
        assert apart.max() > 1e-3


def test_label_pass_augments_every_batch_in_its_own_way_and_by_its_key():
    mesh = make_mesh(jax.devices()[:1])

    def noisy(key, batch):
        noise = jax.random.normal(key, batch.log_mel.shape)
        return batch._replace(log_mel=batch.log_mel.astype(jnp.float32) + noise)

    made = label_pass(mesh, augment=noisy)
    same = [small_batch(16)] * BATCHES
    a, b, c = (
        np.asarray(made(*weights(), same, jax.random.key(i)).vectors["fused"])
        for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-4
    assert np.abs(a[:16] - a[16:32]).max() > 1e-4


def test_batch_statistics_see_no_blanks():
    """A batch that is filled up gives its clips what a batch of theirs alone gives."""
    mesh = make_mesh(jax.devices()[:1])
    part = Batch(*(x[:8] for x in small_batch(16)))
    made = label_pass(mesh, train=True, num_batches=1)
    full = made(*weights(), [filled(part, 16)], jax.random.key(0))
    alone = label_pass(mesh, train=True, num_batches=1)
    alone = alone(*weights(), [part], jax.random.key(0))
    assert np.asarray(full.clip_id)[8:].tolist() == [-1] * 8
    np.testing.assert_allclose(
        full.vectors["fused"][:8], alone.vectors["fused"], rtol=1e-3, atol=1e-4
    )


def test_encoder_keeps_the_clips_that_are_asked_for():
    mesh = make_mesh(jax.devices()[:1])
    encoder = Encoder(MODEL, mesh)
    every = encoder(*weights(), batches())
    some = encoder(*weights(), batches(), every=5)
    ids = every.clip_id[every.clip_id % 5 == 0]
    np.testing.assert_array_equal(some.clip_id, ids)
    np.testing.assert_array_equal(some.fused, every.fused[every.clip_id % 5 == 0])
