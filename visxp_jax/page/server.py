"""The page, served on this machine.

It opens no file that is not of the index, by the number of a clip; what is sent to it
is read by worker processes with limits, and forgotten.
"""

import ipaddress
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from data_prep.pool import num_cores
from visxp_jax.errors import VisxpError
from visxp_jax.page import answers
from visxp_jax.page.answers import Missing, Upload
from visxp_jax.page.clips import Clips
from visxp_jax.page.live import LiveIndex, Now
from visxp_jax.page.markup import SERVED, served_page, strict
from visxp_jax.page.places import BUSY, WAIT_S, Busy, taken
from visxp_jax.page.tree import hierarchy_page
from visxp_jax.report.markup import OFFLINE
from visxp_jax.search.finder import across_by
from visxp_jax.search.isolated import ExampleTask, example_of, isolated
from visxp_jax.weights import Trained

MAX_UPLOAD_BYTES = 512 * 2**20
MAX_UPLOADS = 64  # vectors that are kept, so that one can go back to them
MAX_ARRIVING = 4  # files at once, each of which is on the disk until it is read
MAX_CONNECTIONS = 64  # each is a thread; a browser has up to six
CHUNK_BYTES = 2**20
SILENCE_S = 30.0  # of a client, after which its connection is closed
LINGER_S = 10.0  # what comes of a file that is refused is dropped for so long
NOTHING = "default-src 'none'; frame-ancestors 'none'"


