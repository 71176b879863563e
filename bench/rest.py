"""Requests per second of a small REST call, next to an empty ASGI application on the same server.

Usage: ``python bench/rest.py [--json] [--rounds N] [--seconds S]``. Each application runs in a
process of its own under uvicorn; rounds alternate between them, so that a busy machine is busy for
both. What the machine gives varies; what one request costs the server varies less, so the processor
time of the server is counted too, and ratios are taken of both. Calls go through the in-process
channel and the server's interceptor, with an access log that is written to nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psutil
import uvloop
from google.api import httpbody_pb2
from starlette.types import ASGIApp, Receive, Scope, Send

from localplane.v1 import (
    system_service_pb2,
    system_service_pb2_grpc,
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
)
from localplane_gateway.app import build_app
from localplane_gateway.server import serving
from localplane_gateway.settings import GatewaySettings
from localplane_server.events import Events
from localplane_server.rpc.access import Keys
from localplane_server.rpc.inprocess import InProcessChannel
from localplane_server.rpc.interceptors import CallInterceptor

CONNECTIONS = 16
LENGTH = re.compile(rb"content-length: (\d+)\r\n(?:.+\r\n)*\r\n")
BODY = b'{"model": "smollm2", "content": "The quick brown fox jumps over the lazy dog, then it sleeps a while."}'
CALLS = {
    "get": b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "post": b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
}


class System(system_service_pb2_grpc.SystemServiceServicer):
    """Answers as fast as a method can."""

    async def GetVersion(self, request: Any, context: Any) -> system_service_pb2.GetVersionResponse:  # noqa: N802
        """Answer a constant."""
        return system_service_pb2.GetVersionResponse(version="v0.1.0")

    async def GetSystem(self, request: Any, context: Any) -> system_service_pb2.GetSystemResponse:  # noqa: N802
        """Answer nothing."""
        return system_service_pb2.GetSystemResponse()

    async def Live(self, request: Any, context: Any) -> httpbody_pb2.HttpBody:  # noqa: N802
        """Answer nothing."""
        return httpbody_pb2.HttpBody()

    async def Ready(self, request: Any, context: Any) -> httpbody_pb2.HttpBody:  # noqa: N802
        """Answer nothing."""
        return httpbody_pb2.HttpBody()


class Tokenizer(tokenizer_service_pb2_grpc.TokenizerServiceServicer):
    """Answers as fast as a method can."""

    async def Tokenize(self, request: Any, context: Any) -> tokenizer_service_pb2.TokenizeResponse:  # noqa: N802
        """Answer something of the usual size."""
        return tokenizer_service_pb2.TokenizeResponse(
            tokens=range(1000, 1016), count=16, tokenizer=request.model
        )

    async def Detokenize(  # noqa: N802
        self, request: Any, context: Any
    ) -> tokenizer_service_pb2.DetokenizeResponse:
        """Answer nothing."""
        return tokenizer_service_pb2.DetokenizeResponse()


async def bare(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read a request and answer a constant."""
    while (await receive()).get("more_body"):
        pass
    body = b'{"version":"v0.1.0"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"20")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def gateway() -> ASGIApp:
    """Build the gateway over the in-process channel, as the service does."""
    channel = InProcessChannel(CallInterceptor(Keys({}), Events()))
    add: Any = system_service_pb2_grpc.add_SystemServiceServicer_to_server
    add(System(), channel)  # type: ignore[abstract]  # the rest of it is not called
    add = tokenizer_service_pb2_grpc.add_TokenizerServiceServicer_to_server
    add(Tokenizer(), channel)
    return build_app(channel, GatewaySettings())


async def serve(name: str) -> None:
    """Serve one of the applications until standard input ends."""
    access = logging.getLogger("localplane")
    access.addHandler(logging.NullHandler())
    app = gateway() if name == "gateway" else bare
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(app, [listener], grace_seconds=1):
            print(listener.getsockname()[1], flush=True)
            await asyncio.to_thread(sys.stdin.read)


