"""Watchers that never read cost nothing, and hold up nobody: neither other watchers nor a stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from localplane.v1 import backend_service_pb2, backend_service_pb2_grpc, watch_pb2
from localplane_client import AsyncClient
from localplane_server.app import App, running
from localplane_server.config import Settings
from localplane_server.scheduling.backend_feed import SeenBackend
from localplane_server.scheduling.snapshots import BackendSnapshot, BackendState
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.keeper_handle import start_keeper
from served import Served, served

pytestmark = pytest.mark.faults

STALLED = 20
"""Watchers that never read, over each interface."""
CHANGES = 1000
TEXT_BYTES = 20_000
"""Of each change: what would pile up is 20 MB for each of them."""
MOST_MEGABYTES = 100
LONGEST_SECONDS = 1.0
"""From a change to those who read, on a busy machine."""
GRACE_SECONDS = 30.0


def seen(model: str, number: int) -> SeenBackend:
    snapshot = BackendSnapshot(
        model=model,
        backend="fake",
        state=BackendState.FAILED,
        pid=None,
        in_flight=0,
        last_error=f"{number} " + "x" * TEXT_BYTES,
        restarts=number,
        loaded_at=None,
        last_used=None,
    )
    return SeenBackend(snapshot=snapshot, sample=None)


@contextlib.asynccontextmanager
async def service(folder: Path) -> AsyncGenerator[App]:
    anywhere = Endpoint("127.0.0.1", 0)
    settings = Settings(
        data_dir=folder,
        grpc_listen=anywhere,
        http_listen=anywhere,
        shutdown_grace=GRACE_SECONDS,
    )
    async with running(settings, start_keeper()) as app:
        yield app


async def stalled_over_http(app: App) -> socket.socket:
    """Ask for a watch, read a piece of the headers, and nothing more."""
    loop = asyncio.get_running_loop()
    one = socket.socket()
    one.setblocking(False)  # noqa: FBT003 - its name has no place for one
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(one, (app.http.host, app.http.port))
    await loop.sock_sendall(one, b"GET /api/backends/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"HTTP/1.1 200" == await loop.sock_recv(one, 12)
    return one


def resident() -> int:
    size: int = psutil.Process().memory_info().rss
    return size


class Clients:
    """Many who watch and never read, and two who do."""

    def __init__(self, app: App, stack: contextlib.AsyncExitStack) -> None:
        self._app = app
        self._stack = stack
        self._held: list[Any] = []

    async def connect(self) -> None:
        """Begin to watch."""
        app, stack = self._app, self._stack
        for _ in range(STALLED):
            self._held.append(stack.enter_context(await stalled_over_http(app)))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(str(app.grpc)))
        stub: Any = backend_service_pb2_grpc.BackendServiceStub(channel)
        for _ in range(STALLED):
            call = stub.WatchBackends(backend_service_pb2.WatchBackendsRequest())
            await call.read()
            self._held.append(call)
        client = await stack.enter_async_context(AsyncClient(str(app.grpc)))
        self._messages = client.watch_backends()
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{app.http}"))
        accept = {"accept": "application/x-ndjson"}
        watch = http.stream("GET", "/api/backends/watch", headers=accept, timeout=30)
        self._lines = (await stack.enter_async_context(watch)).aiter_lines()
        await self.read()

    async def read(self) -> tuple[int, int]:
        """Return what those who read are told next, over gRPC and over REST."""
        message = await anext(self._messages)
        line = json.loads(await anext(self._lines))
        return (
            message.backends[0].restarts if message.backends else -1,
            line["backends"][0]["restarts"] if line["backends"] else -1,
        )


async def test_never_reading(tmp_path: Path) -> None:
    """Memory stays where it is, every change reaches those who read at once, and a stop takes no grace period."""
    longest = 0.0
    before = 0
    # What the clients hold is let go after the service has ended, which has to do so without their help.
    async with contextlib.AsyncExitStack() as stack:
        async with service(tmp_path / "data") as app:
            clients = Clients(app, stack)
            await clients.connect()
            assert 2 * STALLED + 2 == app.backends.watchers
            for number in range(CHANGES):
                if number == CHANGES // 10:  # what buffers hold is there by now
                    before = resident()
                began = time.perf_counter()
                app.backends.put(f"m{number % 10}", seen(f"m{number % 10}", number))
                assert (number, number) == await clients.read()
                longest = max(longest, time.perf_counter() - began)
            grown = (resident() - before) / 2**20
            began = time.monotonic()
        took = time.monotonic() - began

    assert grown < MOST_MEGABYTES
    assert longest < LONGEST_SECONDS
    assert took < GRACE_SECONDS / 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_restart(folder: Path) -> None:
    """Who goes on after the service was killed and started again gets everything anew, and is told so."""
    with served(folder=folder) as first:
        place = await begun(first)
    with served(folder=folder) as second, contextlib.suppress(asyncio.CancelledError):
        async with (
            AsyncClient(second.grpc) as client,
            client.watch_backends(after_revision=place) as messages,
        ):
            message = await anext(messages)

    assert watch_pb2.WATCH_KIND_RESYNC == message.kind
    assert place.partition("-")[0] != message.revision.partition("-")[0]


async def begun(service: Served) -> str:
    async with AsyncClient(service.grpc) as client, client.watch_backends() as messages:
        revision: str = (await anext(messages)).revision
    return revision


async def test_watchers_of_health_do_not_hold_up_each_other(folder: Path) -> None:
    """One that does not read its connection keeps no other from hearing that the service stops."""
    with served(folder=folder) as service:
        host, port = service.grpc.split(":")
        silent = await asyncio.open_connection(host, int(port))
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]
            first = [(await watch.read()).status for watch in watches]
            service.process.terminate()
            last = [(await watch.read()).status for watch in watches[10:]]
            code = await asyncio.to_thread(service.process.wait, 30)
        silent[1].close()

    assert {health_pb2.HealthCheckResponse.SERVING} == set(first)
    assert {health_pb2.HealthCheckResponse.NOT_SERVING} == set(last)
    assert 0 == code
