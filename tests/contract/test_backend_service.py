"""Backends over every transport."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from contract.transports import CallError, Transport
from localplane.v1 import backend_pb2 as b
from localplane.v1 import backend_service_pb2 as pb
from localplane.v1 import inference_service_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ["tiny", "gpt-tiny", "tiny.gguf", "sub dir/deep one.gguf", "sub dir__deep one.gguf"]


async def load(transport: Transport, model: str) -> pb.LoadModelResponse:
    response: pb.LoadModelResponse = await transport.call(
        "BackendService.LoadModel", pb.LoadModelRequest(model=model)
    )
    return response


async def status(transport: Transport, model: str) -> b.BackendStatus:
    response: b.BackendStatus = await transport.call(
        "BackendService.GetBackendStatus", pb.GetBackendStatusRequest(model=model)
    )
    return response


async def stop(transport: Transport, model: str, **options: Any) -> pb.ShutdownBackendResponse:
    response: pb.ShutdownBackendResponse = await transport.call(
        "BackendService.ShutdownBackend", pb.ShutdownBackendRequest(model=model, **options)
    )
    return response


async def fails(call: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await call  # type: ignore[misc]  # a coroutine of any answer
    return caught.value


class TestLoadModel:
    @pytest.mark.parametrize("name", NAMES)
    async def test_load_watch_stop(self, transport: Transport, name: str) -> None:
        """Every name of a model loads it, watches it and stops it."""
        loaded = await load(transport, name)
        assert "model loaded" == loaded.message

        seen = await status(transport, name)
        assert b.MONITOR_STATE_READY == seen.state
        assert [seen.model] == list(loaded.loaded)
        assert seen.memory.total >= sum(seen.memory.breakdown.values()) > 0
        assert {"weights", "kv_cache", "compute"} <= seen.memory.breakdown.keys()
        assert seen.memory_info.rss > 0
        assert seen.pid > 0

        stopped = await stop(transport, name)
        assert ("model stopped", 0) == (stopped.message, stopped.cut_calls)
        assert stopped.freed_bytes > 0
        assert "MODEL_NOT_LOADED" == (await fails(status(transport, name))).reason

    async def test_loading_a_loaded_model_does_nothing(self, transport: Transport) -> None:
        """The second load answers like the first, and the process is the same."""
        await load(transport, "echo")
        pid = (await status(transport, "echo")).pid

        assert ["echo"] == list((await load(transport, "echo")).loaded)
        assert pid == (await status(transport, "echo")).pid

    async def test_without_waiting(self, transport: Transport) -> None:
        """The answer comes at once; the model is there a little later."""
        answer = await transport.call(
            "BackendService.LoadModel", pb.LoadModelRequest(model="vectors", wait=False)
        )
        assert ([], "model is loading") == (list(answer.loaded), answer.message)

        await load(transport, "vectors")
        assert "model stopped" == (await stop(transport, "vectors")).message

    async def test_concurrent_loads_are_one(self, transport: Transport) -> None:
        """Many callers, one process."""
        await asyncio.gather(*(load(transport, "tiny") for _ in range(8)))
        listed = await transport.call("BackendService.ListBackends", pb.ListBackendsRequest())

        assert 1 == len([one for one in listed.backends if one.model == "tiny"])
        await stop(transport, "tiny")

    @pytest.mark.parametrize(
        ("model", "reason", "text"),
        [
            ("nobody", "MODEL_NOT_FOUND", "not found"),
            ("../tiny.gguf", "MODEL_NOT_FOUND", "not found"),
            ("", "INVALID_MODEL_NAME", "required"),
            (" ", "INVALID_MODEL_NAME", "required"),
            ("a\nb", "INVALID_MODEL_NAME", "control"),
            ("x" * 256, "INVALID_MODEL_NAME", "255"),
            ("refuses", "LOAD_FAILED", "no such weights"),
            ("dies", "LOAD_FAILED", "exit code 3"),
            ("dies", "LOAD_FAILED", "last words"),
            ("broken", "LOAD_FAILED", "cannot load model broken"),
            ("orphan", "BACKEND_NOT_INSTALLED", "nowhere"),
        ],
    )
    async def test_failures(self, transport: Transport, model: str, reason: str, text: str) -> None:
        """Each failure has its reason and its true cause."""
        error = await fails(load(transport, model))

        assert reason == error.reason
        assert text in error.message

    async def test_a_good_one_after_a_broken_one(self, transport: Transport) -> None:
        """A failed load leaves nothing that is in the way of the next."""
        await fails(load(transport, "broken"))

        assert ["tiny"] == list((await load(transport, "tiny")).loaded)
        await stop(transport, "tiny")


class TestGetBackendStatus:
    async def test_backend_without_status(self, transport: Transport) -> None:
        """The figures of the operating system are there all the same, and what is missing says why."""
        await load(transport, "mute")
        seen = await status(transport, "mute")

        assert b.MONITOR_STATE_READY == seen.state
        assert not seen.HasField("memory")
        assert "does not support" in seen.unknown["memory"]
        assert seen.memory_info.rss > 0

    async def test_backend_whose_status_hangs(self, transport: Transport) -> None:
        """The monitor does not wait for it."""
        await load(transport, "stuck")
        async with asyncio.timeout(5):
            seen = await status(transport, "stuck")

        assert b.MONITOR_STATE_READY == seen.state
        assert "in time" in seen.unknown["memory"]

    async def test_after_a_failed_load(self, transport: Transport) -> None:
        """A backend that failed says with what it ended."""
        await fails(load(transport, "dies"))
        error = await fails(status(transport, "dies"))

        assert "BACKEND_FAILED" == error.reason
        assert "exit code 3" in error.message

    @pytest.mark.parametrize("model", ["", " ", "a\0", "x" * 256])
    async def test_bad_names(self, transport: Transport, model: str) -> None:
        """What cannot be a name is told apart from what is not loaded."""
        error = await fails(status(transport, model))

        assert "INVALID_MODEL_NAME" == error.reason
        assert error.code in (400, grpc.StatusCode.INVALID_ARGUMENT)

    @pytest.mark.parametrize("model", ["nobody", "orphan"])
    async def test_not_loaded(self, transport: Transport, model: str) -> None:
        """LocalAI's text and status over REST, NOT_FOUND over gRPC."""
        error = await fails(status(transport, model))

        assert f"backend {model} is not currently loaded" == error.message
        assert {"model": model} == error.metadata
        assert error.code in (500, grpc.StatusCode.NOT_FOUND)


