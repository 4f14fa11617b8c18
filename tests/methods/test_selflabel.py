"""Self-labelling: the first labels, those by the heads, and all its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import adjusted_rand_score

from tests.clusters import (
    CLUSTERS,
    HEADS,
    clip_vectors,
    identity,
    small_method,
    sure_of,
)
from visxp_jax.errors import VisxpError
from visxp_jax.losses import Equipartition, assign, equipartition
from visxp_jax.methods import label_solver, selflabel
from visxp_jax.methods.base import Encoding
from visxp_jax.methods.label_solver import random_labels
from visxp_jax.models.bind import Linear
from visxp_jax.sharding import make_mesh

WIDTH = HEADS * CLUSTERS
GROUP = np.arange(16) % CLUSTERS
FUSED = {"clusters": identity(WIDTH)}
MODAL = {"clusters_video": identity(WIDTH), "clusters_audio": identity(WIDTH)}


def no_labels(n: int = 16, sets: int = 1) -> dict:
    return {"labels": jnp.full((n, sets, HEADS), -1, jnp.int32)}


def relabelled(
    clips, *, params=None, state=None, number=1, seed=0, pause=None, **changes
):
    """(result, number of passes) of one relabelling of `clips`, or of a list of them.

    With a list, each pass gets the next.
    """
    passes = iter(clips if isinstance(clips, list) else [clips] * 9)
    keys = []

    def encode(key):
        keys.append(jax.random.key_data(key).tolist())
        return next(passes)

    method = small_method(**changes)
    sets = 2 if changes.get("labels_from") == "swapped" else 1
    default = MODAL if changes.get("labels_from", "fused") != "fused" else FUSED
    result = method.relabel.make(
        default if params is None else params,
        state or no_labels(sets=sets),
        Encoding(encode, pause or (lambda: None)),
        jax.random.key(seed),
        number,
    )
    return result, keys


def labels_of(result, of_set=0) -> np.ndarray:
    return np.asarray(result.method_state["labels"])[:, of_set]


def test_first_labels_come_from_features_and_are_for_real_clips_only():
    ids = np.full(24, -1)
    ids[:16] = np.arange(16) + 3
    x = np.full((24, WIDTH), np.nan)
    x[:16] = sure_of(GROUP, GROUP)
    result, _ = relabelled(clip_vectors(ids, fused=x), state=no_labels(24), number=0)
    labels = labels_of(result)
    assert labels.shape == (24, HEADS)
    assert labels.dtype == np.int32
    assert (labels[:3] == -1).all()
    assert (labels[19:] == -1).all()
    for head in range(HEADS):
        assert adjusted_rand_score(GROUP, labels[3:19, head]) == 1
    assert result.metrics["relabel/label_change"] == 1


def test_first_labels_of_modalities_see_both_however_long_their_vectors_are():
    """Sight tells two pairs of groups apart, sound tells who is who in a pair."""
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.standard_normal((2, 64, 4))
    group = np.arange(64) % 4
    video = np.eye(4)[group // 2] + noise[0]
    audio = 100 * (np.eye(4)[group % 2] + noise[1])
    clips = clip_vectors(np.arange(64), video=video, audio=audio)
    for source, expected in (("pooled", group), ("swapped", group)):
        result, _ = relabelled(
            clips,
            state=no_labels(64, 1 + (source == "swapped")),
            number=0,
            labels_from=source,
        )
        for of_set in range(1 + (source == "swapped")):
            found = labels_of(result, of_set)
            assert adjusted_rand_score(expected, found[:, 0]) == 1


def test_random_first_labels_are_equal_in_size_and_follow_the_clip():
    ids = np.random.default_rng(0).permutation(np.r_[np.arange(21), -np.ones(11)])
    ids = ids.astype(np.int32)
    labels = np.asarray(random_labels(jax.random.key(0), ids, clusters=4))
    sizes = np.bincount(labels[ids >= 0], minlength=4)
    assert sorted(sizes) == [5, 5, 5, 6]
    again = np.asarray(random_labels(jax.random.key(0), ids[::-1], clusters=4))
    np.testing.assert_array_equal(labels[ids >= 0], again[::-1][ids >= 0])
    other = np.asarray(random_labels(jax.random.key(1), ids, clusters=4))
    assert (other != labels).any()
    result, _ = relabelled(
        clip_vectors(np.arange(16), fused=sure_of(GROUP, GROUP)),
        number=0,
        first_labels="random",
    )
    a, b = labels_of(result).T
    assert (a != b).any()
    assert sorted(np.bincount(a)) == [4, 4, 4, 4]


def test_random_first_labels_follow_the_clip_where_draws_are_equal():
    """Float32 has 2^23 draws: of 40,000 clips, some two hundred share one."""
    ids = jnp.arange(40_000, dtype=jnp.int32)
    labels = random_labels(jax.random.key(0), ids, clusters=309)
    again = random_labels(jax.random.key(0), ids[::-1], clusters=309)
    np.testing.assert_array_equal(labels, again[::-1])


@pytest.mark.parametrize(("first", "number"), [("features", 1), ("heads", 0)])
def test_labels_come_from_each_head_for_its_own_column(first, number):
    order = np.random.default_rng(0).permutation(16)
    a, b = GROUP, GROUP[order]
    state = {"labels": jnp.zeros((16, 1, HEADS), jnp.int32)}
    result, _ = relabelled(
        clip_vectors(order, fused=sure_of(a, b)),
        state=state,
        number=number,
        first_labels=first,
    )
    labels = labels_of(result)
    np.testing.assert_array_equal(labels[order, 0], a)
    np.testing.assert_array_equal(labels[order, 1], b)
    assert result.metrics["relabel/label_change"] == pytest.approx(12 / 16)


def test_kernels_and_biases_of_a_head_are_its_own():
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, WIDTH)).astype(np.float32)
    bias = rng.standard_normal(WIDTH).astype(np.float32)
    x = rng.standard_normal((16, 3)).astype(np.float32)
    clips = clip_vectors(np.arange(16), fused=x)
    result, _ = relabelled(clips, params={"clusters": Linear(kernel, bias)})
    logits = (x @ kernel + bias).reshape(16, HEADS, CLUSTERS)
    for head in range(HEADS):
        lp = jax.nn.log_softmax(jnp.asarray(logits[:, head]))
        found = equipartition(lp, sharpness=25.0)
        expected = assign(lp, found.log_scale, sharpness=25.0)
        np.testing.assert_array_equal(labels_of(result)[:, head], expected)


def modal_logits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return tuple(rng.standard_normal((2, 16, WIDTH)).astype(np.float32))


@pytest.mark.parametrize("source", ["pooled", "video", "audio", "swapped"])
def test_labels_of_modalities_follow_the_score_asked_for(source):
    video, audio = modal_logits()
    clips = clip_vectors(np.arange(16), video=video, audio=audio)
    result, _ = relabelled(clips, labels_from=source)
    a, b = (
        log_softmax(x.reshape(16, HEADS, CLUSTERS), axis=-1) for x in (video, audio)
    )
    scores = {"pooled": [(a + b) / 2], "video": [a], "audio": [b], "swapped": [a, b]}
    for of_set, score in enumerate(scores[source]):
        for head in range(HEADS):
            lp = jnp.asarray(score[:, head])
            found = equipartition(lp, sharpness=25.0)
            expected = assign(lp, found.log_scale, sharpness=25.0)
            np.testing.assert_array_equal(labels_of(result, of_set)[:, head], expected)


@pytest.mark.parametrize(
    ("source", "video_learns", "audio_learns"),
    [("pooled", 0, 0), ("video", 0, 0), ("swapped", 1, 0)],
)
def test_each_modality_learns_the_set_it_should(source, video_learns, audio_learns):
    plan = selflabel.PLANS[source]
    assert plan.heads["clusters_video"] == ("video", video_learns)
    assert plan.heads["clusters_audio"] == ("audio", audio_learns)
    if source == "swapped":  # set 0 is what the picture says: the sound learns it
        assert plan.sources == (("clusters_video",), ("clusters_audio",))


def test_labels_are_balanced_though_the_head_prefers_one_cluster_but_free_ones_not():
    rng = np.random.default_rng(0)
    logits = 0.1 * rng.standard_normal((64, WIDTH))
    logits[:, 0] += 3
    clips = clip_vectors(np.arange(64), fused=logits)
    sizes = {}
    for how in ("equal", "free"):
        result, _ = relabelled(clips, state=no_labels(64), sizes=how)
        sizes[how] = np.bincount(labels_of(result)[:, 0], minlength=CLUSTERS)
        in_use = result.metrics["relabel/clusters_in_use"]
        assert in_use == (1 if how == "equal" else (1 / CLUSTERS + 1) / 2)
    assert sizes["equal"].min() >= 13
    assert sizes["free"].tolist() == [64, 0, 0, 0]


def test_gaussian_sizes_differ_and_the_cluster_with_most_claims_is_the_largest():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4000, WIDTH))
    logits[:, :CLUSTERS] += [0, 2, 1, 3]
    clips = clip_vectors(np.arange(4000), fused=logits)
    counts = []
    for number, seed in ((1, 0), (2, 0), (1, 1)):
        result, _ = relabelled(
            clips,
            state=no_labels(4000),
            sizes="gaussian",
            number=number,
            seed=seed,
            sharpness=5.0,
        )
        counts.append(np.bincount(labels_of(result)[:, 0], minlength=CLUSTERS))
    assert np.argsort(counts[0]).tolist() == [0, 2, 1, 3]
    assert np.ptp(counts[0]) > 40
    assert np.abs(counts[0] - 1000).max() < 400
    np.testing.assert_array_equal(counts[0], counts[1])  # the next time, the same
    assert (counts[0] != counts[2]).any()  # of another run


def test_alignment_numbers_sounds_as_pictures_and_changes_no_logit_else():
    rng = np.random.default_rng(0)
    order = [rng.permutation(CLUSTERS) for _ in range(HEADS)]
    video = sure_of(GROUP, GROUP) + 0.1 * rng.standard_normal((16, WIDTH))
    shuffled = sure_of(order[0][GROUP], order[1][GROUP])
    audio = (shuffled + 0.1 * rng.standard_normal((16, WIDTH))).astype(np.float32)
    blank = np.full((8, WIDTH), np.nan)
    ids = np.r_[np.arange(16), -np.ones(8)]
    clips = clip_vectors(ids, video=np.r_[video, blank], audio=np.r_[audio, blank])
    options = {"labels_from": "pooled", "first_labels": "heads", "align": True}
    result, _ = relabelled(clips, number=0, **options)
    kernel, bias = result.params["clusters_audio"]
    columns = np.concatenate([head * CLUSTERS + order[head] for head in range(HEADS)])
    np.testing.assert_array_equal(kernel, np.eye(WIDTH)[:, columns])
    assert bias.shape == (WIDTH,)
    for head in range(HEADS):
        np.testing.assert_array_equal(labels_of(result)[:, head], GROUP)
    later, _ = relabelled(clips, number=1, **options)
    assert later.params is MODAL
    video[3] = np.nan
    with pytest.raises(VisxpError, match="head 0.*finite"):
        relabelled(
            clip_vectors(np.arange(16), video=video, audio=audio), number=0, **options
        )


def test_a_signal_is_heard_between_heads():
    heard = []

    def pause():
        heard.append(len(heard))
        if len(heard) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        relabelled(
            clip_vectors(np.arange(16), fused=sure_of(GROUP, GROUP)), pause=pause
        )


def test_heads_share_a_pass_have_one_each_or_take_turns():
    first, second = sure_of(GROUP, GROUP), sure_of(GROUP[::-1], GROUP[::-1])
    clips = [clip_vectors(np.arange(16), fused=x) for x in (first, second)]
    shared, keys = relabelled(clips)
    assert len(keys) == 1
    np.testing.assert_array_equal(labels_of(shared).T, [GROUP, GROUP])

    each = {"passes": "each", "head_groups": 2, "augmented_pass": True}
    result, keys = relabelled(clips, **each)
    assert len(keys) == 2
    assert keys[0] != keys[1]
    np.testing.assert_array_equal(labels_of(result).T, [GROUP, GROUP[::-1]])

    state = {"labels": jnp.full((16, 1, HEADS), 3, jnp.int32)}
    turns = {"passes": "in_turn", "head_groups": 2, "state": state}
    turns["first_labels"] = "heads"
    for number, expected in [
        (0, [GROUP, GROUP]),
        (1, [np.full(16, 3), GROUP]),
        (2, [GROUP, np.full(16, 3)]),
    ]:
        result, keys = relabelled(clips, number=number, **turns)
        assert len(keys) == 1
        np.testing.assert_array_equal(labels_of(result).T, expected)


@pytest.mark.parametrize(("source", "number"), [("fused", 0), ("pooled", 1)])
def test_labels_are_the_same_on_1_and_8_devices_and_in_blocks(
    source, number, monkeypatch
):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 256, WIDTH)) + 2 * sure_of(
        np.arange(256) % 4, np.arange(256) // 64
    )
    names = {"fused": ["fused"], "pooled": ["video", "audio"]}[source]
    vectors = dict(zip(names, x, strict=False))
    results = []
    for devices, fits in ((1, True), (8, True), (8, False)):
        mesh = make_mesh(jax.devices()[:devices])
        monkeypatch.setattr(
            label_solver, "logits_fit", lambda *_, fits=fits, **__: fits
        )
        monkeypatch.setattr(label_solver, "BLOCK", 4096 if fits else 24)
        # More devices have the rows in another order.
        order = np.random.default_rng(devices).permutation(256)
        shuffled = {name: x[order] for name, x in vectors.items()}
        clips = clip_vectors(order, mesh, **shuffled)
        result, _ = relabelled(
            clips, state=no_labels(256), number=number, labels_from=source
        )
        results.append(labels_of(result))
        assert result.metrics["relabel/column_error"] < 1e-3
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_metrics_say_what_the_labels_are():
    labels = jnp.asarray(np.stack([GROUP, GROUP], axis=1)[:, None], jnp.int32)
    clips = clip_vectors(np.arange(16), fused=sure_of(GROUP, GROUP))
    metrics = relabelled(clips, state={"labels": labels})[0].metrics
    assert metrics.keys() == {
        "relabel/column_error",
        "relabel/sweeps",
        "relabel/label_change",
        "relabel/clusters_in_use",
        "relabel/largest_share",
    }
    assert metrics["relabel/label_change"] == 0
    assert metrics["relabel/clusters_in_use"] == 1
    assert metrics["relabel/largest_share"] == pytest.approx(1 / CLUSTERS)
    assert metrics["relabel/column_error"] < 1e-3
    assert all(type(value) is float for value in metrics.values())


@pytest.mark.parametrize("converged", [True, False])
def test_cluster_sizes_that_were_not_reached_are_said(converged, caplog):
    result = Equipartition(
        jnp.zeros(CLUSTERS), jnp.float32(0.05), jnp.int32(500), jnp.array(converged)
    )
    selflabel.warn_of_sizes(result, 3)
    said = "labels of head 3: soft cluster sizes are still up to 5 % off after 500"
    assert (said in caplog.text) != converged


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("number", [0, 1])
def test_logits_and_features_that_are_not_finite_are_refused(value, number):
    x = sure_of(GROUP, GROUP)
    x[3, 0] = value
    with pytest.raises(VisxpError, match=r"head 0.*must be finite, as float32.*lower"):
        relabelled(clip_vectors(np.arange(16), fused=x), number=number)


def test_the_head_that_is_not_finite_is_named():
    x = sure_of(GROUP, GROUP)
    x[3, CLUSTERS] = np.nan
    params = {"clusters": Linear(np.eye(WIDTH, dtype=np.float32), np.zeros(WIDTH))}
    params["clusters"].kernel[CLUSTERS, :CLUSTERS] = 0
    clips = clip_vectors(np.arange(16), fused=np.nan_to_num(x, nan=0.0))
    params["clusters"].bias[CLUSTERS] = np.nan
    with pytest.raises(VisxpError, match="head 1"):
        relabelled(clips, params=params)


def test_clusters_of_any_clips_are_by_the_score_of_the_labels():
    video, audio = modal_logits()
    a, b = (
        log_softmax(x.reshape(16, HEADS, CLUSTERS), axis=-1) for x in (video, audio)
    )
    vectors = {"video": video, "audio": audio}
    for source, expected in {
        "pooled": (a + b) / 2,
        "video": a,
        "swapped": np.concatenate([a, b], axis=1),
    }.items():
        clusters = small_method(labels_from=source).clusters
        found = clusters.log_probs(MODAL, vectors)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        by_sight, by_sound = clusters.by_modality(MODAL, vectors)
        np.testing.assert_allclose(by_sight, a, atol=1e-5)
        np.testing.assert_allclose(by_sound, b, atol=1e-5)


def test_balanced_sampling_is_offered_if_asked_for():
    assert small_method().relabel.sampling is None
    sampling = small_method(balanced_sampling=True).relabel.sampling
    labels = np.zeros((8, 1, HEADS), np.int32)
    labels[6:] = 1
    weights = np.asarray(sampling({"labels": jnp.asarray(labels)}))
    np.testing.assert_allclose(weights, [4 / 6] * 6 + [2] * 2)
