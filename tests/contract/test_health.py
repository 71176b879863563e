"""The health of backends, by the protocol of the gRPC project."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contract.transports import CallError, Transport
from localplane.v1 import backend_service_pb2 as pb
from localplane.v1 import inference_service_pb2
from localplane_server.app import App
from localplane_server.rpc import health

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
PATIENCE_SECONDS = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(app: App) -> AsyncGenerator[Any]:
    """A client of a real connection."""
    async with grpc.aio.insecure_channel(str(app.grpc)) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.fixture
def backends(transports: dict[str, Transport]) -> Transport:
    """Loads models and stops them."""
    return transports["inprocess"]


async def check(stub: Any, name: str) -> int:
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    status: int = answer.status
    return status


async def load(backends: Transport, model: str) -> None:
    await backends.call("BackendService.LoadModel", pb.LoadModelRequest(model=model))


async def stop(backends: Transport, model: str) -> None:
    request = pb.ShutdownBackendRequest(model=model, force=True)
    await backends.call("BackendService.ShutdownBackend", request)


class Watch:
    """Reads what a watcher is told."""

    def __init__(self, stub: Any, name: str) -> None:
        self._call = stub.Watch(health_pb2.HealthCheckRequest(service=name))

    async def next(self) -> int:
        async with asyncio.timeout(PATIENCE_SECONDS):
            status: int = (await self._call.read()).status
        return status

    def cancel(self) -> None:
        self._call.cancel()


class TestCheck:
    @pytest.mark.parametrize(
        "name",
        ["tiny", "gpt-tiny", "tiny.gguf", "sub dir/deep one.gguf", "sub dir__deep one.gguf"],
    )
    async def test_life(self, stub: Any, backends: Transport, name: str) -> None:
        """A backend serves from the end of its load to its stop, by every name of its model."""
        before = await check(stub, f"backend/{name}")
        await load(backends, name)
        loaded = await check(stub, f"backend/{name}")
        await stop(backends, name)
        after = await check(stub, f"backend/{name}")

        assert (NOT_SERVING, SERVING, NOT_SERVING) == (before, loaded, after)

    async def test_failed(self, stub: Any, backends: Transport) -> None:
        """One that failed does not serve."""
        with pytest.raises(CallError):
            await load(backends, "dies")

        assert NOT_SERVING == await check(stub, "backend/dies")

    async def test_busy(self, stub: Any, backends: Transport) -> None:
        """One that answers a call does."""
        request = inference_service_pb2.CompleteRequest(model="slow", prompt=["x"])
        stream = backends.stream("InferenceService.CompleteStream", request)
        await anext(stream)
        status = await check(stub, "backend/slow")
        await stream.aclose()
        await stop(backends, "slow")

        assert SERVING == status

    @pytest.mark.parametrize(
        "name",
        [
            "backend/nobody",
            "backend/",
            "backend",
            "backend/../tiny.gguf",
            "backend/a\n",
            "tiny",
            "backend/" + "x" * 256,
            "Backend/tiny",
            "localplane.v1.Nothing",
        ],
    )
    async def test_unknown(self, stub: Any, name: str) -> None:
        """What there is not is NOT_FOUND, as the protocol says."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(stub, name)

        assert grpc.StatusCode.NOT_FOUND is caught.value.code()


class TestWatch:
    @pytest.mark.parametrize("name", ["echo", "sub dir/deep one.gguf"])
    async def test_changes(self, stub: Any, backends: Transport, name: str) -> None:
        """The status at once, then each other one when it comes, and none twice."""
        watch = Watch(stub, f"backend/{name}")
        statuses = [await watch.next()]
        await load(backends, name)
        statuses.append(await watch.next())
        await stop(backends, name)
        statuses.append(await watch.next())
        watch.cancel()

        assert [NOT_SERVING, SERVING, NOT_SERVING] == statuses

    async def test_death(self, stub: Any, backends: Transport) -> None:
        """A backend whose process ends is seen not to serve."""
        await load(backends, "crashes")
        watch = Watch(stub, "backend/crashes")
        first = await watch.next()
        request = inference_service_pb2.CompleteRequest(model="crashes", prompt=["x"])
        with pytest.raises(CallError):
            await backends.call("InferenceService.Complete", request)
        second = await watch.next()
        watch.cancel()

        assert (SERVING, NOT_SERVING) == (first, second)

    async def test_unknown(
        self, stub: Any, tmp_path: Path, app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name that is not known is watched all the same: the model may come, and go."""
        monkeypatch.setattr(health, "LOOK_SECONDS", 0.05)
        root = app.backends._scheduler._catalog.root
        file = root / "größer.yaml"
        watch = Watch(stub, "backend/größer")
        statuses = [await watch.next()]
        file.write_text("name: größer\nbackend: fake\n")
        statuses.append(await watch.next())
        file.unlink()
        statuses.append(await watch.next())
        watch.cancel()

        assert [SERVICE_UNKNOWN, NOT_SERVING, SERVICE_UNKNOWN] == statuses

    async def test_other_names(self, stub: Any) -> None:
        """So is one that never can be, with nothing to tell."""
        watch = Watch(stub, "nobody")
        status = await watch.next()
        watch.cancel()

        assert SERVICE_UNKNOWN == status

    async def test_many_watchers(self, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """There is an end to the watchers, since they need no key; checks are answered all the same."""
        watch = Watch(stub, "")
        await watch.next()
        monkeypatch.setattr(health, "MOST_WATCHERS", 1)
        refused = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        code, status = await refused.code(), await check(stub, "")
        watch.cancel()

        assert (grpc.StatusCode.RESOURCE_EXHAUSTED, SERVING) == (code, status)
