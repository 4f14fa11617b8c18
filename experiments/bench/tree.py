"""A tree over many rows: seconds, memory and Dasgupta's cost beside simpler ones.

    python -m experiments.bench.tree --rows 100000

Rows are made in two ways: in groups of groups of groups, and overlapping. The rival is
what people do who have too many rows for linkage: k-means (scikit-learn's), as many
clusters as ours has groups, then scipy's average linkage of the centres, and of the
rows of each. Costs are given as the share of what is saved beside a random tree, ours
being 1. Each is made in a process of its own; peak memory is its own, and for each
core that of a process it started (Linux).
"""

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from joblib import cpu_count
from joblib.externals.loky import get_reusable_executor
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import KMeans

from experiments.bench.measure import arguments, finish, peak_gib
from visxp_jax.hierarchy import build, dasgupta_cost
from visxp_jax.hierarchy.metrics import unit_rows
from visxp_jax.hierarchy.tree import grafted, random_tree

WIDTH = 64


def nested(n: int) -> np.ndarray:
    """1,000 groups in 100 in 10, well apart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, WIDTH))
    for groups, spread in ((100, 0.7), (1000, 0.5), (n, 0.5)):
        above = rng.integers(len(x), size=groups)
        x = x[above] + spread * rng.normal(size=(groups, WIDTH))
    return x


def overlapping(n: int) -> np.ndarray:
    """10 groups in noise whose directions differ in weight."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.5
    return noise + 0.4 * rng.normal(size=(10, WIDTH))[rng.integers(10, size=n)]


def ours(x: np.ndarray) -> np.ndarray:
    """As it comes, on all cores."""
    return build(x, n_jobs=-1, verbose=True)


def k_means_then_linkage(x: np.ndarray) -> np.ndarray:
    """Two levels, each by average linkage."""
    x = unit_rows(x)

    def linked(rows: np.ndarray) -> np.ndarray:
        if len(rows) < 2:
            return np.zeros((0, 2), np.int64)
        return linkage(rows, "average", metric="cosine")[:, :2].astype(np.int64)

    found = KMeans(math.isqrt(len(x)), n_init=1, max_iter=20, random_state=0).fit(x)
    parts = [np.flatnonzero(found.labels_ == k) for k in np.unique(found.labels_)]
    means = np.stack([x[part].mean(axis=0) for part in parts])
    return grafted(linked(means), parts, [linked(x[part]) for part in parts])


def random(x: np.ndarray) -> np.ndarray:
    """By chance."""
    return random_tree(len(x), np.random.default_rng(0))


DATA: dict[str, Callable[[int], np.ndarray]] = {
    "nested": nested,
    "overlapping": overlapping,
}
RIVALS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "visxp_jax": ours,
    "k-means, then linkage": k_means_then_linkage,
    "random": random,
}


def measured(data: str, rival: str, n: int) -> dict[str, float]:
    """Of one tree, in this process."""
    x = DATA[data](n)
    begun = time.perf_counter()
    merges = RIVALS[rival](x)
    seconds = time.perf_counter() - begun
    gib = peak_gib()
    if RIVALS[rival] is ours:
        gib += cpu_count() * get_reusable_executor().submit(peak_gib).result()
    return {"seconds": seconds, "gib": gib, "cost": dasgupta_cost(merges, x)}


def main() -> None:
    """Print the tables."""
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    args = parser.parse_args()
    figures: dict[str, object] = {"rows": args.rows, "width": WIDTH}
    spawn = multiprocessing.get_context("spawn")
    for data in args.data:
        found = {}
        for rival in RIVALS:
            with ProcessPoolExecutor(1, mp_context=spawn) as alone:
                found[rival] = alone.submit(measured, data, rival, args.rows).result()
        most, least = found["random"]["cost"], found["visxp_jax"]["cost"]
        print(f"{data}, {args.rows:,} x {WIDTH}: cost, saved, seconds, peak GiB")
        for rival, own in found.items():
            own["saved"] = (most - own["cost"]) / (most - least)
            print(
                f"  {rival:22} {own['cost']:.9e}  {own['saved']:.5f}"
                f"  {own['seconds']:7.1f}  {own['gib']:.2f}"
            )
        figures[data] = found
    finish(args.out, "tree", figures)


if __name__ == "__main__":
    main()
