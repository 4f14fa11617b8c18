"""The page, served while a test runs."""

import http.client
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from visxp_jax.page.live import LiveIndex
from visxp_jax.page.server import Server

HOSTILE = "<img src=x onerror=alert(1)>'\"&.mkv"
ODD = os.fsdecode(b"caf\xe9 \n2.mp4")  # not UTF-8, two lines
NAMES = ("0.mp4", "1.mov", HOSTILE, ODD, "silent.mp4")


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: http.client.HTTPMessage
    data: bytes

    @property
    def json(self):
        return json.loads(self.data)


class Client:
    """Asks a server."""

    def __init__(self, server: Server) -> None:
        self.server, self.port = server, server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str, *, method: str = "GET", body=None, **headers) -> Answer:
        """One request; underscores of header names stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def search(self, **asked):
        answer = self.ask("/api/search?" + urlencode(asked, doseq=True))
        assert answer.status == 200, answer.data
        return answer.json

    def upload(self, file: Path, at: float = 0, **headers) -> Answer:
        path = "/api/upload?" + urlencode({"name": file.name, "at": at})
        return self.ask(path, method="POST", body=file.read_bytes(), **headers)


@contextmanager
def serving(
    index: Path, workdir: Path | None, folder: Path, host: str = "127.0.0.1"
) -> Iterator[Client]:
    server = Server(LiveIndex(index, workdir), host, 0, folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
