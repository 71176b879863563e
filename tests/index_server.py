"""A web server with indexes of galleries, and with what can go wrong with one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True)
class Page:
    """What is at a path."""

    content: bytes
    etag: str = ""
    status: int = 200
    location: str = ""
    is_open: threading.Event = field(default_factory=threading.Event)
    """The answer waits for this."""


class IndexServer:
    """Serves pages by their paths, and knows who asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, Message]] = []

    def put(
        self, path: str, content: bytes | str, *, etag: str = "", status: int = 200, **more: Any
    ) -> str:
        """Put a page somewhere and return its URL."""
        data = content.encode() if isinstance(content, str) else content
        page = self.pages[path] = Page(data, etag, status, **more)
        page.is_open.set()
        return f"{self.url}{path}"

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for path, _ in self.asked]


@contextmanager
def index_server() -> Iterator[IndexServer]:
    """Serve on loopback for as long as the context is open."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append((self.path, self.headers))
            page = served.pages.get(self.path, Page(b"not here", status=404))
            if page.status != 404:
                page.is_open.wait(60)
            is_known = bool(page.etag) and self.headers.get("if-none-match") == page.etag
            self.send_response(304 if is_known else page.status)
            if page.etag:
                self.send_header("etag", page.etag)
            if page.location:
                self.send_header("location", page.location)
            if not is_known:
                self.send_header("content-length", str(len(page.content)))
            self.end_headers()
            if not is_known:
                self.wfile.write(page.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = IndexServer(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            for page in served.pages.values():
                page.is_open.set()
            server.shutdown()
            thread.join()
