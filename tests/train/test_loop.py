"""Metrics on their way from the device, and signals on theirs to the loop."""

import json
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small import small_batch, small_config, small_stage
from visxp_jax.errors import VisxpError
from visxp_jax.sharding import make_mesh
from visxp_jax.train.log import JsonlWriter, read_jsonl
from visxp_jax.train.loop import (
    Pending,
    Preempted,
    Stage,
    StopSignal,
    Unlogged,
    train_stage,
)


def names(step: int, ids: np.ndarray) -> str:
    del step
    return ", ".join(f"clip{i}" for i in ids)


def add(pending: Pending, loss: float, clips=(0, 1)) -> None:
    """One step; it was finite if its loss is."""
    finite = jnp.isfinite(loss).astype(jnp.float32)
    metrics = {"loss/total": jnp.float32(loss), "finite": finite}
    pending.add(metrics, np.asarray(clips))


def test_pending_gives_means_since_the_last_fetch():
    pending = Pending(3, names)
    add(pending, 1.0)
    add(pending, 4.0)
    numbers = pending.fetch(2)
    assert numbers.keys() == {"loss/total", "finite", "clips_per_second"}
    assert numbers["loss/total"] == 2.5
    assert numbers["finite"] == 1
    add(pending, 7.0)
    assert pending.fetch(3)["loss/total"] == 7


def test_pending_leaves_steps_that_were_not_finite_out_of_the_means():
    pending = Pending(3, names)
    for loss in (1.0, np.nan, 3.0, np.inf):
        add(pending, loss)
    numbers = pending.fetch(4)
    assert numbers["loss/total"] == 2
    assert numbers["finite"] == 0.5


def test_pending_of_no_finite_step_says_so():
    pending = Pending(3, names)
    add(pending, np.nan)
    numbers = pending.fetch(1)
    assert np.isnan(numbers["loss/total"])
    assert numbers["finite"] == 0


def test_pending_reports_the_step_and_clips_that_were_not_finite():
    reported = []

    def on_skip(step: int, ids: np.ndarray) -> str:
        reported.append((step, ids.tolist()))
        return ""

    pending = Pending(3, on_skip)
    add(pending, 1.0, [1, 2])
    add(pending, np.nan, [3, 4])
    add(pending, 1.0, [5, 6])
    pending.fetch(10)
    assert reported == [(8, [3, 4])]


def test_pending_gives_up_at_so_many_steps_in_a_row():
    pending = Pending(2, names)
    add(pending, np.nan, [1])
    add(pending, np.nan, [2])
    with pytest.raises(VisxpError, match=r"2 steps in a row.*step 41 on the.* clip2;"):
        pending.fetch(42)


def test_pending_counts_in_a_row_across_fetches():
    pending = Pending(3, names)
    add(pending, np.nan)
    add(pending, np.nan)
    pending.fetch(2)
    add(pending, np.nan, [9])
    with pytest.raises(VisxpError, match=r"3 steps in a row.*step 2 .*clip9"):
        pending.fetch(3)


def test_pending_counts_in_a_row_across_a_checkpoint():
    before = Pending(4, names)
    for clip in range(3):
        add(before, np.nan, [clip])
        if clip == 1:
            before.fetch(2)
    kept = before.unlogged()
    assert kept.in_a_row == 2
    pending = Pending(4, names, Unlogged(*json.loads(json.dumps(kept))))
    add(pending, np.nan, [3])
    with pytest.raises(VisxpError, match=r"4 steps in a row.*step 3 .*clip3"):
        pending.fetch(4)


def test_pending_forgives_steps_with_a_finite_one_between():
    pending = Pending(2, names)
    for loss in (np.nan, 1.0, np.nan):
        add(pending, loss)
    pending.fetch(3)
    add(pending, 1.0)
    add(pending, np.nan)
    assert pending.fetch(5)["finite"] == 0.5


def test_pending_rate_counts_clips_over_the_time_since_the_last_fetch():
    pending = Pending(3, names)
    start = time.monotonic()
    add(pending, 1.0, range(600))
    add(pending, 1.0, range(400))
    time.sleep(0.02)
    rate = pending.fetch(2)["clips_per_second"]
    assert 1000 / (time.monotonic() - start) <= rate <= 1000 / 0.02
    add(pending, 1.0, range(10))
    time.sleep(0.02)
    assert pending.fetch(3)["clips_per_second"] <= 10 / 0.02


def test_pending_clock_restarted_forgets_clips_and_time_before():
    pending = Pending(3, names)
    add(pending, 1.0, range(100_000))
    pending.restart_clock()
    add(pending, 1.0, range(10))
    time.sleep(0.02)
    numbers = pending.fetch(2)
    assert 0 < numbers["clips_per_second"] <= 10 / 0.02
    assert numbers["finite"] == 1


