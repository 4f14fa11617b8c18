"""State and data position, saved together; the only module that knows orbax."""

import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from visxp_jax.errors import VisxpError
from visxp_jax.sharding import everywhere, mesh_of
from visxp_jax.train.step import TrainState


class Checkpoints:
    """Steps saved under one directory; each is whole or not there.

    A save becomes visible by one rename at its end, so a process killed in the middle
    loses that save and no earlier one; its leftovers are removed on the next start.
    Checksums of all arrays are stored beside them, since flipped bytes in a data file
    would otherwise be restored without a word.
    """

    def __init__(self, directory: Path, *, keep: int | None) -> None:
        """Open or create; call only while holding the workdir's lock.

        Args:
            directory: Of this run's checkpoints alone.
            keep: So many are kept, the newest. None only looks: nothing is made,
                cleared away or saved.
        """
        self._directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=keep is not None,
                create=keep is not None,
                read_only=keep is None,
            ),
            item_names=("state", "about"),
        )

    def latest(self) -> int | None:
        """Newest whole step, or None."""
        return self._manager.latest_step()

    def about(self, step: int) -> dict[str, Any]:
        """The JSON saved with a step: stage, configuration, checksums."""
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(about=ocp.args.JsonRestore())
            )
        except Exception as error:  # of orbax and of json
            raise self._unreadable(step, error) from error
        return restored["about"]

    def save(self, step: int, state: TrainState, about: dict[str, Any]) -> None:
        """Begin to save; returns once the state may be changed again."""
        if step in self._manager.all_steps():
            return
        about = {**about, "checksums": checksums(state), "rows": rows_of(state)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)
            ),
        )

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved at `step`.

        Args:
            step: From `latest`.
            like: A state of the wanted shapes, types and placements.

        Raises:
            VisxpError: the data are damaged.
        """
        about = self.about(step)
        saved = with_rows(like, about.get("rows", {}))
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(saved))
            )["state"]
        except Exception as error:  # tensorstore raises the bare class, orbax many
            raise self._unreadable(step, error) from error
        found = checksums(restored)
        # Several hosts that share rows know no checksum of these: then, or now.
        shared = {k: v for k, v in found.items() if k.startswith(".method_state")}
        expected = shared | about["checksums"]
        damaged = [k for k, v in found.items() if expected.get(k) != v]
        if damaged:
            raise VisxpError(
                f"checkpoint {self._directory / str(step)} is damaged in {damaged[0]}: "
                "its checksum differs; remove that folder to go on from the one before."
            )
        return jax.tree.map(_resized, restored, like)

    def _unreadable(self, step: int, error: Exception) -> VisxpError:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return VisxpError(
            f"checkpoint {self._directory / str(step)} cannot be read: {first}; "
            "remove that folder to go on from the one before."
        )

    def close(self) -> None:
        """Wait for saves under way and let go."""
        self._manager.wait_until_finished()
        self._manager.close()


def rows_of(state: TrainState) -> dict[str, int]:
    """Of the arrays of the method by their path, with those that fill up devices."""
    leaves = jax.tree_util.tree_leaves_with_path(state.method_state)
    return {jax.tree_util.keystr(path): leaf.shape[0] for path, leaf in leaves}


def with_rows(state: TrainState, rows: dict[str, int]) -> TrainState:
    """Shapes, types and placements of a state whose method had so many rows.

    Those of another number of devices, which may not divide them: copied to all.
    """

    def saved(path: Any, leaf: jax.Array) -> jax.ShapeDtypeStruct:
        number = rows.get(jax.tree_util.keystr(path), leaf.shape[0])
        shape = (number, *leaf.shape[1:])
        same = shape == leaf.shape
        placed = leaf.sharding if same else everywhere(mesh_of(leaf))
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=placed)

    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    of_method = jax.tree_util.tree_map_with_path(saved, state.method_state)
    return shapes._replace(method_state=of_method)


def _resized(found: Any, like: Any) -> Any:
    """With as many rows as `like`, and its placement."""
    if found.shape == like.shape:
        return found
    n = min(len(found), len(like))
    place = jax.jit(lambda x, y: y.at[:n].set(x[:n]), out_shardings=like.sharding)
    return place(found, like)


def checksums(state: TrainState) -> dict[str, int]:
    """CRC-32 of every array by its path in the tree.

    Left out on several hosts: arrays whose rows they share, pseudo-labels that is.
    """
    sums = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
            leaf = leaf.addressable_data(0)  # the whole of it, whoever else holds it
        elif isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            continue
        sums[jax.tree_util.keystr(path)] = zlib.crc32(np.asarray(leaf).tobytes())
    return sums
