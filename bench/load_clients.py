"""Clients that keep a server busy for a while: written in C where they are on PATH, else in Python.

A client in Python needs more of the processor than the servers that it asks, so it shows the
processor time of a server and not how many calls that server could answer.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop
from programs import Server

CONNECTIONS = 8
STREAMS = 4
"""Calls in flight on each connection of gRPC."""

_H2LOAD = re.compile(r"finished in [^,]+, ([\d.]+) req/s.*requests: .* (\d+) succeeded", re.DOTALL)
_WRK = re.compile(r"Requests/sec:\s*([\d.]+)")
_WRK_COUNT = re.compile(r"(\d+) requests in")
_WRK_ERRORS = re.compile(r"Non-2xx|Socket errors")
_LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one round of calls took."""

    per_second: float
    """Calls answered in a second."""

    cpu_microseconds: float
    """Processor time of the server for each call."""


def has_fast_grpc_client() -> bool:
    """Whether calls of gRPC come from a client that is faster than any server of ours."""
    return shutil.which("h2load") is not None


def has_fast_http_client() -> bool:
    """Whether requests of HTTP come from a client that is faster than any server of ours."""
    return shutil.which("wrk") is not None


def load_grpc(server: Server, method: str, request: bytes, *, calls: int) -> Load:
    """Call a unary method many times."""
    if has_fast_grpc_client():
        return _measured(server, lambda: _h2load(server.grpc, method, request, calls))
    return _measured(server, lambda: _run(_call_often(server.grpc, method, request, calls), calls))


def load_http(server: Server, path: str, body: bytes = b"", *, seconds: float) -> Load:
    """Ask for something as often as possible: GET, or POST where there is a body."""
    if has_fast_http_client():
        return _measured(server, lambda: _wrk(server.http, path, body, seconds))
    request = _http_request(path, body)
    return _measured(server, lambda: uvloop.run(_ask_often(server.http, request, seconds)))


def _measured(server: Server, work: Callable[[], tuple[float, int]]) -> Load:
    before = server.cpu_seconds
    per_second, count = work()
    taken = server.cpu_seconds - before
    return Load(per_second=per_second, cpu_microseconds=taken / count * 1e6)


def _h2load(address: str, method: str, request: bytes, calls: int) -> tuple[float, int]:
    with tempfile.NamedTemporaryFile() as body:
        # A message of gRPC: not compressed, its length, itself.
        body.write(b"\0" + len(request).to_bytes(4, "big") + request)
        body.flush()
        argv = ["h2load", "-n", str(calls), "-c", str(CONNECTIONS), "-m", str(STREAMS), "-t", "1"]
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        output = _output([*argv, *headers, "-d", body.name, f"http://{address}{method}"])
    found = _H2LOAD.search(output)
    if found is None or int(found[2]) != calls:
        raise RuntimeError(f"not every call succeeded: {output}")
    return float(found[1]), calls


def _wrk(address: str, path: str, body: bytes, seconds: float) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "post.lua")
        lines = [
            'wrk.method = "POST"',
            'wrk.headers["Content-Type"] = "application/json"',
            f"wrk.body = [[{body.decode()}]]",
        ]
        script.write_text("\n".join(lines) if body else "")
        duration = f"{max(1, round(seconds))}s"
        argv = ["wrk", "-t", "1", "-c", str(2 * CONNECTIONS), "-d", duration, "-s", str(script)]
        output = _output([*argv, f"http://{address}{path}"])
    rate, count = _WRK.search(output), _WRK_COUNT.search(output)
    if rate is None or count is None or _WRK_ERRORS.search(output):
        raise RuntimeError(f"not every request succeeded: {output}")
    return float(rate[1]), int(count[1])


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _run(work: Any, calls: int) -> tuple[float, int]:
    began = time.perf_counter()
    uvloop.run(work)
    return calls / (time.perf_counter() - began), calls


async def _call_often(address: str, method: str, request: bytes, calls: int) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(method)  # bytes go and come as they are
        await call(request)

        async def call_in_turn() -> None:
            for _ in range(calls // (CONNECTIONS * STREAMS)):
                await call(request)

        await asyncio.gather(*(call_in_turn() for _ in range(CONNECTIONS * STREAMS)))


def _http_request(path: str, body: bytes) -> bytes:
    verb = "POST" if body else "GET"
    kind = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    return f"{verb} {path} HTTP/1.1\r\nhost: localhost\r\n{kind}\r\n".encode() + body


class _Asker(asyncio.Protocol):
    """Sends one request after the other over one connection."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._left = b""
        self._missing = 0
        self.count = 0
        """Answers so far."""

    def connection_made(self, transport: Any) -> None:
        # uvloop's is none of asyncio's, by its bases.
        self.transport = transport
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing:  # of a large body, which is not kept
            self._missing -= len(data)
        else:
            self._left += data
            head, separator, body = self._left.partition(b"\r\n\r\n")
            length = _LENGTH.search(head + b"\r\n")
            if not separator or length is None:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"a request failed: {head.decode(errors='replace')}")
            self._left = b""
            self._missing = int(length[1]) - len(body)
        if self._missing:
            return
        self.count += 1
        self.transport.write(self._request)


async def _ask_often(address: str, request: bytes, seconds: float) -> tuple[float, int]:
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    askers = [
        (await loop.create_connection(lambda: _Asker(request), host, int(port)))[1]
        for _ in range(2 * CONNECTIONS)
    ]
    await asyncio.sleep(seconds)
    for asker in askers:
        asker.transport.abort()
    count = sum(asker.count for asker in askers)
    return count / (time.perf_counter() - began), count
