"""Cross-modal InfoNCE beside NumPy in float64, what is masked, and hard points."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from visxp_jax.losses import cross_modal_nce
from visxp_jax.sharding import make_mesh, rows

B, D, TEMPERATURE = 16, 8, 0.1


def batch(seed: int = 0) -> tuple[np.ndarray, ...]:
    """(video, audio, video_id, weight): sounds a little like their pictures."""
    rng = np.random.default_rng(seed)
    video = rng.standard_normal((B, D))
    audio = video + rng.standard_normal((B, D))
    weight = rng.uniform(0.5, 2, B)
    weight[[3, 9]] = 0
    video_id = np.array([0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11])
    return video, audio, video_id, weight


def oracle(video, audio, video_id, weight, temperature=TEMPERATURE):
    """(loss, accuracy), pair after pair in float64."""
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (video, audio))
    losses, right, weights = [], [], []
    for a, b in ((x, y), (y, x)):
        for i in np.flatnonzero(weight):
            others = np.flatnonzero((video_id != video_id[i]) & (weight > 0))
            if not len(others):
                continue
            own, negatives = a[i] @ b[i], b[others] @ a[i]
            scores = np.exp(np.append(negatives, own) / temperature)
            losses.append(-np.log(scores[-1] / scores.sum()))
            right.append(own > negatives.max())
            weights.append(weight[i])
    return np.average(losses, weights=weights), np.average(right, weights=weights)


def float32(video, audio, video_id, weight):
    ids = jnp.asarray(video_id, jnp.int32)
    return (*(jnp.asarray(x, jnp.float32) for x in (video, audio)), ids), jnp.asarray(
        weight, jnp.float32
    )


@partial(jax.jit, static_argnames="temperature")
def value_and_gradients(video, audio, video_id, weight, temperature=TEMPERATURE):
    def loss(video, audio):
        result = cross_modal_nce(
            video, audio, video_id, weight, temperature=temperature
        )
        return result.loss, result.accuracy

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(video, audio)


def computed(video, audio, video_id, weight, **how):
    """((loss, accuracy), gradients) of what is taken to float32."""
    arrays, weight = float32(video, audio, video_id, weight)
    return value_and_gradients(*arrays, weight, **how)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_value_and_gradients_are_those_of_numpy(temperature):
    given = batch()
    found, gradients = computed(*given, temperature=temperature)
    np.testing.assert_allclose(found, oracle(*given, temperature), rtol=1e-5)
    rng = np.random.default_rng(1)
    for which, gradient in enumerate(gradients):
        way = rng.standard_normal((B, D))
        ends = []
        for step in (1e-5, -1e-5):
            moved = list(given)
            moved[which] = given[which] + step * way
            ends.append(oracle(*moved, temperature)[0])
        slope = (ends[0] - ends[1]) / 2e-5
        assert np.sum(np.asarray(gradient) * way) == pytest.approx(slope, rel=1e-3)


def test_the_order_of_clips_and_the_lengths_of_vectors_do_not_count():
    video, audio, video_id, weight = batch()
    expected, _ = computed(video, audio, video_id, weight)
    order = np.random.default_rng(2).permutation(B)
    longer = np.linspace(0.1, 30, B)[:, None]
    moved = (longer * video)[order], audio[order], video_id[order], weight[order]
    np.testing.assert_allclose(computed(*moved)[0], expected, rtol=1e-5)
    swapped, _ = computed(audio, video, video_id, weight)
    np.testing.assert_allclose(swapped, expected, rtol=1e-5)


def test_other_seconds_of_a_video_and_rows_that_fill_up_are_no_negatives():
    video, audio, video_id, weight = batch()
    expected, _ = computed(video, audio, video_id, weight)
    filled = video.copy(), audio.copy()
    for x in filled:
        x[weight == 0] = np.nan
    found, gradients = computed(*filled, video_id, weight)
    np.testing.assert_array_equal(found, expected)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert not np.any(np.asarray(gradient)[weight == 0])
    # Seconds of the same video may coincide without a cost, those of others may not.
    two = np.eye(2)[[0, 0, 1, 1]]
    same, _ = computed(two, two, np.array([0, 0, 1, 1]), np.ones(4))
    other, _ = computed(two, two, np.arange(4), np.ones(4))
    assert same[0] < 1e-3
    assert same[1] == 1
    assert other[0] > np.log(2)
    assert other[1] == 0  # nobody's own is nearer than all


@pytest.mark.parametrize(
    ("change", "loss"),
    [
        ({"video": np.ones((B, D)), "audio": np.ones((B, D))}, np.log(B)),
        ({"video": np.zeros((B, D)), "audio": np.zeros((B, D))}, np.log(B)),
        ({"audio": np.zeros((B, D))}, np.log(B)),
        ({"video": np.full((B, D), 1e-18)}, None),
        ({"video_id": np.zeros(B)}, 0.0),
        ({"weight": np.zeros(B)}, 0.0),
        ({"weight": np.eye(B)[0]}, 0.0),
        ({"audio": -1.0, "temperature": 1e-6}, None),
    ],
    ids=["coincident", "zeros", "silent", "short", "one video", "none", "one", "cold"],
)
def test_value_and_gradients_are_finite_at_hard_points(change, loss):
    video, audio, _, _ = batch()
    given = {"video": video, "audio": audio, "video_id": np.arange(B)}
    given |= {"weight": np.ones(B), **change}
    if isinstance(given["audio"], float):
        given["audio"] = given["audio"] * video  # each is furthest from its own
    (value, accuracy), gradients = computed(**given)
    assert np.isfinite([value, accuracy]).all()
    assert all(np.isfinite(x).all() for x in gradients)
    if loss is not None:
        assert value == pytest.approx(loss, rel=1e-6)


def test_a_clip_without_negatives_is_left_out_of_the_mean():
    video, audio, _, _ = batch()
    ids = np.array([0] * (B - 1) + [1])  # the last is a negative of all
    assert computed(video, audio, ids, np.ones(B))[0] == pytest.approx(
        oracle(video, audio, ids, np.ones(B)), rel=1e-5
    )
    weight = np.ones(B)
    weight[-1] = 0
    assert computed(video, audio, ids, weight)[0] == (0, 0)


def test_loss_and_gradients_are_the_same_on_1_and_8_devices():
    arrays, weight = float32(*batch())
    expected = value_and_gradients(*arrays, weight)
    split = jax.device_put((*arrays, weight), rows(make_mesh()))
    found = value_and_gradients(*split)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_floats_are_taken_as_float32(dtype):
    (video, audio, ids), weight = float32(*batch())
    video, audio = video.astype(dtype), audio.astype(dtype)
    (value, _), gradients = value_and_gradients(video, audio, ids, weight, 0.001)
    exact = (x.astype(jnp.float32) for x in (video, audio))
    (expected, _), _ = value_and_gradients(*exact, ids, weight, 0.001)
    assert value == pytest.approx(float(expected), rel=1e-6)
    assert value.dtype == jnp.float32
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in gradients)


def test_shapes_that_do_not_fit_are_refused():
    (video, audio, ids), weight = float32(*batch())
    with pytest.raises(ValueError, match="of one shape"):
        cross_modal_nce(video, audio[:, :3], ids, weight, temperature=1.0)
    with pytest.raises(ValueError, match=r"must be \[16\]"):
        cross_modal_nce(video, audio, ids[:3], weight, temperature=1.0)
