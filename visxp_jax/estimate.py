"""What making labels will take, in memory and time, said before a run begins."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.errors import VisxpError
from visxp_jax.memory import device_bytes, logits_bytes, logits_fit, size
from visxp_jax.methods import make_method
from visxp_jax.session import Session
from visxp_jax.sharding import padded_rows

# A solution of one head takes so many times as long as one read of its logits: what
# experiments/bench/sinkhorn.py shows on two cores.
READS_PER_HEAD = 30
# Rows of a sample, and of a block, where logits of all do not fit; see
# `equipartition_in_blocks`.
ELEMENTS_IN_BLOCKS = 3 * 2**25


class LabelMemory(NamedTuple):
    """Bytes of one device while labels are made."""

    features: int
    logits: int
    labels: int

    def __str__(self) -> str:
        parts = ", ".join(f"{k} {size(v)}" for k, v in self._asdict().items())
        return f"{size(sum(self))} of each device ({parts})"


def label_memory(session: Session, stage: str) -> LabelMemory | None:
    """What the labels of a stage take of a device; None if it makes none."""
    config, mesh = session.config, session.mesh
    method = make_method(config, stage, session.model)
    if method.relabel is None:
        return None
    usable = session.dataset.num_usable("train")
    n = -(-usable // config.data.batch_size) * config.data.batch_size
    clips = padded_rows(session.dataset.num_clips("train"), mesh)
    widths = {"fused": config.model.fusion_dim}
    d = sum(widths.get(name, 8 * config.model.width) for name in method.relabel.vectors)
    kept = np.dtype(config.stage(stage).feature_dtype).itemsize
    k = config.stage(stage).clusters
    state = jax.eval_shape(lambda key: method.init_state(clips, key), jax.random.key(0))
    labels = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    logits = logits_bytes(n, k, mesh)
    if not logits_fit(n, k, mesh):
        logits = ELEMENTS_IN_BLOCKS * 4
    return LabelMemory(
        # As kept, and twice in float32 while k-means scales them to one length.
        features=n * d * (kept + 2 * 4) // mesh.size,
        logits=logits,
        labels=2 * labels // mesh.size,  # the old and the new
    )


def foresee(session: Session, params: Any, model_state: Any) -> list[str]:
    """A line for each stage that makes labels on what those will take.

    Args:
        session: Of the run.
        params: Of the network, trained or not.
        model_state: Its running statistics.

    Raises:
        VisxpError: they do not fit into the memory of a device; says by how much.
    """
    lines = []
    have = device_bytes(session.mesh)
    for stage in session.config.stages:
        need = label_memory(session, stage)
        if need is None:
            continue
        section = session.config.stage(stage)
        clips = session.dataset.num_usable("train")
        if sum(need) > have:
            raise VisxpError(
                f"labels of stage {stage} must fit into the {size(have)} of a device, "
                f"but {clips:,} clips and {section.clusters:,} clusters take {need}; "
                f"use more devices, {stage}.feature_dtype='float16', or a narrower "
                "network."
            )
        seconds = label_seconds(session, params, model_state, stage)
        lines.append(
            f"{stage}: labels of {clips:,} clips are made {section.relabels} times, "
            f"each in about {seconds:,.0f} s, and take {need} of {size(have)}."
        )
    return lines


def label_seconds(session: Session, params: Any, model_state: Any, stage: str) -> float:
    """How long it takes to make the labels of a stage once, from two short timings."""
    config, section = session.config, session.config.stage(stage)
    clips = session.dataset.num_usable("train")
    batch = next(session.reader.ordered("train", batch_size=session.host_batch))
    logits, read = jnp.zeros(2**24), jax.jit(jnp.sum)
    one_batch = _seconds(lambda: session.encoder(params, model_state, [batch]))
    one_read = _seconds(lambda: read(logits).block_until_ready()) / logits.size
    heads = getattr(section, "heads", 2)  # two modalities, if there are none
    passes = section.head_groups if getattr(section, "passes", "") == "each" else 1
    encode = -(-clips // config.data.batch_size) * one_batch * passes
    solve = heads * READS_PER_HEAD * one_read * clips * section.clusters
    return encode + solve / session.mesh.size


def _seconds(function: Callable[[], Any]) -> float:
    function()  # compiles
    start = time.monotonic()
    function()
    return time.monotonic() - start
