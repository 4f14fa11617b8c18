"""Work on more rows than memory holds at once: block by block, and by a sample."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def sum_in_blocks(
    function: Callable[[Any, jax.Array], Any],
    features: Any,
    row_mass: jax.Array,
    *,
    block: int,
    axis_name: str | None = None,
) -> Any:
    """Sum over all rows of what `function` gives for the rows of a block.

    Args:
        function: (features [b, ...], masses [b]) -> arrays, or a tree of them; rows of
            mass 0 must add nothing.
        features: Array [n, ...], or a tree of such.
        row_mass: [n].
        block: b, but never more than n.
        axis_name: Of the devices among which rows are split; the sum is over all.

    Returns:
        The tree that `function` returns.
    """
    n = row_mass.shape[0]
    block = min(block, n)
    start = _rows(0, (features, row_mass), block)
    total = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *start)
    )
    if axis_name is not None:  # it will differ from device to device
        total = jax.lax.pcast(total, axis_name, to="varying")

    def add(i: jax.Array, total: Any) -> Any:
        # The last block begins earlier where rows do not divide: what was there
        # already has mass 0.
        first = jnp.minimum(i * block, n - block)
        part, rows = _rows(first, (features, row_mass), block)
        rows = jnp.where(first + jnp.arange(block) >= i * block, rows, 0)
        return jax.tree.map(jnp.add, total, function(part, rows))

    total = jax.lax.fori_loop(0, -(-n // block), add, total)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def map_in_blocks(function: Callable[[Any], Any], features: Any, *, block: int) -> Any:
    """What `function` gives for all rows, [n, ...], computed block by block.

    Args:
        function: (features [b, ...]) -> arrays [b, ...]; each row for itself.
        features: Array [n, ...], or a tree of such.
        block: b, but never more than n.
    """

    def of_row(row: Any) -> Any:
        rows = jax.tree.map(lambda x: x[None], row)
        return jax.tree.map(lambda x: x[0], function(rows))

    n = jax.tree.leaves(features)[0].shape[0]
    return jax.lax.map(of_row, features, batch_size=min(block, n))


def _rows(first: int | jax.Array, tree: Any, block: int) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, block), tree)


def sample_by_mass(
    key: jax.Array, row_mass: jax.Array, size: int, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Rows that stand for all: one from each of `size` stretches of equal mass.

    From each at a random place, so that no period in the rows is met. Devices of an
    axis take `size` of their own rows each.

    Args:
        key: The same on all devices.
        row_mass: [n] >= 0.
        size: Of the sample, at most n; all rows are taken, once each, if it is n.
        axis_name: Of the devices among which rows are split.

    Returns:
        (int32 [size] in [0, n), [size] masses of which the sum is that of all rows).
    """
    n, dtype = row_mass.shape[0], row_mass.dtype
    if size == n:
        return jnp.arange(n, dtype=jnp.int32), row_mass
    parts = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    part = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    # Of one device with all rows, of equal mass, the same ones would be taken.
    chance = jax.random.uniform(key, (parts, size), dtype)[part]
    # Of masses that are known while compiling, the sums would be made then, slowly.
    mass = jax.lax.optimization_barrier(row_mass)
    largest = jnp.max(mass)
    # Sums of masses that are 0 or the largest are exact: of millions, too.
    upto = jnp.cumsum(mass / jnp.where(largest > 0, largest, 1))
    place = jnp.arange(size, dtype=dtype) + chance
    # A place right at the end may be beyond it, by rounding: the last row with mass.
    last = jnp.max(jnp.where(mass > 0, jnp.arange(n, dtype=jnp.int32), 0))
    at = jnp.searchsorted(upto, place * (upto[-1] / size), side="right")
    at = jnp.minimum(at.astype(jnp.int32), last)
    return at, jnp.full(size, jnp.sum(row_mass) / size)


def gathered(x: jax.Array, axis_name: str | None) -> jax.Array:
    """All devices' [s, ...] one after another, as a sum: known to be the same."""
    if axis_name is None:
        return x
    parts = jnp.arange(jax.lax.axis_size(axis_name))
    place = jax.lax.axis_index(axis_name) == parts
    apart = jnp.where(jnp.expand_dims(place, tuple(range(1, x.ndim + 1))), x[None], 0)
    return jax.lax.psum(apart, axis_name).reshape((-1, *x.shape[1:]))
