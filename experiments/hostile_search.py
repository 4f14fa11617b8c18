"""Hostile media to search by, on the command line and sent to a served page.

For `experiments.hostile`. The page is asked as a browser asks it, by HTTP.
"""

import http.client
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from experiments.hostile_scratch import Done, Scratch, Seen, ended

AT_S = 1.5  # of each file
PATIENCE_S = 300  # with an answer of the page


def write_index(scratch: Scratch, features: Path) -> Path:
    """An index to search in."""
    index = scratch.out / "index"
    done = scratch.visxp("search", "add", index, features)
    if done.code:
        raise SystemExit("\n".join(done.lines))
    return index


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
