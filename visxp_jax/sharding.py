"""Devices: the mesh, placements (rows over 'data', weights everywhere), XLA options."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from visxp_jax.errors import VisxpError

ROWS = PartitionSpec("data")
EVERYWHERE = PartitionSpec()


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """One axis, 'data', over the given devices (default: all of all hosts).

    `jax.make_mesh` would give axes of type Explicit, under which a product of two
    batch-sharded matrices is an error; Auto lets the compiler place the collectives.
    """
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def compiler_options() -> dict[str, str]:
    """What the networks are compiled with, for `jax.jit(compiler_options=...)`.

    On CPU, XLA hands convolutions to YNNPACK, whose weight gradients took 2 to 6 times
    as long as XLA's own (jax 0.10.2, AVX-512); sums and products stay there.
    Other devices have no such choice.
    """
    if jax.default_backend() != "cpu":
        return {}
    kept = ("DOT", "REDUCE")
    types = ",".join(f"LIBRARY_FUSION_TYPE_{name}" for name in kept)
    return {"xla_cpu_experimental_ynn_fusion_type": types}


def rows(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the devices."""
    return NamedSharding(mesh, ROWS)


def everywhere(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, EVERYWHERE)


def mesh_of(x: jax.Array) -> Mesh:
    """Devices that an array was placed on by one of the two above."""
    assert isinstance(x.sharding, NamedSharding)  # noqa: S101  (see above)
    mesh = x.sharding.mesh
    assert isinstance(mesh, Mesh)  # noqa: S101  (no array of a trace)
    return mesh


def to_global(tree: Any, mesh: Mesh) -> Any:
    """Put this host's rows of a batch on its devices, as one array over all hosts.

    Args:
        tree: Arrays [b / hosts, ...], a NamedTuple or dict of them.
        mesh: From `make_mesh`.

    Returns:
        The same tree of jax arrays [b, ...], rows over 'data'.
    """
    sharding = rows(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def padded_rows(num_rows: int, mesh: Mesh) -> int:
    """Smallest multiple of 256 and of the mesh size that holds `num_rows`.

    256, so that a state saved on 8 devices has the shape that 1, 2 or 16 expect.
    """
    multiple = math.lcm(mesh.size, 256)
    return -(-num_rows // multiple) * multiple


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise unless the global batch can be split evenly.

    Raises:
        VisxpError: with the nearest sizes that work.
    """
    if batch_size < mesh.size or batch_size % mesh.size:
        low = max(batch_size // mesh.size, 1) * mesh.size
        raise VisxpError(
            f"data.batch_size must be a multiple of the {mesh.size} devices, got "
            f"{batch_size}; use {low} or {low + mesh.size}."
        )
