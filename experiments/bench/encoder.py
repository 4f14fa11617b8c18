"""AVNet (256 x 256 frames, 257 x 99 log-mels): training step, features, compile time.

    python -m experiments.bench.encoder --torch-python OTHER/bin/python

The rival is PyTorch's eager mode, channels-last, on as many threads; it runs in an
environment of its own, taking turns with us. Goals: training at least 0.7 times,
features at least 0.95 times the rival. Floor: the multiplications of the network, as
XLA counts them, at the speed of a large matrix product in the same run.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import avnet
from experiments.bench.child import TorchProcess
from experiments.bench.measure import arguments, as_json, finish, interleaved, table
from visxp_jax.config import AvcConfig, OptimConfig, from_dict
from visxp_jax.features import Encoder
from visxp_jax.methods import avc
from visxp_jax.models.bind import Model, bind, build_network
from visxp_jax.sharding import make_mesh, to_global
from visxp_jax.train.optim import make_optimizer
from visxp_jax.train.step import TrainState, make_step, state_sharding
from visxp_jax.types import Batch

PEER = "PyTorch eager, channels_last"
OURS = "visxp_jax"
MATMUL = 2048


class Job(NamedTuple):
    """Our side: the compiled work, ready to be called."""

    train: Callable[[int], None]  # so many steps
    extract: Callable[[int], Any]  # so many batches
    train_flops: float
    extract_flops: Callable[[], float]  # compiles, so only when asked
    parameters: int


def make_batch(size: int) -> Batch:
    """Noise, of the shapes and dtypes that the readers hand out."""
    rng = np.random.default_rng(0)
    numbers = np.arange(size, dtype=np.int32)
    return Batch(
        frame=rng.integers(0, 255, (size, 256, 256, 3)).astype(np.uint8),
        log_mel=rng.normal(size=(size, 257, 99)).astype(np.float16),
        clip_id=numbers,
        video_id=numbers,
        label=np.zeros_like(numbers),
        weight=np.ones(size, np.float32),
    )


def make_model(config: AvcConfig) -> Model:
    """The published network with the head of stage 1."""
    model = dataclasses.replace(from_dict(avnet.get_config()).model, dtype="float32")
    return bind(
        build_network(model, avc.heads(config)),
        frame_shape=(256, 256, 3),
        log_mel_shape=(257, 99),
    )


def make_job(batch_size: int) -> Job:
    """Initialise, compile, and bind everything to one batch."""
    optim = OptimConfig("adam", learning_rate=1e-4, warmup_steps=0, weight_decay=1e-5)
    config = AvcConfig(steps=1000, optim=optim, shifts=1, regularisation=0.0)
    model = make_model(config)
    params, model_state = jax.jit(model.init)(jax.random.key(0))
    parameters = sum(p.size for p in jax.tree.leaves(params))
    optimizer = make_optimizer(optim, config.steps)
    mesh = make_mesh()
    host = make_batch(batch_size)
    batch, key = to_global(host, mesh), jax.random.key(0)
    encode = Encoder(model, mesh)

    # A copy of its own: the step gives its state's memory away.
    kept = jax.tree.map(jnp.copy, (params, model_state))
    state = TrainState(
        step=jnp.int32(0),
        skipped=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        method_state={},
    )
    shardings = state_sharding(state, mesh)
    step = make_step(
        avc.make(config, model, batch_size),
        optimizer,
        lambda key, batch: batch,
        shardings,
    )
    compiled = step.lower(state, batch, key).compile()
    state = jax.device_put(state, shardings)

    def train(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = compiled(state, batch, key)
            float(metrics["loss/total"])

    def embed(params: Any, model_state: Any, batch: Batch) -> Any:
        return model.embed(
            params, model_state, batch.frame, batch.log_mel, train=False
        )[0]

    return Job(
        train=train,
        extract=lambda batches: encode(*kept, [host] * batches),
        train_flops=flops(compiled),
        extract_flops=lambda: flops(jax.jit(embed).lower(*kept, batch).compile()),
        parameters=parameters,
    )


def flops(compiled: Any) -> float:
    """Floating-point operations of one call, as XLA counts them."""
    return float(compiled.cost_analysis()["flops"])


def matmul_job(repeats: int) -> Callable[[], None]:
    """The yardstick: float32 products of two large matrices."""
    a = jnp.ones((MATMUL, MATMUL), jnp.float32)
    product = jax.jit(lambda a: a @ a)

    def work() -> None:
        for _ in range(repeats):
            product(a).block_until_ready()

    return work


def compile_seconds() -> dict[str, float]:
    """Time to a compiled step in a fresh process: with an empty and a filled cache."""
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("empty cache", "filled cache"):
            done = subprocess.run(
                [sys.executable, "-m", "experiments.bench.encoder", "--compile-only"],
                env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
                check=True,
                capture_output=True,
                text=True,
            )
            seconds[name] = float(done.stdout.split()[-1])
    return seconds


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Print the tables."""
    job = make_job(args.batch)
    threads = len(os.sched_getaffinity(0))
    figures: dict[str, Any] = {"batch": args.batch}
    for work, ours, cost, repeats in (
        ("train", job.train, job.train_flops, 2),
        ("extract", job.extract, job.extract_flops(), 4),
    ):
        # A process for each, as users have: one that has trained holds memory that
        # makes its later work faster.
        torch = TorchProcess(
            args.torch_python,
            "torch_avnet.py",
            *(f"--batch={args.batch}", f"--threads={threads}"),
        )
        if torch.about["parameters"] != job.parameters:
            raise SystemExit(
                f"the networks must be the same, but PyTorch's has "
                f"{torch.about['parameters']} parameters and ours {job.parameters}."
            )
        figures["torch"] = torch.about["torch"]
        yardstick = f"floor: {MATMUL} x {MATMUL} matrix product, GFLOP/s"
        rates = interleaved(
            {
                PEER: lambda torch=torch, work=work, n=repeats: torch.run(
                    work=work, repeats=n
                ),
                OURS: lambda ours=ours, n=repeats: ours(n),
                yardstick: matmul_job(10),
            },
            units={
                PEER: repeats * args.batch,
                OURS: repeats * args.batch,
                yardstick: 10 * 2 * MATMUL**3 // 10**9,
            },
            reference=PEER,
            rounds=args.rounds,
            # Training is step upon step. The first of a turn also pays for the memory
            # that the system took back meanwhile: ours took 1.1 to 1.5 times as long.
            lead_ins=1,
        )
        peak = rates.pop(yardstick).per_s
        torch.close()
        per_clip = cost / args.batch / 1e9
        share = rates[OURS].per_s * per_clip / peak
        title = f"{work}, batch {args.batch}, {job.parameters:,} parameters"
        print(table(title, "clips/s", rates, PEER))
        print(
            f"  {per_clip:.1f} GFLOP a clip at {peak:.0f} GFLOP/s of matrix products: "
            f"share of the floor {share:.0%}"
        )
        figures[work] = {
            "rates": as_json(rates),
            "gflop_per_clip": per_clip,
            "matmul_gflop_per_s": peak,
            "share_of_floor": share,
        }
    return figures


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--torch-python", help="Python of an environment with torch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--compile-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compile_only:
        begun = time.perf_counter()
        make_job(args.batch)
        print(time.perf_counter() - begun)
        return
    if args.torch_python is None:
        parser.error("--torch-python must name a Python that has torch and numpy")
    figures = compare(args)
    figures["setup_s"] = compile_seconds()
    print(
        "initialise and compile, fresh process: "
        + ", ".join(f"{s:.1f} s with {n}" for n, s in figures["setup_s"].items())
    )
    finish(args.out, "encoder", figures)


if __name__ == "__main__":
    main()