class Refused(VisxpError):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        """Say why, with the status that goes with it."""
        super().__init__(why)
        self.status = status


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Server(ThreadingHTTPServer):
    """Serves one index."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, live: LiveIndex, host: str, port: int, folder: Path) -> None:
        """Listen, on loopback for those who name it so.

        Args:
            live: The index.
            host: Name or address to listen on.
            port: 0 for any that is free.
            folder: For files that are on their way.

        Raises:
            OSError: it cannot listen there.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.live = live
        self.folder = folder
        self.local = is_loopback(host)
        self.workers = threading.Semaphore(num_cores())
        self.arriving = threading.Semaphore(MAX_ARRIVING)
        self._connections = threading.Semaphore(MAX_CONNECTIONS)
        self.clips = Clips(folder, self.workers)
        self.uploads: OrderedDict[str, Upload] = OrderedDict()
        name = os.path.basename(os.path.abspath(live.path))
        self.page = served_page(f"Search in {name}")
        super().__init__((host, port), Handler)
        names = (host, self.server_name, socket.gethostname())
        self._names = {name.lower() for name in names}

    def answers_to(self, name: str) -> bool:
        """Whether a request may call this machine so.

        The name of a foreign site can be made to lead here, and its scripts then ask
        for what they should not see (DNS rebinding); they do so under that name. An
        address leads nowhere else, and of names only those count that are our own.
        """
        if self.local or is_loopback(name):
            return is_loopback(name)
        return name in self._names or _is_address(name)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection more, if there are not too many."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        data = json.dumps({"error": BUSY})
        answer = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n{data}"
        )
        with suppress(OSError):
            request.sendall(answer.encode())
            # What is left unread would take the answer back.
            request.recv(CHUNK_BYTES, socket.MSG_DONTWAIT)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve it to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up is no error; of others a line."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    """Answers one request after the other of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "visxp", ""
    timeout = SILENCE_S

    def do_GET(self) -> None:
        """Pages, answers, pictures and clips."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """A file to search by."""
        self._received = 0
        self._guarded(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def _guarded(self, action: Any) -> None:
        try:
            self._check_asker()
            action()
        except Refused as error:
            self._say(error.status, str(error))
        except Missing as error:
            self._say(HTTPStatus.NOT_FOUND, str(error))
        except Busy as error:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except VisxpError as error:
            self._say(HTTPStatus.BAD_REQUEST, str(error))

    def _check_asker(self) -> None:
        """Other sites that this browser shows may not ask, nor pose as this one.

        Raises:
            Refused: it is one.
        """
        host = self.headers.get("Host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if not self.server.answers_to(name):
            why = "this page answers to names of this machine only"
            why += "" if self.server.local else "; start it with --host=NAME for others"
            raise Refused(HTTPStatus.FORBIDDEN, f"{why}.")
        origin, site = (self.headers.get(x) for x in ("Origin", "Sec-Fetch-Site"))
        # To open the page by a link from elsewhere is fine, to use it is not.
        opened = self.command == "GET" and self._asked()[0] == "/"
        foreign = site not in (None, "same-origin", "none") and not opened
        if foreign or origin not in (None, f"http://{host}"):
            raise Refused(HTTPStatus.FORBIDDEN, "other sites may not use this page.")

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        """The path of the request, and what it asks."""
        path, _, query = self.path.partition("?")
        return path, parse_qs(query, keep_blank_values=True, errors="replace")

    def _get(self) -> None:
        path, asked = self._asked()
        kind, _, rest = path.removeprefix("/").partition("/")
        if path == "/":
            self._page(self.server.page, SERVED)
            return
        now = self.server.live.now()
        if path == "/api/about":
            self._json(HTTPStatus.OK, self._about(now))
        elif path == "/api/search":
            self._json(HTTPStatus.OK, answers.answer(now, asked, self._uploads(now)))
        elif path == "/hierarchy":
            row = self._row(now, "".join(asked.get("row", [])[-1:]), asked)
            self._page(hierarchy_page(now, row), OFFLINE)
        elif kind in ("thumbnail", "clip"):
            row = self._row(now, rest, asked)
            if kind == "thumbnail":
                jpeg = now.searcher.thumbnail(row)
                if not jpeg:
                    raise Missing("this clip has no picture.")
                self._send(HTTPStatus.OK, "image/jpeg", jpeg, keep="index" in asked)
            else:
                self._media(self.server.clips.mp4(now.searcher.clip(row)))
        else:
            raise Missing("there is nothing here.")

    def _uploads(self, now: Now) -> dict[str, Upload]:
        """None while the index is of another model than the one they went through."""
        return dict(self.server.uploads) if now.trained else {}

    def _about(self, now: Now) -> dict[str, Any]:
        trained = now.trained
        across = across_by(trained.heads) if trained else None
        found = answers.about(now, model=trained is not None, across=across)
        return found | {"limit": MAX_UPLOAD_BYTES}

    def _row(self, now: Now, text: str, asked: dict[str, list[str]]) -> int:
        """A clip by its number, if that is still the same clip.

        Raises:
            Refused: the index has changed since.
            Missing: there is none.
        """
        if asked.get("index", [now.stamp])[-1] != now.stamp:
            raise Refused(
                HTTPStatus.CONFLICT, "the collection has changed; reload this page."
            )
        if not re.fullmatch("[0-9]{1,12}", text) or int(text) >= len(now.searcher):
            raise Missing("the index has no such clip.")
        return int(text)

    def _post(self) -> None:
        path, asked = self._asked()
        if path != "/api/upload":
            raise Missing("there is nothing here.")
        trained = self.server.live.now().trained
        if trained is None:
            raise VisxpError("a file from elsewhere needs the model: --workdir.")
        with taken(self.server.arriving):
            self._take(trained, asked)

    def _take(self, trained: Trained, asked: dict[str, list[str]]) -> None:
        """Read a file to search by, and keep what can be seen and heard in it."""
        name = "".join(asked.get("name", [])[-1:])[-255:]
        at_s = answers.number("".join(asked.get("at", ["0"])[-1:]))
        size = self._length()
        file = self.server.folder / f"{secrets.token_hex(8)}{_ending(name)}"
        try:
            self._receive(file, size)
            encoder = trained.encoder
            task = ExampleTask(file, at_s, encoder.size_px, encoder.spectrogram)
            with taken(self.server.workers, WAIT_S):
                example = isolated(example_of, task)
        finally:
            file.unlink(missing_ok=True)
        upload = Upload(name, at_s, self.server.live.vectors_of(trained, example))
        key = secrets.token_urlsafe(9)
        self.server.uploads[key] = upload
        while len(self.server.uploads) > MAX_UPLOADS:
            self.server.uploads.popitem(last=False)
        self._json(HTTPStatus.OK, answers.upload_json(key, upload))

    def _length(self) -> int:
        text = self.headers.get("Content-Length", "")
        in_pieces = "Transfer-Encoding" in self.headers
        if in_pieces or not re.fullmatch("[0-9]{1,18}", text):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the length must be told.")
        if int(text) > MAX_UPLOAD_BYTES:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a file must have at most {MAX_UPLOAD_BYTES // 2**20} MB, "
                f"got {int(text) // 2**20} MB.",
            )
        return int(text)

    def _receive(self, path: Path, size: int) -> None:
        try:
            with path.open("wb") as file:
                while size:
                    data = self.rfile.read(min(size, CHUNK_BYTES))
                    if not data:
                        raise VisxpError("the file did not arrive whole.")
                    self._received += len(data)
                    file.write(data)
                    size -= len(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise Refused(
                HTTPStatus.INSUFFICIENT_STORAGE, f"no place for it: {error.strerror}."
            ) from error

    def _say(self, status: HTTPStatus, why: str) -> None:
        # What is left of the request is not used.
        self.close_connection = True
        self._json(status, {"error": why})
        if self.command == "POST":
            self._drop_rest()

    def _drop_rest(self) -> None:
        """Who is cut off while still sending would not see the answer."""
        until = time.monotonic() + LINGER_S
        text = self.headers.get("Content-Length", "")
        left = int(text) - self._received if re.fullmatch("[0-9]{1,18}", text) else 0
        while left > 0 and time.monotonic() < until:
            data = self.rfile.read1(min(left, CHUNK_BYTES))
            left = left - len(data) if data else 0

    def _json(self, status: HTTPStatus, value: Any) -> None:
        data = json.dumps(value, allow_nan=False).encode()
        self._send(status, "application/json", data)

    def _page(self, page: str, policy: str) -> None:
        data, policy = page.encode(), strict(page, policy)
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", data, policy=policy)

    def _media(self, data: bytes) -> None:
        """A clip, or the part of it that is asked for."""
        found = re.fullmatch("bytes=([0-9]{1,12})-([0-9]{0,12})", self._range())
        if not found or int(found[1]) >= len(data):
            self._send(HTTPStatus.OK, "video/mp4", data, keep=True)
            return
        first = int(found[1])
        last = min(int(found[2] or len(data)), len(data) - 1)
        part = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self._send(
            HTTPStatus.PARTIAL_CONTENT,
            "video/mp4",
            data[first : last + 1],
            keep=True,
            headers=part,
        )

    def _range(self) -> str:
        return self.headers.get("Range", "")

    def _send(
        self,
        status: HTTPStatus,
        kind: str,
        data: bytes,
        *,
        policy: str = NOTHING,
        keep: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        every = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "same-origin",
            "Cache-Control": "private, max-age=3600" if keep else "no-store",
            **({"Accept-Ranges": "bytes"} if kind == "video/mp4" else {}),
            **({"Connection": "close"} if self.close_connection else {}),
            **(headers or {}),
        }
        for name, value in every.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _ending(name: str) -> str:
    """Of a file name that a client sends: letters and digits, or nothing."""
    found = re.search(r"\.[A-Za-z0-9]{1,8}$", name)
    return found[0].lower() if found else ""
