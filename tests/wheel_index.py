"""A package index on loopback, with real wheels in it, for pip to find."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def build_wheel(package: str, version: str, members: Mapping[str, bytes]) -> bytes:
    """Return a wheel that pip accepts, with some files in it."""
    information = f"{package.replace('-', '_')}-{version}.dist-info"
    everything = {
        **members,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        "Requires-Dist: a-package-that-is-nowhere\n".encode(),
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*everything, f"{information}/RECORD"])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in {**everything, f"{information}/RECORD": record.encode()}.items():
            # Dated by itself, not by the clock: the same content is the same wheel.
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return content.getvalue()


class WheelIndex:
    """The simple index of one wheel, as pip reads it."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}/simple/"
        self.requests: list[str] = []
        """Paths that were asked for."""
        self.has_stalled = threading.Event()
        """Set once half of a wheel was sent and the other half is withheld."""
        self.resume = threading.Event()
        """Set to let a stalled answer end."""
        self._package = ""
        self._file = ""
        self._wheel = b""
        self._sha256 = ""
        self._is_stalling = False

    def offer(
        self,
        package: str,
        version: str,
        wheel: bytes,
        *,
        sha256: str | None = None,
        is_stalling: bool = False,
    ) -> None:
        """Offer a wheel, perhaps under a false hash, perhaps without ever sending its end."""
        self._package = package
        self._file = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        self._wheel = wheel
        self._sha256 = sha256 or hashlib.sha256(wheel).hexdigest()
        self._is_stalling = is_stalling

    def configure_pip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this the only place where pip looks, whatever this machine's settings are."""
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", self.url)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        monkeypatch.setenv("PIP_RETRIES", "0")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.requests.append(request.path)
        if request.path == f"/simple/{self._package}/":
            link = f'<a href="/files/{self._file}#sha256={self._sha256}">{self._file}</a>'
            self._send(request, "text/html", f"<!DOCTYPE html><html>{link}</html>".encode())
        elif request.path == f"/files/{self._file}":
            self._send(request, "application/octet-stream", self._wheel)
        else:
            request.send_error(404)

    def _send(self, request: BaseHTTPRequestHandler, content_type: str, body: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self._is_stalling and body is self._wheel:
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            self.has_stalled.set()
            self.resume.wait()
            return
        request.wfile.write(body)


@contextmanager
def serving() -> Generator[WheelIndex]:
    """Serve an empty index on a free port for as long as the context is open."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = WheelIndex(server)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield index
        finally:
            index.resume.set()
            server.shutdown()
            thread.join()
