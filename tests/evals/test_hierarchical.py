"""Trees beside a taxonomy: levels of names, scores by hand and by scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage
from sklearn.metrics import average_precision_score

from tests.hierarchy.test_trees import random_tree
from visxp_jax.evals import trees
from visxp_jax.evals.hierarchical import (
    lca_error,
    level_scores,
    taxonomy,
    tree_retrieval,
)
from visxp_jax.figures import hierarchy_figures
from visxp_jax.hierarchy import dendrogram_purity, lowest_common_ancestors
from visxp_jax.hierarchy.tree import check_merges
from visxp_jax.methods.base import Clusters
from visxp_jax.types import Batch, Features

NAMES = ["bell/peal", "bell/toll", "wind/gust", "wind/hiss"]


def test_levels_of_names():
    np.testing.assert_array_equal(taxonomy(NAMES), [[0, 0, 1, 1], [0, 1, 2, 3]])
    np.testing.assert_array_equal(taxonomy(["b", "a"]), [[0, 1]])
    mixed = taxonomy(["a/b", "a", "c/d"])
    assert mixed[0, 0] == mixed[0, 1] != mixed[0, 2]
    assert taxonomy([]).shape == (1, 0)


def test_prediction_errors_count_levels():
    levels = taxonomy(NAMES)
    right = np.array([0, 0, 0, 2])
    assert lca_error(right, right, levels) == 0
    assert lca_error(np.array([1, 0, 2, 3]), right, levels) == pytest.approx(4 / 4)


def test_a_tree_of_the_taxonomy_is_perfect_at_every_level():
    labels = np.repeat(np.arange(4), 5)
    rng = np.random.default_rng(0)
    x = 10.0 * (labels // 2) + labels + 0.1 * rng.random(20)
    merges = linkage(x[:, None], "average")[:, :2].astype(int)
    found = trees.scores(merges, labels, NAMES, "tree")
    assert set(found) == {
        f"tree_{name}_{level}"
        for name in ("purity", "cut_nmi", "cut_purity", "retrieval")
        for level in (1, 2)
    }
    assert all(value == pytest.approx(1) for value in found.values())


def test_scores_of_a_bad_tree():
    labels = np.arange(40) % 2
    merges = random_tree(40)
    found = level_scores(merges, labels)
    assert found.purity == dendrogram_purity(merges, labels)
    assert found.cut_nmi < 0.5
    assert 0.5 <= found.cut_purity < 1


@pytest.mark.parametrize("n", [2, 3, 40])
def test_retrieval_is_the_average_precision_of_nodes_that_are_nearest(n):
    classes = np.random.default_rng(n).integers(0, 4, n)
    classes[:2] = 0
    merges, each = random_tree(n, n), []
    for query in range(n):
        rest = np.delete(np.arange(n), query)
        same = classes[rest] == classes[query]
        if same.any():
            # On the way to the root, nodes have ever higher numbers.
            met = lowest_common_ancestors(merges, np.full(n - 1, query), rest)
            each.append(average_precision_score(same, -met))
    assert tree_retrieval(merges, classes) == pytest.approx(np.mean(each))


def test_without_two_of_a_class_there_is_nothing_to_find():
    assert np.isnan(tree_retrieval(random_tree(5), np.arange(5)))


def features(n: int = 24) -> tuple[Features, np.ndarray]:
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 4
    x = np.eye(4)[kind] + np.eye(4)[kind // 2 * 2] + 0.05 * rng.standard_normal((n, 4))
    return Features(
        clip_id=np.arange(n),
        video_id=np.arange(n),
        label=kind,
        video=x,
        audio=x,
        fused=x,
    ), kind


def test_learnt_trees_have_the_clips_of_each_leaf_together():
    found, _ = features()
    clusters = Clusters(
        number=5,
        # Cluster 4 has no clips.
        log_probs=lambda _, x: jnp.log(
            jax.nn.one_hot(jnp.argmax(x["fused"], axis=1), 5)[:, None] + 1e-9
        ),
        by_modality=None,
        leaves=lambda _: np.array(
            [[0.9, 0.0], [0.8, 0.4], [-0.9, 0], [-0.8, 0.4], [0, -0.9]]
        ),
    )
    tree = trees.learnt(clusters, {}, found)
    assert tree is not None
    check_merges(tree)
    assert trees.learnt(clusters._replace(leaves=None), {}, found) is None
    assert trees.learnt(None, {}, found) is None
    assert len(tree) == 23


def test_rows_without_a_direction_get_one():
    found, _ = features(8)
    found.video[3] = 0
    for x in trees.sight_and_sound(found).values():
        assert (np.linalg.norm(x, axis=1) > 0).all()


def test_chance_is_far_from_0_where_classes_are_few():
    labels = np.arange(30) % 4
    found = trees.by_chance(labels, NAMES)
    assert set(found) == {"chance_tree_purity_1", "chance_tree_purity_2"}
    assert 0.25 < found["chance_tree_purity_2"] < found["chance_tree_purity_1"] < 0.8


def test_where_nothing_repeats_scores_are_none():
    names = ["a/b", "c/d", "e/f"]
    found = trees.scores(random_tree(3), np.arange(3), names, "tree")
    assert found["tree_purity_1"] is found["tree_retrieval_2"] is None
    assert set(trees.by_chance(np.arange(3), names).values()) == {None}


def test_figures_of_trees_are_all_of_the_same_clips():
    found, kind = features(24)
    seen = np.isin(np.arange(24), np.arange(0, 24, 2))  # half of them, as they come
    noise = np.random.default_rng(0).random((12, 2, 2))
    columns = dict.fromkeys(Batch._fields, np.zeros(12))
    columns |= {"clip_id": np.arange(0, 24, 2), "frame": noise, "log_mel": noise}
    columns["label"] = kind[seen]
    raw = {"test": Batch(**columns)}
    names = [*NAMES[:2], "x/y", "x/z"]
    both = hierarchy_figures(None, {}, found, raw, names)
    half = Features(*(column[seen] for column in found))
    assert both == hierarchy_figures(None, {}, half, raw, names)
    assert both["tree_purity_2"] == 1
    assert both["raw_linkage_purity_2"] < 1
    unlabelled = found._replace(label=np.where(seen, -1, kind))
    assert hierarchy_figures(None, {}, unlabelled, raw, names) == {}
    assert hierarchy_figures(None, {}, found, raw, ["a", "b", "c", "d"]) == {}


def test_thinning_keeps_few_and_spreads_many(monkeypatch):
    found, _ = features(20)
    assert len(trees.thinned(found).clip_id) == 20
    monkeypatch.setattr(trees, "MAX_CLIPS", 5)
    np.testing.assert_array_equal(trees.thinned(found).clip_id, [0, 4, 9, 14, 19])