@pytest.fixture
def stop():
    signals = StopSignal()
    yield signals
    signals.restore()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_is_noticed_and_interrupts_nothing(stop, number):
    assert not stop.agreed(0)
    signal.raise_signal(number)
    assert stop.agreed(1)
    assert stop.agreed(2)


def test_second_ctrl_c_does_not_wait(stop):
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_second_sigterm_still_waits(stop):
    signal.raise_signal(signal.SIGTERM)
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:  # it would end all tests
        pytest.fail("interrupted")
    assert stop.agreed(3)


def test_stop_signal_released_lets_a_signal_end_the_job(stop):
    stop.release()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not stop.received


def test_stop_signal_released_does_not_forget_one_that_came(stop):
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stop.release()


def test_stop_signal_gives_the_signals_back():
    both = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(s) for s in both]
    signals = StopSignal()
    taken = [signal.getsignal(s) for s in both]
    signals.restore()
    assert [signal.getsignal(s) for s in both] == before
    assert all(a != b for a, b in zip(before, taken, strict=True))


class StopAt(StopSignal):
    """A signal that comes before one step."""

    def __init__(self, step: int | None) -> None:
        self._step = step

    def agreed(self, step: int) -> bool:
        return step == self._step


def train(folder, batches, stop_at=None, going_on_from=None, save_every=4):
    """Eight steps, of which the log has two rows; what was saved."""
    intervals = {"run.log_every": 4, "run.save_every": save_every, "run.eval_every": 8}
    config = small_config(**{"avc.steps": 8, **intervals})
    mesh = make_mesh(jax.devices()[:1])
    method, step, state = small_stage(config, "avc", mesh)
    begin, state, unlogged = going_on_from or (0, state, None)
    saved = []
    stage = Stage(
        name="avc",
        first_step=0,
        last_step=8,
        method=method,
        step=step,
        relabel=lambda state: (state, {}),
        evaluate=lambda state: {"validation/skipped": float(state.skipped)},
        save=lambda at, state, rest: saved.append((at, jax.device_get(state), rest)),
        clip_names=lambda ids: [f"v{i}.mp4" for i in ids[:2]],
    )
    known = len(unlogged.rows) if unlogged else 0
    path = folder / "metrics.jsonl"
    writer = JsonlWriter(path, first_step=begin, unlogged=known)
    try:
        train_stage(
            stage,
            state,
            iter(batches[begin:]),
            jax.random.key(0),
            mesh=mesh,
            run=config.run,
            writers=[writer],
            stop=StopAt(stop_at),
            unlogged=unlogged,
        )
    except Preempted:
        pass
    finally:
        writer.close()
    return saved


def log_of(folder):
    rows = read_jsonl(folder / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k != "clips_per_second"} for r in rows]


@pytest.fixture
def odd_batches():
    """Of eight batches, two that are not finite."""
    batches = [small_batch(seed=i) for i in range(8)]
    for i in (1, 6):
        batches[i].log_mel[5] = np.nan
    return batches


@pytest.mark.parametrize("stop_at", [1, 7])
def test_loop_stopped_between_rows_of_the_log_goes_on_to_the_same_rows(
    tmp_path, odd_batches, stop_at
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(whole, odd_batches)
    step, state, unlogged = train(parts, odd_batches, stop_at=stop_at)[-1]
    assert step == stop_at
    assert len(unlogged.rows) == stop_at % 4
    unlogged = Unlogged(*json.loads(json.dumps(unlogged)))
    train(parts, odd_batches, going_on_from=(step, state, unlogged))
    assert log_of(parts) == log_of(whole)
    assert {"step": 1, "skipped_clips": "v0.mp4, v1.mp4"} in log_of(whole)


@pytest.mark.parametrize("save", [0, 1])
def test_loop_killed_after_it_logged_beyond_its_checkpoint_has_each_row_once(
    tmp_path, odd_batches, save
):
    saved = train(tmp_path, odd_batches, save_every=3)
    whole = log_of(tmp_path)
    assert [step for step, *_ in saved] == [3, 6, 8]
    train(tmp_path, odd_batches, going_on_from=saved[save])
    assert log_of(tmp_path) == whole


def test_loop_steps_over_batches_that_are_not_finite_and_names_their_clips(
    tmp_path, capsys, odd_batches
):
    ((step, state, unlogged),) = train(tmp_path, odd_batches, save_every=8)
    assert (step, int(state.skipped), unlogged.rows) == (8, 2, [])
    told = capsys.readouterr().err
    assert "step 1 was not finite" in told
    assert "step 6 was not finite" in told
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    for skipped in (1, 6):
        assert {"step": skipped, "skipped_clips": "v0.mp4, v1.mp4"} in rows
    assert [r["finite"] for r in rows if "finite" in r] == [0.75, 0.75]
    assert rows[-1] == {"step": 8, "validation/skipped": 2.0}
