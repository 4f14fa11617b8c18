"""What making labels will take, in memory and time, said before a run begins."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.config import SelflabelConfig
from visxp_jax.errors import VisxpError
from visxp_jax.losses.sinkhorn import SAMPLE_ELEMENTS
from visxp_jax.memory import device_bytes, logits_bytes, logits_fit, size
from visxp_jax.methods import make_method
from visxp_jax.methods.label_solver import BLOCK
from visxp_jax.methods.selflabel import PLANS
from visxp_jax.session import Session
from visxp_jax.sharding import padded_rows

# To balance a head takes so many times as long as one read of its logits, or so many
# sweeps where these are computed anew: what experiments/bench/sinkhorn.py shows.
READS, SWEEPS = 30, 12
# Lloyd's iterations of k-means over all clips, as seen on the demo data.
ITERATIONS = 10


class LabelMemory(NamedTuple):
    """Bytes of one device while labels are made, the network's own left out."""

    features: int
    logits: int
    labels: int

    def __str__(self) -> str:
        parts = ", ".join(f"{k} {size(v)}" for k, v in self._asdict().items())
        return f"{size(sum(self))} of each device ({parts})"


class Work(NamedTuple):
    """How much there is to do for the labels of a stage."""

    clips: int  # rows, with those that fill up the last batch
    width: int  # of all vectors that are kept
    clusters: int
    columns: int  # of labels to solve, each time
    passes: int  # over the clips, each time
    times: int  # that labels are made
    modalities: int  # whose logits are pooled; 0 for k-means, which has none
    kmeans: bool  # at some time
    together: int  # vectors of a clip that it sees at once


def work_of(session: Session, stage: str) -> Work | None:
    """None for a stage that makes no labels."""
    config = session.config
    section = config.stage(stage)
    relabel = make_method(config, stage, session.model).relabel
    if relabel is None:
        return None
    size = config.data.batch_size
    clips = -(-session.dataset.num_usable("train") // size) * size
    widths = {"fused": config.model.fusion_dim}
    width = sum(widths.get(name, 8 * config.model.width) for name in relabel.vectors)
    columns, passes, modalities, kmeans, together = 2, 1, 0, True, 1
    if isinstance(section, SelflabelConfig):
        sources = PLANS[section.labels_from].sources
        in_turn = section.passes == "in_turn"
        columns = (
            len(sources) * section.heads // (section.head_groups if in_turn else 1)
        )
        passes = section.head_groups if section.passes == "each" else 1
        modalities = len(sources[0])
        kmeans = section.first_labels == "features"
        together = len(set(sum(sources, ())))
    return Work(
        clips=clips,
        width=width,
        clusters=section.clusters,
        columns=columns,
        passes=passes,
        times=len(relabel.steps),
        modalities=modalities,
        kmeans=kmeans,
        together=together,
    )


def label_memory(session: Session, stage: str) -> LabelMemory | None:
    """What the labels of a stage take of a device; None if it makes none."""
    work, mesh = work_of(session, stage), session.mesh
    if work is None:
        return None
    method = make_method(session.config, stage, session.model)
    rows = padded_rows(session.dataset.num_clips("train"), mesh)
    state = jax.eval_shape(lambda key: method.init_state(rows, key), jax.random.key(0))
    labels = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    kept = np.dtype(session.config.stage(stage).feature_dtype).itemsize
    logits = 0
    if work.modalities:
        how = {"modalities": work.modalities}
        logits = 3 * 4 * SAMPLE_ELEMENTS  # see `equipartition_in_blocks`
        if logits_fit(work.clips, work.clusters, mesh, **how):
            logits = logits_bytes(work.clips, work.clusters, mesh, **how)
    # For k-means vectors are copied, scaled to one length; those of several modalities
    # are before that, too, and put side by side.
    copies = 1 + work.kmeans * (3 if work.together > 1 else 1)
    vectors = work.clips * work.width * kept * copies
    return LabelMemory(
        features=vectors // mesh.size,
        logits=logits,
        labels=3 * labels // mesh.size,  # the old, the new, and the next
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
        need, work = label_memory(session, stage), work_of(session, stage)
        if need is None or work is None:
            continue
        if sum(need) > have:
            raise VisxpError(
                f"labels of stage {stage} must fit into the {size(have)} of a device, "
                f"but {work.clips:,} clips and {work.clusters:,} clusters take {need}; "
                f"use more devices, {stage}.feature_dtype='float16', or a narrower "
                "network."
            )
        seconds = label_seconds(session, params, model_state, stage, work)
        lines.append(
            f"{stage}: labels of {work.clips:,} clips are made {work.times} times, "
            f"each in about {seconds:,.0f} s, and take {need} of {size(have)}."
        )
    return lines


def label_seconds(
    session: Session, params: Any, model_state: Any, stage: str, work: Work
) -> float:
    """How long it takes to make the labels of a stage once, from short timings.

    Of a second batch, read and encoded, of a read of memory and of a block of scores.
    """
    batches = session.reader.ordered("train", batch_size=session.host_batch)
    first = next(batches)
    second = next(batches, first)
    session.encoder(params, model_state, [first])  # compiles
    one_batch = _seconds(lambda: session.encoder(params, model_state, [second]))
    encode = work.clips // session.config.data.batch_size * one_batch * work.passes
    if work.modalities and logits_fit(
        work.clips, work.clusters, session.mesh, modalities=work.modalities
    ):
        elements, read = jnp.zeros(2**24), jax.jit(jnp.sum)
        read(elements).block_until_ready()
        one_read = _seconds(lambda: read(elements).block_until_ready())
        column = READS * one_read / elements.size * work.clips * work.clusters
    else:
        rows = jnp.zeros((BLOCK, work.width // max(work.modalities, 1)))
        kernel = jnp.zeros((rows.shape[1], work.clusters))
        score = jax.jit(lambda x, w: jax.nn.softmax(x @ w))
        score(rows, kernel).block_until_ready()
        one_block = _seconds(lambda: score(rows, kernel).block_until_ready())
        sweeps = SWEEPS * work.modalities if work.modalities else ITERATIONS
        column = sweeps * one_block * work.clips / BLOCK
    return encode + work.columns * column / session.mesh.size


def _seconds(function: Callable[[], Any]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start
