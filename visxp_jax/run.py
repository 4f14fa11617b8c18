"""All stages of a run, from wherever its newest checkpoint stands."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from visxp_jax.augment import augment
from visxp_jax.config import to_dict
from visxp_jax.estimate import foresee
from visxp_jax.figures import held_out, monitor
from visxp_jax.methods import Method, make_method
from visxp_jax.relabel import Relabeller
from visxp_jax.session import Session
from visxp_jax.sharding import padded_rows
from visxp_jax.train.loop import Preempted, Stage, Unlogged, train_stage
from visxp_jax.train.optim import make_optimizer
from visxp_jax.train.step import TrainState, make_step, state_sharding

PyTree = Any


def train(session: Session) -> tuple[TrainState, dict[str, Any]]:
    """Run all stages, going on from the newest checkpoint if there is one.

    Returns:
        The final state, and the held-out figures after each stage.
    """
    config, checkpoints = session.config, session.checkpoints
    key = jax.random.key(config.seed)
    params, model_state = jax.jit(session.model.init)(key)
    for line in foresee(session, params, model_state):
        if jax.process_index() == 0:
            print(line, flush=True)
    skipped = 0
    scores: dict[str, Any] = {}
    latest = checkpoints.latest()
    about = checkpoints.about(latest) if latest is not None else None
    if about is not None:
        scores = about["scores"]
        print(f"going on from step {latest} (stage {about['stage']})", flush=True)
    passed = about is None
    first = 0
    state = None
    for number, name in enumerate(config.stages):
        last = first + config.stage(name).steps
        stage_key = jax.random.fold_in(key, number + 1)
        method = make_method(config, name, session.model)
        section = config.stage(name)
        fresh = None
        if method.relabel and method.relabel.fresh_heads:
            fresh = session.model.is_head(params, method.relabel.fresh_heads)
        optimizer = make_optimizer(section.optim, section.steps, fresh=fresh)
        passed = passed or (about is not None and about["stage"] == name)
        if not passed:
            first = last
            continue
        state = first_state(
            session, method, optimizer, params, model_state, first, skipped, stage_key
        )
        if about is not None and about["stage"] == name and latest is not None:
            state = checkpoints.restore(latest, state)
        stage = bind_stage(
            session, name, method, optimizer, state, (first, last), scores
        )
        position = int(state.step) - first
        if stage.resample is not None:
            batches = stage.resample(state)
        else:
            batches = session.reader.train(
                batch_size=session.host_batch,
                seed=config.seed * 1000 + number,
                start=position,
            )
        state = train_stage(
            stage,
            state,
            batches,
            stage_key,
            mesh=session.mesh,
            run=config.run,
            writers=session.writers,
            stop=session.stop,
            unlogged=Unlogged(*about["unlogged"]) if about and position else None,
            hooks=session.hooks,
        )
        if session.stop.agreed(0):
            raise Preempted(f"stopped and saved at step {last}")
        scores[name] = held_out(session, name, state)
        params, model_state = state.params, state.model_state
        first, skipped = last, int(state.skipped)
    assert state is not None  # noqa: S101  (there is at least one stage)
    return state, scores


def first_state(
    session: Session,
    method: Method,
    optimizer: Any,
    params: PyTree,
    model_state: PyTree,
    step: int,
    skipped: int,
    key: jax.Array,
) -> TrainState:
    """State at the beginning of a stage, placed on the devices."""
    clips = padded_rows(session.dataset.num_clips("train"), session.mesh)
    state = TrainState(
        step=jnp.int32(step),
        skipped=jnp.int32(skipped),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        method_state=method.init_state(clips, key),
    )
    return jax.device_put(state, state_sharding(state, session.mesh))


def bind_stage(
    session: Session,
    name: str,
    method: Method,
    optimizer: Any,
    state: TrainState,
    bounds: tuple[int, int],
    scores: dict[str, Any],
) -> Stage:
    """Give the loop its functions."""
    config = session.config
    shardings = state_sharding(state, session.mesh)
    about = {
        "stage": name,
        "config": to_dict(config),
        "scores": dict(scores),
        "data_sha256": session.dataset.manifest_sha256,
    }

    def save(step: int, state: TrainState, unlogged: Unlogged) -> None:
        moment = {"seconds": session.seconds(), "unlogged": unlogged}
        session.checkpoints.save(step, state, {**about, **moment})

    relabeller = None
    if method.relabel is not None:
        relabeller = Relabeller(session, name, method, optimizer, shardings, bounds[0])
    return Stage(
        name=name,
        first_step=bounds[0],
        last_step=bounds[1],
        method=method,
        step=make_step(
            method, optimizer, partial(augment, config=config.data), shardings
        ),
        relabel=relabeller,
        resample=relabeller.resample if relabeller and relabeller.samples else None,
        evaluate=partial(monitor, session, name),
        save=save,
        clip_names=session.clip_names,
    )
