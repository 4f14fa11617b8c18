"""What a method is: a loss, the heads it needs, and a state of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from visxp_jax.types import Batch

PyTree = Any


class Aux(NamedTuple):
    """What a loss hands back beside its value."""

    model_state: PyTree  # running statistics after this batch
    metrics: dict[str, jax.Array]  # scalars, logged by name


class Relabelled(NamedTuple):
    """Result of a relabelling pass."""

    method_state: PyTree
    metrics: dict[str, float]


class Method(NamedTuple):
    """A training method as pure functions; made by `visxp_jax.methods.make_method`.

    Attributes:
        chance: Value of each logged loss for a network that knows nothing.
        init_state: (padded number of clips, key) -> method_state; leaves have their
            leading axis over clips, so that they can be split over devices.
        loss: (params, model_state, method_state, batch, key) -> (scalar, `Aux`).
        relabel_steps: Steps of the stage before which `relabel` runs; static.
        relabel: (params, method_state, features, clip ids, key) -> `Relabelled`,
            where `features` are the fused vectors of all training clips, [n, d], rows
            split over the mesh's axis 'data'.
    """

    chance: dict[str, float]
    init_state: Callable[[int, jax.Array], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree, Batch, jax.Array], tuple[jax.Array, Aux]]
    relabel_steps: tuple[int, ...] = ()
    relabel: (
        Callable[[PyTree, PyTree, jax.Array, np.ndarray, jax.Array], Relabelled] | None
    ) = None
