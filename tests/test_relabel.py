"""Making labels in a run: interrupted, resumed, sampled; what the optimiser forgets."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small import small_batch, small_config, small_model, small_stage
from tests.test_main import losses
from visxp_jax.relabel import Relabeller
from visxp_jax.sharding import make_mesh
from visxp_jax.train.loop import Preempted
from visxp_jax.train.optim import FRESH, KEPT, make_optimizer
from visxp_jax.train.step import state_sharding

ROOT = Path(__file__).parent.parent
# One run after the other: (workdir, signal). It sends itself the signal, if not 0, at
# the third batch of a relabelling.
JOB = """
    import os, sys
    from pathlib import Path
    import numpy as np
    from configs import CONFIG
    from visxp_jax import figures, relabel
    from visxp_jax.config import from_dict
    from visxp_jax.main import run
    from visxp_jax.report import collect
    from visxp_jax.train.loop import Preempted
    # What comes after the training is tested elsewhere.
    figures.final_figures = lambda *_: ({}, None)
    collect.write_report = lambda *_: None
    data, *runs = sys.argv[1:]
    config = CONFIG.get_config("debug")
    config.data.dir, config.data.reader = data, "array_record"
    config.run.log_every, config.run.save_every = 1, 1
    config.run.eval_every = 100
    config.STAGE.steps = 8
    batches, make = relabel.Relabeller._batches, relabel.Relabeller.__call__

    def watched(self):
        global passes
        passes += 1
        for i, batch in enumerate(batches(self)):
            if (passes, i) == (WHEN, 2) and int(number):
                os.kill(os.getpid(), int(number))
            yield batch

    def kept(self, state):
        state, metrics = make(self, state)
        np.save(f"{workdir}/labels-{int(state.step)}.npy", state.method_state["labels"])
        return state, metrics

    relabel.Relabeller._batches = watched
    relabel.Relabeller.__call__ = kept
    for workdir, number in zip(runs[::2], runs[1::2], strict=True):
        passes = 0
        try:
            run(from_dict(config), Path(workdir), tensorboard=False)
        except Preempted as stopped:
            print(stopped)
        print("passes", passes)