@contextmanager
def running(name: str) -> Generator[tuple[psutil.Process, int]]:
    """Run one of the applications in a process of its own."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield psutil.Process(process.pid), int(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()


class Caller(asyncio.Protocol):
    """Sends the same request again and again over one connection, and counts the answers."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: Any = None
        self._got = b""
        self._size = 0
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Ask again once an answer is whole. All are as long as the first."""
        self._got += data
        if not self._size and (found := LENGTH.search(self._got)):
            self._size = found.end() + int(found.group(1))
        if not self._size or len(self._got) < self._size:
            return
        self.answers += self._got.startswith(b"HTTP/1.1 200 ")
        self._got = b""
        self._transport.write(self._request)

    def end(self) -> None:
        """Leave."""
        self._transport.abort()


async def load(port: int, request: bytes, seconds: float) -> float:
    """Call for some time and return requests per second."""
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: Caller(request), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    before = sum(caller.answers for caller in callers)
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    answers = sum(caller.answers for caller in callers) - before
    took = time.perf_counter() - began
    for caller in callers:
        caller.end()
    return answers / took


def wrk(port: int, call: str, seconds: float) -> float:
    """Do the same with wrk."""
    script = (
        'wrk.method = "POST"\nwrk.path = "/v1/tokenize"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
        f"wrk.body = {json.dumps(BODY.decode())}\n"
        if call == "post"
        else ""
    )
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", "/dev/stdin"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/version"],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if "Requests/sec" in line)
    return float(line.split()[1])


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """Measure both applications in turn, and compare."""
    tool = "wrk" if shutil.which("wrk") else "asyncio"
    found: dict[str, dict[str, list[tuple[float, float]]]] = {
        call: {"bare": [], "gateway": []} for call in CALLS
    }
    with running("bare") as first, running("gateway") as second:
        apps = {"bare": first, "gateway": second}
        for number in range(rounds + 1):
            for call, request in CALLS.items():
                for name, (process, port) in apps.items():
                    before = sum(process.cpu_times()[:2])
                    began = time.perf_counter()
                    rate = (
                        wrk(port, call, seconds)
                        if tool == "wrk"
                        else uvloop.run(load(port, request, seconds))
                    )
                    took = time.perf_counter() - began
                    spent = sum(process.cpu_times()[:2]) - before
                    if number:  # the first round only warms up
                        found[call][name].append((rate, spent / (rate * took) * 1e6))
    result: dict[str, Any] = {"load": tool, "rounds": rounds, "connections": CONNECTIONS}
    for call, by_name in found.items():
        figures = {
            name: {
                "requests_per_second": round(statistics.median(rate for rate, _ in runs)),
                "cpu_microseconds": round(statistics.median(cpu for _, cpu in runs), 1),
            }
            for name, runs in by_name.items()
        }
        pairs = list(zip(by_name["bare"], by_name["gateway"], strict=True))
        result[call] = figures | {
            "rate_ratio": round(statistics.median(ours[0] / bare[0] for bare, ours in pairs), 2),
            "cpu_ratio": round(statistics.median(bare[1] / ours[1] for bare, ours in pairs), 2),
        }
    return result


def main() -> None:
    """Measure, or be one of the processes measured."""
    parser = argparse.ArgumentParser(description="Measure a small REST call.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one")
    parser.add_argument("--serve", choices=["bare", "gateway"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(arguments.serve))
        return
    result = measure(arguments.rounds, arguments.seconds)
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"load by {result['load']}, {CONNECTIONS} connections, median of {arguments.rounds} rounds"
    )
    for call in CALLS:
        for name in ("bare", "gateway"):
            figures = result[call][name]
            print(
                f"{call:5} {name:8} {figures['requests_per_second']:7} requests/s"
                f" {figures['cpu_microseconds']:7} us of processor time each"
            )
        print(
            f"{call:5} gateway to bare: {result[call]['rate_ratio']} of the requests/s,"
            f" {result[call]['cpu_ratio']} by processor time"
        )


if __name__ == "__main__":
    main()