class TestShutdownBackend:
    async def test_calls_in_flight_end_first(self, transport: Transport) -> None:
        """A stop waits for the call in flight and cuts nothing."""
        chat = inference_service_pb2.CompleteRequest(model="echo", prompt=["x"])
        answering = asyncio.create_task(transport.call("InferenceService.Complete", chat))
        await asyncio.wait((answering,), timeout=0)
        await answering

        assert 0 == (await stop(transport, "echo")).cut_calls

    async def test_force_cuts(self, transport: Transport) -> None:
        """A forced stop cuts the stream, which says so; new calls are refused meanwhile."""
        request = inference_service_pb2.CompleteRequest(model="slow", prompt=["x"])
        stream = transport.stream("InferenceService.CompleteStream", request)
        await anext(stream)
        stopped = asyncio.create_task(stop(transport, "slow", force=True))
        error = await fails(_drain(stream))

        assert 1 == (await stopped).cut_calls
        assert "BACKEND_GONE" == error.reason

    @pytest.mark.parametrize("grace", [-1.0, 3601.0, float("inf")])
    async def test_bad_grace(self, transport: Transport, grace: float) -> None:
        """A grace period that is none is refused before anything is stopped."""
        error = await fails(stop(transport, "tiny", grace_seconds=grace))

        assert "INVALID_ARGUMENT" == error.reason

    async def test_not_loaded(self, transport: Transport) -> None:
        """There is nothing to stop."""
        error = await fails(stop(transport, "nobody"))

        assert "MODEL_NOT_LOADED" == error.reason
        assert error.code in (500, grpc.StatusCode.NOT_FOUND)


class TestListBackends:
    async def test_pages(self, transport: Transport) -> None:
        """Each backend once, by the name of its model."""
        await asyncio.gather(load(transport, "echo"), load(transport, "tiny"))
        models, token = [], ""
        while True:
            request = pb.ListBackendsRequest(page_size=1, page_token=token)
            answer = await transport.call("BackendService.ListBackends", request)
            models += [one.model for one in answer.backends]
            token = answer.next_page_token
            if not token:
                break

        assert sorted(set(models)) == models
        assert {"echo", "tiny"} <= set(models)

    async def test_failed_ones_are_listed(self, transport: Transport) -> None:
        """A failure is seen after the call that met it."""
        await fails(load(transport, "dies"))
        listed = await transport.call("BackendService.ListBackends", pb.ListBackendsRequest())
        (failed,) = [one for one in listed.backends if one.model == "dies"]

        assert b.BACKEND_STATE_FAILED == failed.state
        assert "exit code 3" in failed.last_error


class TestListInstalledBackends:
    async def test_shipped(self, transport: Transport) -> None:
        """The llama backend is there, under LocalAI's names too."""
        answer = await transport.call(
            "BackendService.ListInstalledBackends", pb.ListInstalledBackendsRequest()
        )
        llama = {one.name: one for one in answer.backends}["llama"]

        assert llama.is_system
        assert "llama-cpp" in llama.aliases
        assert not llama.HasField("missing")


async def _drain(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]  # an async generator of any answer
        pass
