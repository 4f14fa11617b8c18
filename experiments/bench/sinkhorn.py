"""Equipartition beside the published algorithm and ott-jax: time to column error 1e-4.

    python -m experiments.bench.sinkhorn            # all parts but the last
    python -m experiments.bench.sinkhorn streamed   # peak memory is of the process

rivals: standard normal logits at sharpness 25, and logits of a head that is sure of
itself, where Sinkhorn's iteration is cut off at 1,000 sweeps. The published algorithm
is SeLa's in NumPy: the kernel p^25 in float64 once, then its scalings by turns. ott-jax
takes part where it is installed. Goals: at least 5 times the published algorithm at
(100k, 256), never slower than ott-jax. Floor: reading the scores once.
steps: what each idea brings to the same kernel in float32.
labels: how many differ from those of float64 converged to 1e-9.
streamed: 2 million clips, 309 clusters, from float16 features of width 512.
"""

import importlib.util
import itertools
import resource
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.measure import arguments, as_json, finish, interleaved, table
from visxp_jax.losses import (
    assign,
    assign_in_blocks,
    equipartition,
    equipartition_in_blocks,
)
from visxp_jax.losses.dual import damped_inverse, solve
from visxp_jax.losses.sinkhorn import _mass_near

SIZES = ((10_000, 128), (100_000, 256), (200_000, 512))
LABEL_SIZES = ((10_000, 128), (200_000, 256))
STREAMED = (2_000_000, 309, 512)  # clips, clusters, width
SHARPNESS, TOL, MOST = 25.0, 1e-4, 1_000
PEER = "NumPy float64, as published"
OTT = "ott-jax float32"
OURS = "visxp_jax"
FLOOR = "floor: one read"


class Found(NamedTuple):
    """What a rival came to."""

    log_scale: np.ndarray
    sweeps: int


def normal(n: int, k: int) -> np.ndarray:
    """Of a head that has learnt nothing."""
    return np.random.default_rng(0).normal(size=(n, k)).astype(np.float32)


def sure(n: int, k: int) -> np.ndarray:
    """Clusters of unequal size, with wide gaps between their logits."""
    rng = np.random.default_rng(0)
    size = rng.uniform(0.2, 1, k)
    centre = rng.normal(size=(k, 32)).astype(np.float32)
    which = rng.choice(k, n, p=size / size.sum())
    point = centre[which] + rng.normal(size=(n, 32)).astype(np.float32)
    return point @ centre.T / np.float32(np.sqrt(32))


def published(log_probs: np.ndarray, most: int = MOST) -> Found:
    """Scalings by turns; the error is looked at after every tenth."""
    n, k = log_probs.shape
    kernel = np.exp(SHARPNESS * log_probs.astype(np.float64))
    of_rows = np.full(n, 1 / n)
    for sweep in itertools.count(1):
        of_clusters = 1 / (k * (of_rows @ kernel))
        of_rows = 1 / (n * (kernel @ of_clusters))
        if sweep % 10 == 0:
            error = np.abs(k * of_clusters * (of_rows @ kernel) - 1).max()
            if error <= TOL or sweep >= most:
                break
    return Found(np.log(of_clusters), sweep)


def ott_solver() -> tuple[Any, Callable[[jax.Array], Found]]:
    """Its default, in the log domain: compiled function, and how to run it."""
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    @jax.jit
    def solve(log_probs: jax.Array) -> tuple[jax.Array, jax.Array]:
        geometry = Geometry(cost_matrix=-log_probs, epsilon=1 / SHARPNESS)
        # Its error is a sum of |mass - wanted|: about a third of the largest share.
        solver = Sinkhorn(threshold=TOL / 3, max_iterations=MOST)
        done = solver(LinearProblem(geometry))
        return done.g * SHARPNESS, done.n_iters

    def run(log_probs: jax.Array) -> Found:
        log_scale, sweeps = jax.device_get(solve(log_probs))
        return Found(log_scale, int(sweeps))

    return solve, run


