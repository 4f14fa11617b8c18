"""The training loop: one, for all methods and stages."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from tqdm import tqdm

from visxp_jax.config import RunConfig
from visxp_jax.errors import VisxpError
from visxp_jax.methods import Method
from visxp_jax.progress import progress_bar
from visxp_jax.sharding import to_global
from visxp_jax.train.log import Writer
from visxp_jax.train.step import Step, TrainState
from visxp_jax.types import Batch


class Unlogged(NamedTuple):
    """What the log does not say yet of the steps up to a checkpoint; goes into JSON."""

    rows: list[tuple[dict[str, float], list[int]]]  # metrics; clips if not finite
    in_a_row: int  # of the steps before these, the last so many were not finite


class Stage(NamedTuple):
    """What the loop is given for one stage; steps count over the whole run."""

    name: str
    first_step: int
    last_step: int  # exclusive
    method: Method
    step: Step
    evaluate: Callable[[TrainState], dict[str, float]]
    save: Callable[[int, TrainState, Unlogged], None]
    clip_names: Callable[[np.ndarray], list[str]]
    relabel: Callable[[TrainState], tuple[TrainState, dict[str, float]]] | None = None
    # Batches from the state's step on, where they depend on its labels.
    resample: Callable[[TrainState], Iterator[Batch]] | None = None


# Hosts tell each other of a signal every so many steps.
SIGNAL_STEPS = 10


class Preempted(Exception):
    """SIGTERM came; the state has been saved."""


class StopSignal:
    """Notices SIGTERM and SIGINT without interrupting the step under way."""

    def __init__(self) -> None:
        """Take over the signals."""
        self.received = False
        self._previous = {
            s: signal.signal(s, self._notice) for s in (signal.SIGTERM, signal.SIGINT)
        }

    def _notice(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second time, do not wait
        self.received = True

    def agreed(self, step: int) -> bool:
        """Whether to stop before this step; all hosts get the same answer."""
        if jax.process_count() == 1:
            return self.received
        if step % SIGNAL_STEPS:
            return False
        return bool(process_allgather(np.array(self.received)).any())

    def release(self) -> None:
        """Give the signals back for work that is not saved: from now on one ends it.

        Raises:
            KeyboardInterrupt: one has come already.
        """
        self.restore()
        if self.received:
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def train_stage(
    stage: Stage,
    state: TrainState,
    batches: Iterator[Batch],
    key: jax.Array,
    *,
    mesh: jax.sharding.Mesh,
    run: RunConfig,
    writers: list[Writer],
    stop: StopSignal,
    unlogged: Unlogged | None = None,
    hooks: Sequence[Callable[[int], Any]] = (),
) -> TrainState:
    """Run a stage from where the state stands to its end.

    Metrics stay on the device until `log_every` steps are together, so that the host
    runs ahead of it. Order at each step: stop? relabel? step, log, evaluate, save.

    Args:
        stage: Functions and bounds.
        state: As of some step in [first_step, last_step].
        batches: This host's rows, beginning with the batch of that step.
        key: Of the stage; the step folds its number in.
        mesh: Devices.
        run: Intervals.
        writers: Where numbers go.
        stop: Asked before every step.
        unlogged: As saved with the state.
        hooks: Called with every step, such as clu's periodic actions.

    Returns:
        The state after the last step.

    Raises:
        Preempted: after saving; a signal while labels are made leaves them as they
            were.
        VisxpError: too many steps in a row were not finite.
    """
    step = int(state.step)
    if step == stage.first_step:
        chance = stage.method.chance.items()
        _write(writers, step, {f"chance/{name}": value for name, value in chance})

    def on_skip(skipped: int, clip_id: np.ndarray) -> str:
        names = ", ".join(stage.clip_names(clip_id))
        what = f"step {skipped} was not finite and changed nothing; its clips: {names}"
        tqdm.write(what, file=sys.stderr)
        for writer in writers:
            writer.write_texts(skipped, {"skipped_clips": names})
        return names

    making = stage.method.relabel
    relabel_steps = making.steps if making else ()
    pending = Pending(run.max_skipped, on_skip, unlogged)
    bar = progress_bar(
        total=stage.last_step - stage.first_step,
        initial=step - stage.first_step,
        desc=stage.name,
        unit="step",
    )
    with bar:
        while step < stage.last_step:
            if stop.agreed(step):
                stage.save(step, state, pending.unlogged())
                raise Preempted(f"stopped and saved at step {step}")
            if stage.relabel and step - stage.first_step in relabel_steps:
                try:
                    state, numbers = stage.relabel(state)
                except Preempted:  # labels are made again, from the same state
                    stage.save(step, state, pending.unlogged())
                    raise
                _write(writers, step, numbers)
                if stage.resample is not None:
                    batches = stage.resample(state)
                pending.restart_clock()
            batch = next(batches)
            state, metrics = stage.step(state, to_global(batch, mesh), key)
            pending.add(metrics, batch.clip_id)
            step += 1
            bar.update()
            for hook in hooks:
                hook(step)
            last = step == stage.last_step
            if step % run.log_every == 0 or last:
                numbers = pending.fetch(step)
                _write(writers, step, numbers)
                bar.set_postfix(loss=f"{numbers['loss/total']:.3f}", refresh=False)
            if step % run.eval_every == 0 or last:
                _write(writers, step, stage.evaluate(state))
                pending.restart_clock()
            if step % run.save_every == 0 or last:
                stage.save(step, state, pending.unlogged())
    return state


class Pending:
    """Metrics of steps whose values have not been fetched yet."""

    def __init__(
        self,
        max_skipped: int,
        on_skip: Callable[[int, np.ndarray], str],
        unlogged: Unlogged | None = None,
    ) -> None:
        """Give up after `max_skipped` steps in a row that were not finite.

        Args:
            max_skipped: How many.
            on_skip: Reports a step that was not finite, by its number and its clips,
                and returns the names of the clips.
            unlogged: Steps to begin with.
        """
        self._on_skip = on_skip
        self._rows: list[tuple[Any, np.ndarray]] = [
            (metrics, np.array(ids, np.int32))
            for metrics, ids in (unlogged.rows if unlogged else [])
        ]
        self._max_skipped = max_skipped
        self._in_a_row = unlogged.in_a_row if unlogged else 0
        self._clips = 0
        self._since = time.monotonic()

    def add(self, metrics: dict[str, jax.Array], clip_id: np.ndarray) -> None:
        """Note a step's metrics, still on the device, and its clips."""
        self._rows.append((metrics, clip_id))
        self._clips += len(clip_id) * jax.process_count()

    def unlogged(self) -> Unlogged:
        """The steps since the last fetch, for a checkpoint; waits for the device."""
        rows = []
        for metrics, ids in self._rows:
            values = {k: float(v) for k, v in jax.device_get(metrics).items()}
            rows.append((values, [] if values["finite"] else ids.tolist()))
        return Unlogged(rows, self._in_a_row)

    def restart_clock(self) -> None:
        """Leave out of the rate what was not training."""
        self._since, self._clips = time.monotonic(), 0

    def fetch(self, step: int) -> dict[str, float]:
        """Means over the steps since the last call; waits for the device."""
        first = step - len(self._rows)
        rows = [(jax.device_get(m), ids) for m, ids in self._rows]
        self._rows = []
        good = []
        for i, (metrics, ids) in enumerate(rows):
            if metrics["finite"]:
                good.append(metrics)
                self._in_a_row = 0
                continue
            self._in_a_row += 1
            names = self._on_skip(first + i, ids)
            if self._in_a_row >= self._max_skipped:
                raise VisxpError(
                    f"{self._in_a_row} steps in a row were not finite, the last of "
                    f"them step {first + i} on the clips {names}; look at these, or "
                    "lower the learning rate."
                )
        seconds = max(time.monotonic() - self._since, 1e-9)
        rate = self._clips / seconds
        self.restart_clock()
        used = good or [m for m, _ in rows]
        means = {
            name: float(np.mean([m[name] for m in used], dtype=np.float64))
            for name in used[0]
        }
        means["finite"] = len(good) / len(rows)
        return {**means, "clips_per_second": rate}


def _write(writers: list[Writer], step: int, numbers: dict[str, float]) -> None:
    for writer in writers:
        writer.write_scalars(step, numbers)
