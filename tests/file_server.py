"""A web server on loopback with files to download, which fails in whatever way it is told to."""

from __future__ import annotations

import hashlib
import re
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PIECE_BYTES = 64 * 1024
"""What is sent at once."""

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one answer. Without any values: nothing."""

    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    stall_after: int | None = None
    """Send no more after so many bytes of the body, until the server is told to go on."""
    status: int | None = None
    """Answer this instead."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """And these headers."""
    body: bytes = b""
    """And this."""


@dataclass(slots=True)
class ServedFile:
    """A file, and how it is served."""

    content: bytes
    """All of it."""
    etag: str = ""
    """Its tag, with quotes. Empty for none."""
    last_modified: str = ""
    """Its date. Empty for none."""
    kind: str = "application/octet-stream"
    """Its content type. Empty for none."""
    has_ranges: bool = True
    """Whether parts of it can be had."""
    has_length: bool = True
    """Whether its size is told; if not, the end of the connection is its end."""
    has_head: bool = True
    """Whether HEAD is known."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers."""
    faults: deque[Fault] = field(default_factory=deque)
    """What goes wrong with the next answers, one after the other."""
    key: str = ""
    """What the `Authorization` header must be. Empty when nobody asks."""

    @property
    def sha256(self) -> str:
        """Its digest."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(slots=True)
class Asked:
    """A request, and how much of a body it got."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By names in lower case."""
    start: int = 0
    """Place in the file of the first byte of the body."""
    sent: int = 0
    """How many bytes of the file were sent."""


Route = Callable[[Asked], tuple[int, Mapping[str, str], bytes]]


