"""Clients that go away in the middle of a stream harm nobody."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from localplane.v1 import inference_service_pb2, inference_service_pb2_grpc
from served import Served, served, wait_until

pytestmark = pytest.mark.faults

ROUNDS = 40


@pytest.fixture
def service(tmp_path: Path, tiny_gguf: Path) -> Iterator[Served]:
    """A service with one loaded model."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    with served("--shutdown-grace", "4s", folder=tmp_path / "data") as service:
        service.load("tiny.gguf")
        yield service


def descriptors(service: Served) -> int:
    return psutil.Process(service.process.pid).num_fds()


def in_flight(service: Served) -> int:
    (backend,) = service.get("/api/backends").json()["backends"]
    return int(backend["in_flight"])


async def test_grpc_clients_hang_up(service: Served) -> None:
    """Connections that close while the server writes to them: it lives on, idle, with nothing left open."""
    before = descriptors(service)
    request = inference_service_pb2.CompleteRequest(model="tiny.gguf", prompt=["x"], max_tokens=400)
    for number in range(ROUNDS):
        # Each round a connection of its own.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(service.grpc, options=options)
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        reads = [asyncio.create_task(stub.CompleteStream(request).read()) for _ in range(6)]
        await asyncio.wait(reads[: 1 + number % 3], return_when=asyncio.FIRST_COMPLETED)
        await channel.close()
        await asyncio.gather(*reads, return_exceptions=True)

    assert service.process.poll() is None
    wait_until(lambda: in_flight(service) == 0)
    wait_until(lambda: descriptors(service) <= before + 3)


async def test_http_clients_hang_up(service: Served) -> None:
    """The same over HTTP."""
    before = descriptors(service)
    body = {"model": "tiny.gguf", "prompt": "x", "max_tokens": 400, "stream": True}

    async def begin(client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            await anext(response.aiter_bytes())

    for _ in range(ROUNDS):
        async with httpx.AsyncClient(base_url=f"http://{service.http}") as client:
            await asyncio.gather(*(begin(client) for _ in range(6)), return_exceptions=True)

    assert service.process.poll() is None
    wait_until(lambda: in_flight(service) == 0)
    wait_until(lambda: descriptors(service) <= before + 3)


async def test_watchers_do_not_hold_up_a_stop(service: Served) -> None:
    """Who watches the health hears that the service stops, and does not keep it from stopping."""
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert health_pb2.HealthCheckResponse.SERVING == (await watch.read()).status
        service.process.terminate()
        assert health_pb2.HealthCheckResponse.NOT_SERVING == (await watch.read()).status
        began = time.monotonic()
        code = await asyncio.to_thread(service.process.wait, 30)

    assert 0 == code
    # Five times the promise: the grace period, which nothing here has to wait for.
    assert time.monotonic() - began < 5 * 4
