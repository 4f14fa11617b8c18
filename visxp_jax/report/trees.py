"""Trees over test clips, as the hierarchy page shows them."""

import numpy as np
from sklearn.preprocessing import normalize

from visxp_jax.evals import judge
from visxp_jax.figures import trains_correspondence
from visxp_jax.hierarchy import build, heights
from visxp_jax.hierarchy.tree import grafted
from visxp_jax.methods import make_method
from visxp_jax.report.content import Tree
from visxp_jax.report.hierarchy import prominent, tree_of
from visxp_jax.session import Session
from visxp_jax.types import Features, PyTree

MAX_CLIPS = 2_000  # 4 MB of frames
MAX_HEARD = 160  # of each tree; a sound is 43 kB


def thinned(features: Features) -> Features:
    """At most `MAX_CLIPS` clips, evenly spread."""
    n = len(features.clip_id)
    at = np.linspace(0, n - 1, min(n, MAX_CLIPS)).astype(int)
    return Features(*(column[at] for column in features))


def grow(session: Session, params: PyTree, features: Features) -> dict[str, Tree]:
    """Trees by name: the method's own if it has one, of both modalities, of each."""
    if len(features.clip_id) < 2:
        return {}
    video = np.asarray(normalize(features.video))
    audio = np.asarray(normalize(features.audio))
    both = np.concatenate([video, audio], axis=1)
    vectors = {"sight and sound": both, "sight": video, "sound": audio}
    trees = {name: (build(rows(x)), x) for name, x in vectors.items()}
    own = learnt(session, params, features)
    if own is not None:
        trees = {"learnt": (own, both), **trees}
    return {
        name: tree_of(merges, heights(merges, rows(x)), rows(x))
        for name, (merges, x) in trees.items()
    }


def rows(x: np.ndarray) -> np.ndarray:
    """Those that are 0 get the direction of the mean: they have none of their own."""
    empty = np.all(x == 0, axis=1, keepdims=True)
    return np.where(empty, x.mean(axis=0) + 1e-6, x)


def learnt(session: Session, params: PyTree, features: Features) -> np.ndarray | None:
    """The hierarchy of the last stage, each leaf with a tree of its clips."""
    config = session.config
    clusters = make_method(config, config.stages[-1], session.model).clusters
    if clusters is None or clusters.leaves is None:
        return None
    label = judge.cluster_probs(clusters, params, features)[:, 0].argmax(axis=1)
    used, place = np.unique(label, return_inverse=True)
    parts = [np.flatnonzero(place == i) for i in range(len(used))]
    fused = rows(features.fused)
    # By the directions of its leaves: single linkage, HypHC's decoding, makes chains.
    above = build(np.asarray(clusters.leaves(params))[used])
    return grafted(above, parts, [build(fused[part]) for part in parts])


def heard(tree: Tree) -> list[int]:
    """Clips whose sounds the page has."""
    return prominent(tree, MAX_HEARD)


def disagreement(
    session: Session, params: PyTree, features: Features
) -> list[float | None]:
    """Probability that sound and picture do not belong together, where it is learnt."""
    if not trains_correspondence(session.config):
        return [None] * len(features.clip_id)
    match = judge.match_probability(
        session.model, params, features.video, features.audio
    )
    return [1 - float(p) for p in match]