class FileServer:
    """Files by path, routes by prefix, and all requests that came."""

    def __init__(self, port: int, scheme: str = "http") -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.files: dict[str, ServedFile] = {}
        self.routes: dict[str, Route] = {}
        """What else answers, by the beginning of the path."""
        self.asked: list[Asked] = []
        """Requests in the order in which they came."""
        self.go_on = threading.Event()
        """Ends all stalls."""
        self.changed = threading.Condition()
        """Guards and tells of what was sent."""
        self.sent = 0
        """How many bytes of files were sent in all."""
        self.sending = 0
        """How many bodies are being sent."""
        self.budget: int | None = None
        """How many may be sent in all before everything waits."""
        self.connections = 0
        """How many were made."""
        self.is_over = False

    def put(self, path: str, content: bytes, **how: Any) -> ServedFile:
        """Serve a file."""
        served = self.files[path] = ServedFile(content, **how)
        return served

    def redirect(self, path: str, target: str, **headers: str) -> None:
        """Send whoever asks for a path elsewhere."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        self.routes[path] = lambda _asked: (302, {"Location": target, **told}, b"")

    def fetched(self, path: str) -> list[Asked]:
        """Return the requests for the body of one file."""
        return [one for one in self.asked if one.path == path and one.method == "GET"]

    def allow(self, budget: int | None) -> None:
        """Let so many bytes be sent in all, or any number."""
        with self.changed:
            self.budget = budget
            self.changed.notify_all()

    def wait_for(self, sent: int, seconds: float = 30.0) -> None:
        """Return once so many bytes were sent in all."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.sent >= sent, seconds), self.sent

    def wait_until_asked(self, times: int, seconds: float = 30.0) -> None:
        """Return once so many requests have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= times, seconds)

    def wait_until_idle(self, seconds: float = 30.0) -> None:
        """Return once no body is being sent: whoever asked has it, or is gone."""
        with self.changed:
            assert self.changed.wait_for(lambda: not self.sending, seconds)

    def _may_send(self, size: int) -> bool:
        return self.budget is None or self.sent + size <= self.budget

    def answer(self, handler: _Handler) -> None:
        """Answer one request."""
        path = urlsplit(handler.path).path
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(handler.command, path, headers)
        with self.changed:
            self.asked.append(asked)
            self.changed.notify_all()
        if (served := self.files.get(path)) is not None:
            self._answer_file(handler, asked, served)
            return
        for prefix in sorted(self.routes, key=len, reverse=True):
            if path.startswith(prefix):
                status, told, body = self.routes[prefix](
                    Asked(handler.command, handler.path, headers)
                )
                handler.give(status, {**told, "Content-Length": str(len(body))}, body)
                return
        handler.give(404, {"Content-Length": "9"}, b"not found")

    def _answer_file(self, handler: _Handler, asked: Asked, served: ServedFile) -> None:
        fault = Fault()
        if handler.command == "GET" and served.faults:
            fault = served.faults.popleft()
        if fault.status is not None:
            told = {"Content-Length": str(len(fault.body)), **fault.headers}
            handler.give(fault.status, told, fault.body)
            return
        if served.key and asked.headers.get("authorization") != served.key:
            handler.give(401, {"Content-Length": "0"}, b"")
            return
        if handler.command == "HEAD" and not served.has_head:
            handler.give(405, {"Content-Length": "0"}, b"")
            return
        status, start, stop = _part(asked, served)
        told = dict(served.headers)
        if served.etag:
            told["ETag"] = served.etag
        if served.last_modified:
            told["Last-Modified"] = served.last_modified
        if served.kind:
            told["Content-Type"] = served.kind
        size = len(served.content)
        if status == 304:
            handler.give(304, told, b"")
            return
        if status == 416:
            handler.give(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"}, b"")
            return
        if status == 206:
            told["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        if served.has_length:
            told["Content-Length"] = str(stop - start)
        else:
            told["Connection"] = "close"
        asked.start = start
        handler.give(status, told, b"")
        if handler.command == "GET":
            with self.changed:
                self.sending += 1
            try:
                self._send(handler, asked, memoryview(served.content)[start:stop], fault)
            finally:
                with self.changed:
                    self.sending -= 1
                    self.changed.notify_all()
        if not served.has_length:
            handler.close_connection = True

    def _send(self, handler: _Handler, asked: Asked, body: memoryview, fault: Fault) -> None:
        at = 0
        while at < len(body):
            end = at + PIECE_BYTES
            for limit in (fault.cut_after, fault.stall_after):
                if limit is not None and at < limit:
                    end = min(end, limit)
            if at == fault.cut_after:
                handler.close_connection = True
                return
            if at == fault.stall_after:
                self.go_on.wait()
            piece = body[at:end]
            with self.changed:
                while not (self.is_over or self._may_send(len(piece))):
                    self.changed.wait(0.05)
                    if handler.is_alone():
                        break
                if self.is_over or not self._may_send(len(piece)):
                    handler.close_connection = True
                    return
                self.sent += len(piece)
                asked.sent += len(piece)
                self.changed.notify_all()
            handler.wfile.write(piece)
            at += len(piece)


def _part(asked: Asked, served: ServedFile) -> tuple[int, int, int]:
    """Return the status of an answer, and which bytes of the file it has."""
    size = len(served.content)
    if served.etag and asked.headers.get("if-none-match") == served.etag:
        return 304, 0, 0
    wanted = _RANGE.fullmatch(asked.headers.get("range", ""))
    condition = asked.headers.get("if-range")
    is_same = condition is None or condition in (served.etag, served.last_modified)
    if not served.has_ranges or wanted is None or not is_same:
        return 200, 0, size
    start = int(wanted[1])
    stop = min(int(wanted[2]) + 1 if wanted[2] else size, size)
    if start >= size:
        return 416, 0, 0
    return 206, start, stop


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer
    timeout = 60

    def setup(self) -> None:
        super().setup()
        self.files.connections += 1
        # What was sent and not yet taken is not much, so that it can be told what a client has.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)

    def do_GET(self) -> None:
        with suppress(ConnectionError):
            self.files.answer(self)

    do_HEAD = do_GET  # noqa: N815 - its name there

    def give(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send the head of an answer, and its body if it is known."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def is_alone(self) -> bool:
        """Whether the client has gone."""
        # Not a plain `recv`: with a timeout set, Python waits for it whatever the flags are.
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def handle(self) -> None:
        # A client that goes away, or is killed, is nothing to complain about.
        with suppress(ConnectionError, TimeoutError):
            super().handle()

    def finish(self) -> None:
        with suppress(ConnectionError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[_Handler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End connections that clients keep open."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Generator[FileServer]:
    """Serve nothing yet on a free port for as long as the context is open."""
    handler: Any = type("Handler", (_Handler,), {})
    with _Server(handler) as server:
        if tls is not None:
            # Each connection greets in its own thread.
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if tls is None else "https"
        files = handler.files = FileServer(server.server_address[1], scheme)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield files
        finally:
            with files.changed:
                files.is_over = True
                files.changed.notify_all()
            files.go_on.set()
            server.shutdown()
            thread.join()
            server.hang_up()
