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
    # 0-1 are of one video; 2-3 and 3-0 touch the padded row.
    np.testing.assert_array_equal(pairs.weight, [1, 1, 1, 0, 0, 1, 0, 0])
