"""What making labels will take, in memory and time, said before a run begins."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from visxp_jax.config import SelflabelConfig, ShhcConfig
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
# K-means takes so many times as long as the scores of all clips, once; balanced k-means
# so many. Of (100k, 128) features and 309 clusters; 150 and 200 of (20k, 128) and 20.
KMEANS_SWEEPS, BALANCED_SWEEPS = 110, 280


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
    kept: int  # width of all vectors of a clip that are kept
    scored: int  # of those that one column of labels is made from
    scaled: int  # of the copies of them that k-means makes
    clusters: int
    first_columns: int  # of labels to solve at first
    columns: int  # and each time later
    passes: int  # over the clips, each time
    times: int  # that labels are made
    modalities: int  # whose logits are pooled; 0 for k-means, which has none
    first: bool  # labels come from balanced k-means


def work_of(session: Session, stage: str) -> Work | None:
    """None for a stage that makes no labels."""
    config = session.config
    section = config.stage(stage)
    relabel = make_method(config, stage, session.model).relabel
    if relabel is None:
        return None
    size = config.data.batch_size
    tower = 8 * config.model.width
    widths = {"video": tower, "audio": tower, "fused": config.model.fusion_dim}
    one = max(widths[name] for name in relabel.vectors)
    scored, scaled, columns, passes, modalities, first = one, one, 2, 1, 0, False
    first_columns = columns
    if isinstance(section, SelflabelConfig | ShhcConfig):
        plan = PLANS[section.labels_from]
        sources = [[plan.heads[name][0] for name in source] for source in plan.sources]
        heads, turns, first = 1, 1, True
        if isinstance(section, SelflabelConfig):
            heads, first = section.heads, section.first_labels == "features"
            turns = section.head_groups if section.passes == "in_turn" else 1
            passes = section.head_groups if section.passes == "each" else 1
        columns = first_columns = len(sources) * heads
        columns //= turns
        modalities = len(sources[0])
        scored = sum(widths[name] for name in sources[0])
        if first:  # the same for all sets
            first_columns = heads
        together = sorted(set(sum(sources, [])))
        scaled = sum(widths[name] for name in together) if first else 0
        # Several are scaled each, put side by side, and scaled again.
        scaled *= 3 if len(together) > 1 else 1
    return Work(
        clips=-(-session.dataset.num_usable("train") // size) * size,
        kept=sum(widths[name] for name in relabel.vectors),
        scored=scored,
        scaled=scaled,
        clusters=section.clusters,
        first_columns=first_columns,
        columns=columns,
        passes=passes,
        times=len(relabel.steps),
        modalities=modalities,
        first=first,
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
    vectors = work.clips * (work.kept + work.scaled) * kept
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
        first, each = label_seconds(session, params, model_state, stage, work)
        lines.append(
            f"{stage}: labels of {work.clips:,} clips are made {work.times} times, "
            f"first in about {first:,.0f} s, then in {each:,.0f} s, and take {need} of "
            f"{size(have)}."
        )
    return lines


def label_seconds(
    session: Session, params: Any, model_state: Any, stage: str, work: Work
) -> tuple[float, float]:
    """How long it takes to make the labels of a stage at first, and later.

    From short timings: of a second batch, read and encoded, of a read of memory and of
    a block of scores.
    """
    batches = session.reader.ordered("train", batch_size=session.host_batch)
    first = next(batches)
    second = next(batches, first)
    session.encoder(params, model_state, [first])  # compiles
    one_batch = _seconds(lambda: session.encoder(params, model_state, [second]))
    encode = work.clips // session.config.data.batch_size * one_batch * work.passes

    rows, kernel = (
        jnp.zeros((BLOCK, work.scored)),
        jnp.zeros((work.scored, work.clusters)),
    )
    score = jax.jit(lambda x, w: jax.nn.softmax(x @ w))
    score(rows, kernel).block_until_ready()
    one_block = _seconds(lambda: score(rows, kernel).block_until_ready())
    sweep = one_block * work.clips / BLOCK
    column = sweep * (SWEEPS if work.modalities else KMEANS_SWEEPS)
    if work.modalities and logits_fit(
        work.clips, work.clusters, session.mesh, modalities=work.modalities
    ):
        elements, read = jnp.zeros(2**24), jax.jit(jnp.sum)
        read(elements).block_until_ready()
        one_read = _seconds(lambda: read(elements).block_until_ready())
        column = READS * one_read / elements.size * work.clips * work.clusters

    at_first = work.first_columns * (sweep * BALANCED_SWEEPS if work.first else column)
    devices = session.mesh.size
    return encode + at_first / devices, encode + work.columns * column / devices


def _seconds(function: Callable[[], Any]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start
