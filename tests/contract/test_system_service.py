"""Facts and probes over every transport."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from contract.transports import CallError, Transport
from localplane.v1 import backend_service_pb2, resources_pb2
from localplane.v1 import system_service_pb2 as pb
from localplane_server import __version__
from localplane_server.app import App
from localplane_server.rpc.server import SERVICES

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_version(transport: Transport) -> None:
    """The version that is installed."""
    answer = await transport.call("SystemService.GetVersion", pb.GetVersionRequest())

    assert f"v{__version__}" == answer.version


async def test_system(transport: Transport) -> None:
    """Backends by every name, each once; loaded models with their backend."""
    await transport.call(
        "BackendService.LoadModel", backend_service_pb2.LoadModelRequest(model="echo")
    )
    answer = await transport.call("SystemService.GetSystem", pb.GetSystemRequest())

    assert sorted(set(answer.backends)) == list(answer.backends)
    assert {"llama", "llama-cpp", "fake"} <= set(answer.backends)
    assert [pb.LoadedModel(id="echo", backend="fake")] == list(answer.loaded_models)


async def test_resources(transport: Transport) -> None:
    """Processors, memory and both folders' disks, with their sources; what is null says why."""
    answer = await transport.call("SystemService.GetResources", pb.GetResourcesRequest())

    cpu, memory = answer.cpu, answer.memory
    assert 0 < cpu.usable <= cpu.allowed <= cpu.count
    assert resources_pb2.RESOURCE_SOURCE_UNSPECIFIED not in (cpu.source, memory.source)
    assert 0 < memory.available <= memory.total <= memory.machine_total
    assert memory.HasField("cgroup_limit") != ("cgroup_limit" in memory.unknown)
    assert cpu.HasField("percent") != ("percent" in cpu.unknown)
    assert ["data", "models"] == [disk.purpose for disk in answer.disks]
    assert all(0 < disk.free <= disk.total and disk.filesystem for disk in answer.disks)
    assert answer.HasField("sampled_at")
    nvidia = [
        one for one in answer.accelerators if one.vendor == resources_pb2.ACCELERATOR_VENDOR_NVIDIA
    ]
    assert nvidia or "nvml" in answer.unknown


async def test_probes(transport: Transport) -> None:
    """Plain text for probes, over every transport."""
    live = await transport.call("SystemService.Live", pb.LiveRequest())
    ready = await transport.call("SystemService.Ready", pb.ReadyRequest())

    assert (b"OK", b"OK") == (live.data, ready.data)
    assert live.content_type.startswith("text/plain")


async def test_not_ready(app: App, transport: Transport) -> None:
    """While a part is missing, readiness says which; the service lives all the same."""
    app.readiness.block("test", "the test says so")
    try:
        with pytest.raises(CallError) as caught:
            await transport.call("SystemService.Ready", pb.ReadyRequest())
        live = await transport.call("SystemService.Live", pb.LiveRequest())
    finally:
        app.readiness.unblock("test")

    assert "NOT_READY" == caught.value.reason
    assert "the test says so" in caught.value.message
    assert caught.value.code in (503, grpc.StatusCode.UNAVAILABLE)
    assert b"OK" == live.data


class TestGrpcOwnServices:
    async def test_health(self, app: App) -> None:
        """The probe of the gRPC project tells of the whole and of each service; unknown names are unknown."""
        async with grpc.aio.insecure_channel(str(app.grpc)) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for name in ("", *SERVICES):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                assert health_pb2.HealthCheckResponse.SERVING == answer.status
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))

        assert grpc.StatusCode.NOT_FOUND is caught.value.code()

    async def test_health_follows_readiness(self, app: App) -> None:
        """Who watches hears when the service is not ready, and when it is again."""
        async with grpc.aio.insecure_channel(str(app.grpc)) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            seen = [(await watch.read()).status]
            app.readiness.block("test", "the test says so")
            seen.append((await watch.read()).status)
            app.readiness.unblock("test")
            seen.append((await watch.read()).status)
            watch.cancel()

        serving, not_serving = (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        assert [serving, not_serving, serving] == seen

    @pytest.mark.parametrize("version", ["v1", "v1alpha"])
    async def test_reflection(self, app: App, version: str) -> None:
        """Tools find every service, under both names of reflection."""
        async with grpc.aio.insecure_channel(str(app.grpc)) as channel:
            call: Any = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await call.read()
            await call.done_writing()

        listed = {one.name for one in answer.list_services_response.service}
        assert {*SERVICES, "grpc.health.v1.Health"} <= listed

    @pytest.mark.parametrize(
        ("symbol", "is_there"),
        [
            ("localplane.v1.BackendService", True),
            ("localplane.v1.BackendService.LoadModel", True),
            ("localplane.v1.LoadModelRequest.model", True),
            ("localplane.v1.BackendService.Nothing", False),
            ("nothing", False),
            ("", False),
        ],
    )
    async def test_description(self, app: App, symbol: str, is_there: bool) -> None:  # noqa: FBT001
        """Whatever a tool asks the description of is described, methods included."""
        async with grpc.aio.insecure_channel(str(app.grpc)) as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub
            call = stub(channel).ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
            answer = await call.read()
            await call.done_writing()

        assert is_there == answer.HasField("file_descriptor_response")
        assert is_there != answer.HasField("error_response")

    async def test_unknown_method(self, app: App) -> None:
        """What there is not is said to be not there."""
        async with grpc.aio.insecure_channel(str(app.grpc)) as channel:
            call: Any = channel.unary_unary("/localplane.v1.Nothing/Nothing")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"")

        assert grpc.StatusCode.UNIMPLEMENTED is caught.value.code()
