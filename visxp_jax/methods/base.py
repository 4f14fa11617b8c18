"""What a method is: a loss, the heads it needs, and a state of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from visxp_jax.types import Batch, ClipVectors

PyTree = Any
Vectors = dict[str, jax.Array]  # 'video', 'audio' and 'fused' of n clips -> [n, d]


# What a method's state has under this name is of no clip: every device has all of it.
SHARED = "shared"


class Encoding(NamedTuple):
    """What making labels may ask for.

    Attributes:
        encode: (key of the augmentation) -> one pass over the training clips.
        pause: Called now and then; it raises if the run is to stop.
    """

    encode: Callable[[jax.Array], ClipVectors]
    pause: Callable[[], None]


class Aux(NamedTuple):
    """What a loss hands back beside its value."""

    model_state: PyTree  # running statistics after this batch
    metrics: dict[str, jax.Array]  # scalars, logged by name


class Relabelled(NamedTuple):
    """Result of making labels anew."""

    method_state: PyTree
    metrics: dict[str, float]
    params: PyTree  # as they were, but for heads that were renumbered or drawn anew


class Relabel(NamedTuple):
    """How and when a method makes labels.

    Attributes:
        steps: Steps of the stage before which it does; static.
        vectors: What it looks at, of 'video', 'audio' and 'fused'.
        make: (params, method_state, `Encoding`, key, number) -> `Relabelled`, `number`
            counting from 0; the key is the same each time. Vectors and labels stay on
            the devices.
        sampling: (method_state) -> float32 [clips], how often each should be seen in an
            epoch; None for once each.
        fresh_heads: Heads that `make` draws anew: the optimiser forgets them.
    """

    steps: tuple[int, ...]
    vectors: tuple[str, ...]
    make: Callable[[PyTree, PyTree, Encoding, jax.Array, int], Relabelled]
    sampling: Callable[[PyTree], jax.Array] | None = None
    fresh_heads: tuple[str, ...] = ()


class Clusters(NamedTuple):
    """What a method says of the clusters of any clips, for judging and looking.

    Attributes:
        number: k.
        log_probs: (params, vectors) -> [n, c, k], for each of c heads.
        by_modality: (params, vectors) -> the same by the picture alone and by the sound
            alone; None where these number their clusters differently.
        leaves: (params) -> points [k, d] in the ball, at one distance from 0, whose
            hierarchy the method has learnt for its first head; None for a flat one.
    """

    number: int
    log_probs: Callable[[PyTree, Vectors], jax.Array]
    by_modality: Callable[[PyTree, Vectors], tuple[jax.Array, jax.Array]] | None
    leaves: Callable[[PyTree], jax.Array] | None = None


class Method(NamedTuple):
    """A training method as pure functions; made by `visxp_jax.methods.make_method`.

    Attributes:
        chance: Value of each logged loss for a network that knows nothing.
        init_state: (padded number of clips, key) -> method_state, a dict of trees whose
            leaves have their leading axis over clips, so that they can be split over
            devices; but for what it has under `SHARED`.
        loss: (params, model_state, method_state, batch, key) -> (scalar, `Aux`).
        relabel: Of a method that learns from labels of its own making.
        clusters: Of a method that has some.
    """

    chance: dict[str, float]
    init_state: Callable[[int, jax.Array], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree, Batch, jax.Array], tuple[jax.Array, Aux]]
    relabel: Relabel | None = None
    clusters: Clusters | None = None
