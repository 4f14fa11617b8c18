"""Triplets a second, loss and gradient, beside the published formula in PyTorch.

    taskset -c 0 python -m experiments.bench.triplets --torch-python OTHER/bin/python

One thread each. Both draw their triples anew each step. Ours: the closed form of the
depth, and triples that are rolls of the leaves. Goal: 10 times PyTorch at 1,024 leaves
and 8,192 triples, float64 as published; its float32 stands beside it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.bench.child import TorchProcess
from experiments.bench.measure import arguments, as_json, finish, interleaved, table
from visxp_jax.hierarchy.embedding import (
    SPHERE,
    by_offset,
    principal_points,
    sampled_loss,
)

SIZES = ((256, 8192), (1024, 8192), (4096, 32768))  # leaves, triples of a step
PUBLISHED = "PyTorch float64, as published"
SINGLE = "PyTorch float32"
OURS = "visxp_jax float32"


def job(leaves: int, batch: int, steps: int) -> Callable[[], None]:
    """So many steps of loss and gradient, in one scan."""
    x = jax.random.normal(jax.random.key(0), (leaves, 16))
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    similarity = (1 + x @ x.T) / 2
    apart = by_offset(similarity)
    params = SPHERE.parameters(principal_points(jax.random.key(1), similarity))

    @jax.jit
    def run(params: tuple, key: jax.Array) -> jax.Array:
        def step(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
            value, grads = jax.value_and_grad(sampled_loss, argnums=1)(
                jax.random.fold_in(key, i),
                params,
                apart,
                jnp.float32(0.05),
                batch=batch,
            )
            return total + value + jnp.sum(grads[0]) + grads[1], None

        return jax.lax.scan(step, jnp.float32(0.0), jnp.arange(steps))[0]

    return lambda: run(params, jax.random.key(2)).block_until_ready()


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--torch-python", required=True)
    args = parser.parse_args()
    figures: dict[str, object] = {}
    for leaves, batch in SIZES:
        options = (f"--leaves={leaves}", f"--batch={batch}")
        rivals = {
            name: TorchProcess(
                args.torch_python, "torch_triplets.py", *options, f"--dtype={dtype}"
            )
            for name, dtype in ((PUBLISHED, "float64"), (SINGLE, "float32"))
        }
        figures["torch"] = rivals[PUBLISHED].about["torch"]
        steps = 10 * 2**20 // batch // 16  # ours: PyTorch does a sixteenth
        jobs: dict[str, Callable[[], object]] = {
            name: lambda rival=rival, n=steps // 16: rival.run(repeats=n)
            for name, rival in rivals.items()
        }
        rates = interleaved(
            jobs | {OURS: job(leaves, batch, steps)},
            units=dict.fromkeys(rivals, steps // 16 * batch) | {OURS: steps * batch},
            reference=PUBLISHED,
            rounds=args.rounds,
        )
        for rival in rivals.values():
            rival.close()
        title = f"{leaves:,} leaves, {batch:,} triples a step"
        print(table(title, "triples/s", rates, PUBLISHED))
        figures[f"{leaves} leaves, batch {batch}"] = as_json(rates)
    finish(args.out, "triplets", figures)


if __name__ == "__main__":
    main()
