"""AVC loss against golden values, at extremes, and the pairs it is fed with."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.losses import avc_bce, shifted_pairs

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "golden.npz")


def mean_loss(logits, matches):
    return jnp.mean(avc_bce(logits, matches))


def test_avc_bce_value_and_gradient_equal_reference():
    logits = jnp.asarray(GOLDEN["avc/logits"], jnp.float32)
    matches = jnp.asarray(GOLDEN["avc/corr"], jnp.float32)
    value, grad = jax.value_and_grad(mean_loss)(logits, matches)
    np.testing.assert_allclose(value, GOLDEN["avc/loss"], rtol=1e-6)
    np.testing.assert_allclose(grad, GOLDEN["avc/dlogits"], atol=1e-7)


def test_avc_bce_one_logit_form_equals_two_logit_form():
    logits = jnp.asarray(GOLDEN["avc/logits"], jnp.float32)
    matches = jnp.asarray(GOLDEN["avc/corr"], jnp.float32)
    odds = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(avc_bce(odds, matches), avc_bce(logits, matches))
    grad = jax.grad(mean_loss)(odds, matches)
    np.testing.assert_allclose(grad, GOLDEN["avc/bce_dlogit"], atol=1e-7)


def test_avc_bce_is_finite_at_extreme_logits():
    logits = jnp.asarray(GOLDEN["avc_extreme/logits"], jnp.float32)
    matches = jnp.asarray(GOLDEN["avc_extreme/corr"], jnp.float32)
    value, grad = jax.value_and_grad(mean_loss)(logits, matches)
    np.testing.assert_allclose(value, GOLDEN["avc_extreme/loss"], rtol=1e-6)
    assert np.isfinite(np.asarray(grad)).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_avc_bce_of_half_floats_is_that_of_the_same_numbers_in_float32(dtype):
    logits = jax.random.normal(jax.random.key(0), (64, 2)) * 20
    logits = logits.at[:2].set(jnp.array([[-4e4, 4e4], [4e4, -4e4]])).astype(dtype)
    matches = (jnp.arange(64) % 2).astype(jnp.float32)
    value, grad = jax.value_and_grad(mean_loss)(logits, matches)
    expected = mean_loss(logits.astype(jnp.float32), matches)
    np.testing.assert_array_equal(value, expected)
    assert np.isfinite(np.asarray(grad, np.float32)).all()
    assert value.dtype == jnp.float32


def test_avc_bce_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="matches"):
        avc_bce(jnp.zeros((4, 2)), jnp.zeros(3))


def test_shifted_pairs_never_count_same_video_or_padding_as_negative():
    video = jnp.arange(4.0)[:, None]
    pairs = shifted_pairs(
        video,
        video + 10,
        jnp.array([7, 7, 8, 9]),
        jnp.array([1.0, 1.0, 1.0, 0.0]),
    )
    np.testing.assert_array_equal(pairs.matches, [1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(pairs.audio[:, 0], [10, 11, 12, 13, 11, 12, 13, 10])
    # 0-1 are of one video; 2-3 and 3-0 touch the padded row. The one mismatch left
    # counts as much as the three matches.
    np.testing.assert_array_equal(pairs.weight, [1, 1, 1, 0, 0, 3, 0, 0])


def test_shifted_pairs_with_several_shifts_weigh_matches_and_mismatches_alike():
    video = jnp.arange(5.0)[:, None]
    pairs = shifted_pairs(video, video + 10, jnp.arange(5), jnp.ones(5), shifts=3)
    np.testing.assert_array_equal(pairs.audio[10:15, 0], [12, 13, 14, 10, 11])
    np.testing.assert_array_equal(pairs.video[10:15, 0], np.arange(5))
    positive = jnp.sum(pairs.weight * pairs.matches)
    np.testing.assert_allclose(positive, jnp.sum(pairs.weight) - positive, rtol=1e-6)


def test_shifted_pairs_refuse_more_shifts_than_other_clips():
    with pytest.raises(ValueError, match="less than the 4 clips, got 4"):
        shifted_pairs(
            jnp.ones((4, 2)), jnp.ones((4, 2)), jnp.arange(4), jnp.ones(4), shifts=4
        )
