"""Serves one file over HTTP as fast as Python lets the kernel do it: run in a process of its own.

Usage: ``python one_file.py FILE``. Prints its port.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE, Popen

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file: Path

    def do_GET(self) -> None:
        size = self.file.stat().st_size
        start, stop = 0, size
        if wanted := _RANGE.fullmatch(self.headers.get("Range", "")):
            start = int(wanted[1])
            stop = min(int(wanted[2]) + 1 if wanted[2] else size, size)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with self.file.open("rb") as file, suppress(ConnectionError):
            self.connection.sendfile(file, start, stop - start)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


@contextmanager
def file_server(file: Path) -> Generator[str]:
    """Serve a file for as long as the context is open; give its URL."""
    argv = [sys.executable, __file__, str(file)]
    with Popen(argv, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/{file.name}"
        finally:
            process.terminate()


def serve(file: Path) -> None:
    """Serve a file until the process is ended."""
    handler = type("Handler", (_Handler,), {"file": file})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__" and len(sys.argv) > 1:
    serve(Path(sys.argv[1]))