"""


def job(name: str, data: Path, *runs: tuple[Path, int], when: int = 2):
    stage = "xdc" if name == "xdc" else "selflabel"
    code = JOB.replace("CONFIG", name).replace("STAGE", stage)
    code = code.replace("WHEN", str(when))
    more = [str(x) for workdir, number in runs for x in (workdir, int(number))]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), data, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"]},
    )


# SeLaVi's two groups of heads have a pass each: 4 is that of the second group.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number", "when", "step"),
    [("selavi", signal.SIGTERM, 4, 2), ("xdc", signal.SIGKILL, 2, 2)],
)
def test_run_killed_while_labels_are_made_goes_on_to_the_same_labels(
    name, number, when, step, prepared, tmp_path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    data = prepared["array_record"]
    killed = job(name, data, (whole, 0), (parts, number), when=when)
    assert (whole / "results.json").exists(), killed.stderr
    if number == signal.SIGTERM:
        assert killed.returncode == 0, killed.stderr
        assert "stopped while labels were made, and saved" in killed.stdout
        assert "passes" in killed.stdout
    else:
        assert killed.returncode == -signal.SIGKILL
    assert not (parts / "results.json").exists()
    again = job(name, data, (parts, 0))
    assert again.returncode == 0, again.stderr
    went_on = re.search(r"going on from step (\d+) ", again.stdout)
    assert went_on
    # A save under way at the kill is lost.
    assert int(went_on[1]) in (
        (step,) if number == signal.SIGTERM else (step - 1, step)
    )
    assert {path.name for path in parts.glob("labels-*")} == {
        "labels-0.npy",
        f"labels-{step}.npy",
    }
    for path in parts.glob("labels-*"):
        labels = np.load(path)
        assert labels.max() > 0
        np.testing.assert_array_equal(labels, np.load(whole / path.name))
    expected = losses(whole)
    assert sum("relabel/label_change" in row for row in expected.values()) == 2
    assert losses(parts) == expected
    with np.load(whole / "model.npz") as a, np.load(parts / "model.npz") as b:
        for key in a.files:
            np.testing.assert_array_equal(a[key], b[key])


class Stop:
    """Says so at one batch."""

    def __init__(self, at: int | None = None) -> None:
        self._at = at

    def agreed(self, step: int) -> bool:
        return step == self._at


def relabeller(stop=None, fresh=(), **changes):
    """Of the stage 'selflabel' on two batches of made-up clips, and its state.

    With heads that the method is said to draw anew.
    """
    config = small_config(**{f"selflabel.{k}": v for k, v in changes.items()})
    mesh = make_mesh(jax.devices()[:1])
    method, _, state = small_stage(config, "selflabel", mesh, clips=32)
    batches = [
        small_batch(seed=i)._replace(clip_id=np.arange(16, dtype=np.int32) + 16 * i)
        for i in range(2)
    ]

    def train(**how):
        asked.append(how)
        return iter(batches)

    asked: list[dict] = []
    session = SimpleNamespace(
        config=config,
        mesh=mesh,
        model=small_model(config),
        dataset=SimpleNamespace(num_usable=lambda split: 32),
        reader=SimpleNamespace(ordered=lambda *_, **__: iter(batches), train=train),
        host_batch=16,
        stop=stop or Stop(),
    )
    section = config.selflabel
    assert method.relabel is not None
    method = method._replace(relabel=method.relabel._replace(fresh_heads=fresh))
    known = session.model.is_head(state.params, fresh) if fresh else None
    optimizer = make_optimizer(section.optim, section.steps, fresh=known)
    state = state._replace(opt_state=optimizer.init(state.params))
    shardings = state_sharding(state, mesh)
    made = Relabeller(session, "selflabel", method, optimizer, shardings, 0)
    return made, state, asked


def test_relabelling_gives_every_clip_a_label_in_every_head():
    made, state, _ = relabeller()
    new, metrics = made(state)
    labels = np.asarray(new.method_state["labels"])
    assert labels.shape == (32, 1, 2)
    assert labels.min() >= 0
    # An untrained network tells two kinds of clips apart, so that plans share them out.
    assert metrics["relabel/column_error"] < 1e-3
    assert metrics["relabel/clusters_in_use"] >= 0.5
    same = jax.tree.map(lambda a, b: bool((a == b).all()), new.params, state.params)
    assert all(jax.tree.leaves(same))


def test_optimiser_forgets_the_heads_that_begin_anew_and_no_others():
    made, state, _ = relabeller(fresh=("clusters",))
    state = state._replace(opt_state=jax.tree.map(jnp.ones_like, state.opt_state))
    _, scale, _ = made(state)[0].opt_state
    for part, value in ((FRESH, 0), (KEPT, 1)):
        leaves = jax.tree.leaves(scale.inner_states[part])
        assert len(leaves) > 2
        assert all((np.asarray(leaf) == value).all() for leaf in leaves)


def test_relabelling_stops_at_a_signal_and_leaves_the_state():
    made, state, _ = relabeller(Stop(1))
    with pytest.raises(Preempted, match="while labels were made"):
        made(state)
    assert (np.asarray(state.method_state["labels"]) == -1).all()


def test_batches_are_drawn_anew_by_the_labels_from_where_these_were_made():
    made, state, asked = relabeller(balanced_sampling=True, steps=10, relabels=2)
    assert made.samples
    labels = np.zeros((32, 1, 2), np.int32)
    labels[28:] = 1
    state = state._replace(method_state={"labels": jnp.asarray(labels)})
    for step, since in ((5, 0), (7, 2), (3, 3)):
        made.resample(state._replace(step=jnp.int32(step)))
        assert asked[-1]["start"] == since
        weights = asked[-1]["weights"]
        np.testing.assert_allclose(weights, [16 / 28] * 28 + [4] * 4, rtol=1e-5)
    seeds = [how["seed"] for how in asked]
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("seed", [0, 65_535])
def test_seeds_of_batches_are_small_enough_for_every_reader(seed):
    made, state, asked = relabeller(balanced_sampling=True)
    made._session.config = dataclasses.replace(made._session.config, seed=seed)
    made.resample(state)
    assert 0 <= asked[-1]["seed"] < 2**30
