"""Search among many vectors: queries a second, recall, time to be ready, memory.

    python -m experiments.bench.search --rows 100000

Rows are of groups in noise, width 512, and so are queries. Ours loads an index of that
many clips from the disk and compares with all, or goes by graphs that lie beside it;
NumPy does the first by a matrix product and a partition; usearch and faiss, where they
are installed, build an index of their own. Recall is of the ten best by float64. One
query at a time, and a hundred at once. On the disk ours takes vectors of both
modalities, with thumbnails and all that is known of clips, and the graphs of both; the
others save the vectors of one.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.bench.measure import arguments, finish, interleaved
from visxp_jax.feature_files import ClipRow, Writer, files_of
from visxp_jax.search.adding import add
from visxp_jax.search.approximate import Approximate, build
from visxp_jax.search.exact import Searcher
from visxp_jax.search.store import Store

WIDTH, QUERIES, K = 512, 100, 10
Find = Callable[[np.ndarray], np.ndarray]  # queries [q, d] to rows [q, K]


class Ready(NamedTuple):
    """One that can be asked.

    Attributes:
        find: Answers.
        save: Writes it to a file; none for those that are on the disk, or just arrays.
    """

    find: Find
    save: Callable[[str], object] | None = None


def vectors(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit float32 [rows, 512] of 1,000 groups, and queries [100, 512] of some."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, WIDTH)).astype(np.float32)

    def some(count: int) -> np.ndarray:
        x = centres[rng.integers(1000, size=count)]
        x = x + rng.standard_normal((count, WIDTH)).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    return some(rows), some(QUERIES)


def write_features(folder: Path, x: np.ndarray) -> None:
    """As extraction does, a file for every thousand seconds."""
    for first in range(0, len(x), 1000):
        name = f"{first // 1000:06d}"
        writer = Writer(folder, name)
        for i, vector in enumerate(x[first : first + 1000]):
            row = ClipRow(f"{name}.mp4", i, i + 1.0, i + 0.5, True, False, False)
            writer.add(row, {"video": vector, "audio": vector})
        writer.finish({"model_sha256": "0" * 64})


def of_searcher(searcher: Searcher | Approximate) -> Find:
    """Numbers of the clips that one of ours finds."""

    def find(queries: np.ndarray) -> np.ndarray:
        hits = searcher.search(queries, "video", k=K)
        return np.array([[hit.row for hit in one] for one in hits])

    return find


def ours(x: np.ndarray, scratch: Path) -> Ready:
    """Loaded from the disk, where it was put before."""
    del x
    return Ready(of_searcher(Searcher(Store(scratch / "index"))))


def ours_approximate(x: np.ndarray, scratch: Path) -> Ready:
    """By graphs for its segments, built before."""
    del x
    return Ready(of_searcher(Approximate(Store(scratch / "index"))))


def numpy_product(x: np.ndarray, scratch: Path) -> Ready:
    """What is usually written by hand."""
    del scratch

    def find(queries: np.ndarray) -> np.ndarray:
        scores = queries @ x.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        return np.take_along_axis(best, order, axis=1)

    return Ready(find)


def usearch(x: np.ndarray, scratch: Path) -> Ready:
    """Approximate, as it comes, float16."""
    from usearch.index import Index

    del scratch
    index = Index(ndim=WIDTH, metric="cos", dtype="f16")
    index.add(np.arange(len(x)), x)

    def find(queries: np.ndarray) -> np.ndarray:
        return np.atleast_2d(index.search(queries, K).keys).astype(int)

    return Ready(find, index.save)


def faiss_flat(x: np.ndarray, scratch: Path) -> Ready:
    """Exact."""
    import faiss

    del scratch
    index = faiss.IndexFlatIP(WIDTH)
    index.add(x)
    return Ready(
        lambda queries: index.search(queries, K)[1],
        lambda path: faiss.write_index(index, path),
    )


def bytes_of(folder: Path) -> int:
    """That its files take."""
    return sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())


def main() -> None:
    """Print the table."""
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    x, queries = vectors(args.rows)
    scores = [
        queries.astype(np.float64) @ x[i : i + 2**16].T.astype(np.float64)
        for i in range(0, len(x), 2**16)
    ]
    right = np.argpartition(-np.concatenate(scores, axis=1), K, axis=1)[:, :K]
    del scores
    rivals = {"visxp_jax": ours, "NumPy": numpy_product}
    if importlib.util.find_spec("usearch"):
        rivals |= {"visxp_jax, graph": ours_approximate, "usearch": usearch}
    if importlib.util.find_spec("faiss"):
        rivals["faiss flat"] = faiss_flat
    figures: dict[str, object] = {"rows": args.rows, "width": WIDTH, "k": K}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "features").mkdir()
        write_features(scratch / "features", x)
        begun = time.perf_counter()
        add(Store(scratch / "index"), list(files_of([scratch / "features"])))
        figures["add_seconds"] = time.perf_counter() - begun
        figures["index_bytes"] = size = bytes_of(scratch / "index")
        print(
            f"{args.rows:,} x {WIDTH}, two modalities: added in "
            f"{figures['add_seconds']:.1f} s, {size / 2**30:.2f} GiB on the disk"
        )
        if importlib.util.find_spec("usearch"):
            begun = time.perf_counter()
            build(Store(scratch / "index"))
            figures["graph_seconds"] = time.perf_counter() - begun
            figures["index_bytes_with_graphs"] = size = bytes_of(scratch / "index")
            print(
                f"graphs of both modalities in {figures['graph_seconds']:.1f} s, "
                f"{size / 2**30:.2f} GiB with them"
            )
        found, ready, saved = {}, {}, {}
        for rival, make in rivals.items():
            begun = time.perf_counter()
            found[rival], save = make(x, scratch)
            ready[rival] = time.perf_counter() - begun
            if save is not None:
                save(str(scratch / "saved"))
                saved[rival] = (scratch / "saved").stat().st_size
                told = f"{saved[rival] / 2**30:.2f} GiB on the disk"
                print(f"{rival}, one modality: {told}")
    figures["saved_bytes"] = saved
    jobs: dict[str, Callable[[], object]] = {}
    units = {}
    for rival, find in found.items():
        jobs[f"{rival}, {QUERIES} at once"] = lambda find=find: find(queries)
        jobs[f"{rival}, one"] = lambda find=find: [find(q[None]) for q in queries[:10]]
        units |= {f"{rival}, {QUERIES} at once": QUERIES, f"{rival}, one": 10}
    rates = interleaved(
        jobs, units=units, reference=f"NumPy, {QUERIES} at once", rounds=args.rounds
    )
    rows = {}
    for job, rate in rates.items():
        rival = job.rpartition(",")[0]
        hits = found[rival](queries)
        recall = np.mean(
            [len(set(a) & set(b)) / K for a, b in zip(hits, right, strict=True)]
        )
        rows[job] = {
            "queries_per_s": rate.per_s,
            "recall": float(recall),
            "ready_seconds": ready[rival],
        }
        print(
            f"  {job:26} {rate.per_s:9.1f} queries/s  recall {recall:.3f}"
            f"  ready in {ready[rival]:.1f} s"
        )
    finish(args.out, "search", figures | {"rivals": rows})


if __name__ == "__main__":
    main()
