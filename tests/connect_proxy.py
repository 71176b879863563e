"""A proxy on loopback that makes tunnels, as proxies of companies do, and a certificate for whoever is behind it."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_PIECE_BYTES = 64 * 1024


@dataclass(slots=True)
class Tunnel:
    """What the proxy was asked for."""

    target: str
    """Host and port, as they were asked for."""
    authorization: str
    """The key for the proxy. Empty for none."""


class ConnectProxy:
    """Makes tunnels to where it was told a name leads, and notes who asked for what."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.routes: dict[str, tuple[str, int]] = {}
        """Where the hosts are that it lets through, by what is asked for."""
        self.asked: list[Tunnel] = []
        """What it was asked for, in order."""
        self.others: list[str] = []
        """Requests that were for no tunnel."""
        self.first_bytes: list[bytes] = []
        """The first that came through each tunnel."""
        self.cut_after: list[int] = []
        """After how many bytes from the server the next tunnels break, one after the other."""

    def targets(self) -> list[str]:
        """Return what it was asked for."""
        return [one.target for one in self.asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ConnectProxy
    timeout = 60

    def do_CONNECT(self) -> None:
        self.close_connection = True
        proxy = self.proxy
        proxy.asked.append(Tunnel(self.path, self.headers.get("Proxy-Authorization", "")))
        target = proxy.routes.get(self.path)
        if target is None:
            self.send_error(403)
            return
        cut_after = proxy.cut_after.pop(0) if proxy.cut_after else None
        with socket.create_connection(target) as server:
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                self._pass_on(server, cut_after)

    def do_GET(self) -> None:
        self.proxy.others.append(self.path)
        self.send_error(405)

    do_HEAD = do_GET  # noqa: N815 - its name there

    def _pass_on(self, server: socket.socket, cut_after: int | None) -> None:
        client = self.connection
        is_first, passed = True, 0
        while True:
            for one in select.select([client, server], [], [], 60)[0]:
                piece = one.recv(_PIECE_BYTES)
                if not piece:
                    return
                if one is client and is_first:
                    is_first = False
                    self.proxy.first_bytes.append(piece)
                if one is server:
                    passed += len(piece)
                    if cut_after is not None and passed > cut_after:
                        return
                (server if one is client else client).sendall(piece)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""

    def handle(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def proxying() -> Generator[ConnectProxy]:
    """Have a proxy on a free port for as long as the context is open."""
    handler: Any = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        handler.proxy = ConnectProxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield handler.proxy
        finally:
            server.shutdown()
            thread.join()


def certify(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for a name; return it, and what a server with it speaks."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-keyout", str(key), "-out", str(certificate)),
            *("-subj", "/CN=test", "-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return certificate, tls
