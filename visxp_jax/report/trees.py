"""Trees over test clips, as the hierarchy page shows them."""

import numpy as np

from visxp_jax.evals import judge, trees
from visxp_jax.hierarchy import build, heights
from visxp_jax.methods import heads_of, make_method
from visxp_jax.report.content import Tree
from visxp_jax.report.hierarchy import prominent, tree_of
from visxp_jax.session import Session
from visxp_jax.types import Features, PyTree

MAX_HEARD = 160  # of each tree; a sound is 43 kB


def grow(session: Session, params: PyTree, features: Features) -> dict[str, Tree]:
    """Trees by name: the method's own if it has one, of both modalities, of each."""
    if len(features.clip_id) < 2:
        return {}
    config = session.config
    vectors = trees.sight_and_sound(features)
    grown = {name: tree_of_rows(build(x), x) for name, x in vectors.items()}
    clusters = make_method(config, config.stages[-1], session.model).clusters
    own = trees.learnt(clusters, params, features)
    if own is None:
        return grown
    return {"learnt": tree_of_rows(own, trees.directed(features.fused)), **grown}


def tree_of_rows(merges: np.ndarray, x: np.ndarray) -> Tree:
    """With the heights that the rows give it."""
    return tree_of(merges, heights(merges, x), x)


def heard(tree: Tree) -> list[int]:
    """Clips whose sounds the page has."""
    return prominent(tree, MAX_HEARD)


def disagreement(
    session: Session, params: PyTree, features: Features
) -> list[float | None]:
    """Probability that sound and picture do not belong together, where it is learnt."""
    if "avc" not in heads_of(session.config, session.config.stages[-1]):
        return [None] * len(features.clip_id)
    match = judge.match_probability(
        session.model, params, features.video, features.audio
    )
    return [1 - float(p) for p in match]