def memory_beside(log_probs: jax.Array, ott: Any) -> dict[str, float]:
    """Peak of each rival beside the scores, in times their size."""

    def planned(compiled: Any) -> float:
        return compiled.memory_analysis().temp_size_in_bytes / log_probs.nbytes

    on_host = np.asarray(log_probs)
    tracemalloc.start()
    published(on_host, most=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    ours = equipartition.lower(log_probs, sharpness=SHARPNESS)
    times = {PEER: peak / log_probs.nbytes, OURS: planned(ours.compile())}
    return (
        times
        if ott is None
        else {**times, OTT: planned(ott.lower(log_probs).compile())}
    )


def column_error(log_probs: np.ndarray, log_scale: np.ndarray) -> float:
    """Of a result, in float64, some rows at a time."""
    n, k = log_probs.shape
    mass = np.zeros(k)
    for rows in np.array_split(log_probs, max(1, n // 10_000)):
        scores = SHARPNESS * rows.astype(np.float64) + log_scale
        plan = np.exp(scores - scores.max(axis=1, keepdims=True))
        mass += (plan / plan.sum(axis=1, keepdims=True)).sum(axis=0)
    return float(np.abs(mass * k / n - 1).max())


def compare(name: str, logits: np.ndarray, rounds: int) -> dict[str, Any]:
    """Print one table."""
    n, k = logits.shape
    on_device = jax.nn.log_softmax(jnp.asarray(logits), axis=1)
    log_probs = np.asarray(on_device)
    read = jax.jit(jnp.sum)
    found: dict[str, Found] = {}

    def ours() -> None:
        result = jax.device_get(equipartition(on_device, sharpness=SHARPNESS, tol=TOL))
        found[OURS] = Found(result.log_scale, int(result.iterations))

    jobs: dict[str, Callable[[], Any]] = {
        PEER: lambda: found.update({PEER: published(log_probs)}),
        OURS: ours,
        FLOOR: lambda: read(on_device).block_until_ready(),
    }
    ott = None
    if importlib.util.find_spec("ott"):
        ott, run_ott = ott_solver()
        jobs[OTT] = lambda: found.update({OTT: run_ott(on_device)})
    else:
        print("ott-jax is not installed: left out")
    rates = interleaved(
        jobs, units=dict.fromkeys(jobs, 1), reference=PEER, rounds=rounds
    )
    print(table(f"{name} logits, {n:,} x {k}", "solutions/s", rates, PEER))
    labels = {
        rival: np.asarray(assign(on_device, jnp.float32(x.log_scale), sharpness=25.0))
        for rival, x in found.items()
    }
    figures: dict[str, Any] = {"rates": as_json(rates)}
    for rival, result in found.items():
        error = column_error(log_probs, result.log_scale.astype(np.float64))
        differ = int((labels[rival] != labels[PEER]).sum())
        print(
            f"  {rival}: {result.sweeps} sweeps to column error {error:.1e}; "
            f"{differ} labels differ from the first's"
        )
        figures[rival] = {"sweeps": result.sweeps, "column_error": error}
    memory = memory_beside(on_device, ott)
    reads = rates[FLOOR].per_s / rates[OURS].per_s
    print(
        f"  ours takes {reads:.1f} times as long as reading the scores once, for "
        f"{found[OURS].sweeps} sweeps beside what the sample takes: "
        f"{found[OURS].sweeps / reads:.0%} of the bandwidth; memory beside the scores, "
        "in times theirs: " + ", ".join(f"{k} {v:.2f}" for k, v in memory.items())
    )
    return {**figures, "memory_beside_scores": memory, "reads": reads}


def steps(n: int, k: int, rounds: int) -> dict[str, Any]:
    """Print what fewer sweeps bring, with the same ones."""
    log_probs = jax.nn.log_softmax(jnp.asarray(normal(n, k)), axis=1)
    rows, wanted = jnp.full(n, 1 / n), jnp.full(k, 1 / k)
    mass_near = partial(_mass_near, log_probs, SHARPNESS, rows, lambda x: x)
    how = {"tol": TOL, "max_sweeps": MOST}
    claims = -jax.nn.logsumexp(SHARPNESS * log_probs, axis=0)
    start = claims - jnp.mean(claims)

    @jax.jit
    def plain(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both potentials by sums of exponentials, taken anew in each step."""
        scores = SHARPNESS * log_probs

        def one(state: tuple) -> tuple:
            log_scale, _, sweeps = state
            of_rows = -jnp.log(n) - jax.nn.logsumexp(scores + log_scale[None], axis=1)
            mass = jax.nn.logsumexp(scores + of_rows[:, None], axis=0) + log_scale
            error = jnp.max(jnp.abs(jnp.exp(mass) / wanted - 1))
            return log_scale + jnp.log(wanted) - mass, error, sweeps + 1

        state = (start, jnp.float32(jnp.inf), jnp.int32(0))
        end = jax.lax.while_loop(lambda s: (s[1] > TOL) & (s[2] < MOST), one, state)
        return end[0], end[2]

    @jax.jit
    def sinkhorn(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same; exponentials are taken anew after every tenth."""

        def ten(state: tuple) -> tuple:
            log_scale, _, sweeps = state
            mass_of = mass_near(log_scale)

            def one(_: int, g: jax.Array) -> jax.Array:
                return g + jnp.log(wanted) - jnp.log(mass_of(g))

            log_scale = jax.lax.fori_loop(0, 10, one, log_scale)
            error = jnp.max(jnp.abs(mass_of(log_scale) / wanted - 1))
            return log_scale, error, sweeps + 11

        state = (start, jnp.float32(jnp.inf), jnp.int32(0))
        end = jax.lax.while_loop(lambda s: (s[1] > TOL) & (s[2] < MOST), ten, state)
        return end[0], end[2]

    @jax.jit
    def anderson(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        end = solve(mass_near, start, wanted, None, **how)
        return end.log_scale, end.sweeps

    @jax.jit
    def newton(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        some = slice(None, None, max(1, n // 8192))
        plan = jax.nn.softmax(SHARPNESS * log_probs[some] + start[None], axis=1)
        share = jnp.full(plan.shape[0], 1 / plan.shape[0])
        inverse = damped_inverse(plan, share, wanted)
        end = solve(mass_near, start, wanted, inverse, **how)
        return end.log_scale, end.sweeps

    def whole(start: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        end = equipartition(log_probs, sharpness=SHARPNESS, tol=TOL, log_scale=start)
        return end.log_scale, end.iterations

    # As after a stretch of training: logits have moved by a tenth of their spread.
    moved = log_probs + 0.1 * jax.random.normal(jax.random.key(1), log_probs.shape)
    earlier = equipartition(moved, sharpness=SHARPNESS).log_scale
    variants: dict[str, Callable[[], tuple[jax.Array, jax.Array]]] = {
        "Sinkhorn's steps in the log domain": lambda: plain(start),
        "exponentials once in ten steps": lambda: sinkhorn(start),
        "and Anderson's acceleration": lambda: anderson(start),
        "and Newton's step of a sample": lambda: newton(start),
        "equipartition: a sample says which": lambda: whole(None),
        "equipartition, from an earlier result": lambda: whole(earlier),
    }
    jobs = {
        name: partial(lambda f: jax.block_until_ready(f()), f)
        for name, f in variants.items()
    }
    first = next(iter(jobs))
    rates = interleaved(
        jobs, units=dict.fromkeys(jobs, 1), reference=first, rounds=rounds
    )
    print(table(f"steps, {n:,} x {k}", "solutions/s", rates, first))
    sweeps = {name: int(f()[1]) for name, f in variants.items()}
    for name, number in sweeps.items():
        print(f"  {name}: {number} sweeps")
    return {"rates": as_json(rates), "sweeps": sweeps}


def labels(n: int, k: int, sharpness: float) -> dict[str, Any]:
    """Print how many labels differ from those of float64."""
    log_probs = jax.nn.log_softmax(jnp.asarray(normal(n, k)), axis=1)
    found = equipartition(log_probs, sharpness=sharpness, tol=TOL)
    ours = np.asarray(assign(log_probs, found.log_scale, sharpness=sharpness))
    kernel = np.exp(sharpness * np.asarray(log_probs).astype(np.float64))
    of_clusters = np.exp(np.asarray(found.log_scale, np.float64))
    error = np.inf
    while error > 1e-9:
        mass = (1 / (kernel @ of_clusters)) @ kernel * of_clusters * (k / n)
        of_clusters /= mass
        error = np.abs(mass - 1).max()
    scores = kernel * of_clusters
    differ = int((scores.argmax(axis=1) != ours).sum())
    sizes = np.bincount(ours, minlength=k)
    print(
        f"labels, {n:,} x {k}, sharpness {sharpness:g}: {differ} of {n:,} differ from "
        f"float64; sizes {sizes.min()} to {sizes.max()} of {n / k:.0f}"
    )
    return {"differ": differ, "n": n}


def streamed() -> dict[str, Any]:
    """Print time and memory of two million clips."""
    n, k, d = STREAMED
    key = jax.random.key(0)
    head = jax.random.normal(key, (d, k)) / np.sqrt(d)

    @jax.jit
    def made() -> jax.Array:
        def part(i: jax.Array) -> jax.Array:
            return jax.random.normal(jax.random.fold_in(key, i), (n // 100, d))

        parts = jax.lax.map(lambda i: part(i).astype(jnp.float16), jnp.arange(100))
        return parts.reshape(n, d)

    on_device = jax.block_until_ready(made())

    def score(rows: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(rows.astype(jnp.float32) @ head, axis=1)

    @jax.jit
    def run(features: jax.Array) -> tuple[Any, jax.Array]:
        result = equipartition_in_blocks(
            features, score, sharpness=SHARPNESS, clusters=k, tol=TOL
        )
        found = assign_in_blocks(features, score, result.log_scale, sharpness=SHARPNESS)
        return result, found

    compiled = run.lower(on_device).compile()
    begun = time.perf_counter()
    result, found = jax.block_until_ready(compiled(on_device))
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sizes = np.bincount(found, minlength=k)
    print(
        f"streamed, {n:,} x {k} from float16 of width {d}: {seconds:.1f} s, "
        f"{int(result.iterations)} sweeps to column error "
        f"{float(result.column_error):.1e}, sizes {sizes.min()} to {sizes.max()}; "
        f"peak {peak:.1f} GiB of the whole process"
    )
    return {"seconds": seconds, "peak_gib": peak, "sweeps": int(result.iterations)}


def rivals(rounds: int) -> dict[str, Any]:
    """All tables of rivals."""
    figures = {
        f"normal {n} x {k}": compare("normal", normal(n, k), rounds) for n, k in SIZES
    }
    n, k = SIZES[0]
    return {**figures, f"sure {n} x {k}": compare("sure", sure(n, k), rounds)}


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    names = ("rivals", "steps", "labels", "streamed")
    parser.add_argument("parts", nargs="*", default=names[:-1], metavar="PART")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(names):
        parser.error(f"PART must be of {', '.join(names)}, got {unknown.pop()!r}")
    figures: dict[str, Any] = {}
    if "rivals" in args.parts:
        figures |= rivals(args.rounds)
    if "steps" in args.parts:
        for n, k in SIZES[:2]:
            figures[f"steps {n} x {k}"] = steps(n, k, args.rounds)
    if "labels" in args.parts:
        for (n, k), sharpness in itertools.product(LABEL_SIZES, (10.0, 25.0)):
            figures[f"labels {n} x {k} at {sharpness:g}"] = labels(n, k, sharpness)
    if "streamed" in args.parts:
        figures["streamed"] = streamed()
    finish(args.out, "sinkhorn", figures)


if __name__ == "__main__":
    main()
