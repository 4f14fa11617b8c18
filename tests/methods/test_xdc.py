"""XDC: labels of each modality by k-means, for the other; heads that begin anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from tests.clusters import clip_vectors, identity, small_method
from visxp_jax.errors import VisxpError
from visxp_jax.methods.base import Encoding
from visxp_jax.methods.xdc import HEADS
from visxp_jax.sharding import make_mesh

PARAMS = {"xdc_video": identity(4), "xdc_audio": identity(4), "lin1": "as it was"}


def groups(n: int = 64) -> tuple[np.ndarray, ...]:
    """Vectors of both modalities, whose groups differ: (video, audio, groups)."""
    rng = np.random.default_rng(0)
    seen, heard = np.arange(n) % 4, np.arange(n) // (n // 4)
    noise = 0.05 * rng.standard_normal((2, n, 4))
    return np.eye(4)[seen] + noise[0], np.eye(4)[heard] + noise[1], seen, heard


def relabelled(video, audio, *, clip_id=None, state=None, mesh=None, seed=0):
    n = len(video)
    ids = np.arange(n) if clip_id is None else clip_id
    clips = clip_vectors(ids, mesh, video=video, audio=audio)
    state = state or {"labels": jnp.full((n, 2, 1), -1, jnp.int32)}
    method = small_method("xdc")
    return method.relabel.make(
        PARAMS,
        state,
        Encoding(lambda key: clips, lambda: None),
        jax.random.key(seed),
        0,
    )


def test_each_modality_learns_what_the_other_groups():
    assert HEADS == {"xdc_video": ("video", 1), "xdc_audio": ("audio", 0)}
    video, audio, seen, heard = groups()
    labels = np.asarray(relabelled(video, audio).method_state["labels"])
    assert labels.shape == (64, 2, 1)
    assert adjusted_rand_score(seen, labels[:, 0, 0]) == 1
    assert adjusted_rand_score(heard, labels[:, 1, 0]) == 1


def test_heads_begin_anew_and_the_optimiser_is_told():
    video, audio, *_ = groups()
    result = relabelled(video, audio)
    assert set(small_method("xdc").relabel.fresh_heads) == {"xdc_video", "xdc_audio"}
    assert result.params["lin1"] == "as it was"
    kernels = [np.asarray(result.params[name].kernel) for name in HEADS]
    assert (kernels[0] != kernels[1]).any()
    for name in HEADS:
        assert result.params[name].kernel.shape == (4, 4)
        assert (result.params[name].bias == 0).all()
    again = relabelled(video, audio, seed=1)
    assert (np.asarray(again.params["xdc_video"].kernel) != kernels[0]).any()


def test_labels_do_not_see_rows_that_fill_up_nor_the_number_of_devices():
    video, audio, *_ = groups()
    expected = np.asarray(relabelled(video, audio).method_state["labels"])
    ids = np.full(72, -1)
    ids[:64] = np.arange(64)[::-1]
    filled = [np.full((72, 4), np.nan) for _ in range(2)]
    for full, x in zip(filled, (video, audio), strict=True):
        full[:64] = x[::-1]
    state = {"labels": jnp.full((80, 2, 1), -1, jnp.int32)}
    for devices in (1, 8):
        mesh = make_mesh(jax.devices()[:devices])
        result = relabelled(*filled, clip_id=ids, state=state, mesh=mesh)
        labels = np.asarray(result.method_state["labels"])
        assert (labels[64:] == -1).all()
        for of_set in (0, 1):
            a, b = labels[:64, of_set, 0], expected[:, of_set, 0]
            assert adjusted_rand_score(a, b) == 1


def test_clusters_with_other_numbers_have_not_changed():
    video, audio, *_ = groups()
    first = relabelled(video, audio)
    assert first.metrics["relabel/label_change"] == 1
    again = relabelled(video, audio, state=first.method_state, seed=3)
    assert again.metrics["relabel/label_change"] == 0
    assert again.metrics["relabel/clusters_in_use"] == 1
    assert again.metrics["relabel/inertia"] < 0.05


def test_vectors_that_are_not_finite_are_refused_by_modality():
    video, audio, *_ = groups()
    audio[5, 0] = np.nan
    with pytest.raises(
        VisxpError, match="from audio.*must be finite as float32.*xdc.feature_dtype"
    ):
        relabelled(video, audio)


def test_modalities_have_a_column_each_and_no_numbers_in_common():
    clusters = small_method("xdc").clusters
    video, audio, *_ = groups(8)
    vectors = {"video": video.astype(np.float32), "audio": audio.astype(np.float32)}
    found = clusters.log_probs(PARAMS, vectors)
    assert found.shape == (8, 2, 4)
    expected = jax.nn.log_softmax(vectors["audio"])
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-5)
    assert clusters.by_modality is None
