"""Hostile media to search by, on the command line and sent to a served page.

For `experiments.hostile`. The page is asked as a browser asks it, by HTTP.
"""

import http.client
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.hostile_scratch import Done, Scratch, Seen, ended
from visxp_jax.feature_files import ABOUT

Change = Callable[[pa.Table], pa.Table]

AT_S = 1.5  # of each file
PATIENCE_S = 300  # with an answer of the page


def write_index(scratch: Scratch, features: Path) -> Path:
    """An index to search in."""
    index = scratch.out / "index"
    done = scratch.visxp("search", "add", index, features)
    if done.code:
        raise SystemExit("\n".join(done.lines))
    return index


def _of(column: str, values: pa.Array) -> Change:
    """A feature file with another column of that name."""

    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index(column)
        return table.set_column(at, column, values[: len(table)])

    return change


def write_features(into: Path, sound: Path) -> dict[Path, str]:
    """Feature files; what is wrong, by path."""
    data, about = sound.read_bytes(), pq.read_metadata(sound).metadata[ABOUT]
    table = pq.read_table(sound).replace_schema_metadata({ABOUT: about})
    n, width = len(table), table.schema.field("video").type.list_size
    vectors = np.full(n * width, np.nan, np.float16)
    nan = pa.FixedSizeListArray.from_arrays(pa.array(vectors), width)
    odd = pa.array([b"\xff\xfe<script>"] * n).cast(pa.string(), safe=False)
    other = about.replace(b'"model_sha256": "', b'"model_sha256": "0')
    cases: dict[str, bytes | Change] = {
        "empty": b"",
        "random bytes": np.random.default_rng(0).bytes(5000),
        "its first half": data[: len(data) // 2],
        "a byte in the middle changed": _flipped(data),
        "without vectors": lambda x: x.drop_columns(["video"]),
        "without metadata": lambda x: x.replace_schema_metadata({}),
        "of another model": lambda x: x.replace_schema_metadata({ABOUT: other}),
        "times that are text": _of("start_s", pa.array(["now"] * n)),
        "paths that are numbers": _of("path", pa.array(range(n))),
        "paths that are no text": _of("path", odd),
        "NaN in its vectors": _of("video", nan),
    }
    into.mkdir()
    found = {}
    for number, (what, change) in enumerate(cases.items()):
        path = into / f"{number}.parquet"
        if isinstance(change, bytes):
            path.write_bytes(change)
        else:
            pq.write_table(change(table), path)
        found[path] = f"feature file: {what}"
    return found


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


def added(scratch: Scratch, index: Path) -> Iterator[Seen]:
    """`visxp search add`, a command for each feature file; and a damaged graph."""
    sound = next((scratch.out / "one").glob("[!_.]*.parquet"))
    for path, what in write_features(scratch.out / "features_of_others", sound).items():
        done = scratch.visxp("search", "add", index, path)
        yield Seen(what, "visxp search add", done.code, done.lines)
    done = scratch.visxp("search", "graph", index)
    if done.code:
        raise SystemExit("\n".join(done.lines))
    graph = next(index.glob("segments/*/*.usearch"))
    for what, data in (("zeros", bytes(999)), ("empty", b"")):
        graph.write_bytes(data)
        like = f"--like={pq.read_table(sound)['path'][0]}"
        done = scratch.visxp("search", "find", index, like, "--approximate")
        yield Seen(f"graph: {what}", "visxp search find", done.code, done.lines)


def found(scratch: Scratch, index: Path, media: dict[Path, str]) -> Iterator[Seen]:
    """`visxp search find`, a command for each file."""

    def run(path: Path) -> Done:
        options = (f"--workdir={scratch.root / 'run'}", f"--at={AT_S}", "-k", "1")
        return scratch.visxp("search", "find", index, f"--like={path}", *options)

    with ThreadPoolExecutor(2) as pool:
        for what, done in zip(media.values(), pool.map(run, media), strict=True):
            yield Seen(what, "visxp search find", done.code, done.lines)


def uploaded(scratch: Scratch, index: Path, media: dict[Path, str]) -> Iterator[Seen]:
    """`visxp page`, to which each file is sent; what a browser can send, that is."""
    command = ("page", index, f"--workdir={scratch.root / 'run'}", "--port=0")
    with scratch.started(*command) as process:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().split()[0].decode()).netloc
        for path, what in media.items():
            if path.is_file():
                yield Seen(what, "visxp page, upload", *_sent(address, path))
        process.send_signal(signal.SIGINT)
        done = ended(process)
    lines = done.lines or ["(nothing but its address)"]
    yield Seen("the page of all these, until Ctrl-C", "visxp page", done.code, lines)


def _sent(address: str, path: Path) -> tuple[int, list[str]]:
    """Status, and what the page then shows: why not, or what is most alike."""
    named = urlencode({"name": path.name, "at": AT_S}, errors="surrogateescape")
    status, value = _asked(address, "POST", f"/api/upload?{named}", path.read_bytes())
    if status != http.HTTPStatus.OK:
        return status, [value["error"]]
    asked = urlencode({"upload": value["upload"]})
    status, answer = _asked(address, "GET", f"/api/search?{asked}")
    if status != http.HTTPStatus.OK:
        return status, [answer["error"]]
    there = " and ".join(name for name in ("seen", "heard") if value[name])
    best = answer["hits"][0]
    like = f"most like {best['name']} at {best['at']}, {best['score']:.2f}"
    return status, [f"{value['name']} at {value['at']}, {there}: {like}"]


def _asked(
    address: str, method: str, target: str, body: bytes | None = None
) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
