"""One place for all models, over every transport: who waits, who goes, what they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from contract.census import stop_backends
from contract.transports import CallError, Transport
from localplane.v1 import backend_pb2 as b
from localplane.v1 import backend_service_pb2 as pb
from localplane.v1 import inference_service_pb2
from localplane_server.setting_values import MemoryBudget

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {
    "max_active_backends": 1,
    "memory_budget": MemoryBudget(1024.0**3, is_share=False),
    "queue_timeout": 0.5,
    "min_residency": 0.0,
}
MODELS = {
    "one": "backend: fake\noptions: [pieces:2]",
    "two": "backend: fake\noptions: [pieces:2]",
    "long": "backend: fake\noptions: [pieces:1000, piece_seconds:0.01]",
    "kept": "backend: fake\npinned: true",
    "huge": "backend: fake\nparameters: {model: huge.gguf}",
}
HUGE_BYTES = 2 * 1024**3


@pytest.fixture(scope="module", autouse=True)
def models(models_folder: Path) -> None:
    """Models that no other module has. The file of the largest is a hole."""
    for name, text in MODELS.items():
        configuration = f"name: {name}\nknown_usecases: [none]\n{text}\n"
        (models_folder / f"{name}.yaml").write_text(configuration)
    with (models_folder / "huge.gguf").open("wb") as file:
        file.truncate(HUGE_BYTES)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def empty(transport: Transport) -> AsyncGenerator[None]:
    """Each test begins without backends."""
    await stop_backends(transport)
    yield
    await stop_backends(transport)


async def complete(transport: Transport, model: str) -> str:
    request = inference_service_pb2.CompleteRequest(model=model, prompt=["x"])
    answer = await transport.call("InferenceService.Complete", request)
    return str(answer.choices[0].text)


async def load(transport: Transport, model: str, *, wait: bool = True) -> None:
    request = pb.LoadModelRequest(model=model, wait=wait)
    await transport.call("BackendService.LoadModel", request)


async def backends(transport: Transport) -> dict[str, b.Backend]:
    answer = await transport.call("BackendService.ListBackends", pb.ListBackendsRequest())
    return {one.model: one for one in answer.backends}


async def running(transport: Transport) -> list[str]:
    """Return the models whose backends run."""
    seen = await backends(transport)
    return [name for name, one in seen.items() if one.HasField("pid")]


async def fails(call: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await call  # type: ignore[misc]  # a coroutine of any answer
    return caught.value


async def begun(transport: Transport, model: str) -> asyncio.Task[None]:
    """Begin a long stream and return once it is there."""
    request = inference_service_pb2.CompleteRequest(model=model, prompt=["x"])
    stream = transport.stream("InferenceService.CompleteStream", request)
    await anext(stream)

    async def rest() -> None:
        async for _ in stream:
            pass

    return asyncio.create_task(rest())


async def test_another_goes(transport: Transport) -> None:
    """A call of another model takes the place of the one that nobody uses."""
    await complete(transport, "one")
    assert "0 1 " == await complete(transport, "two")

    assert ["two"] == await running(transport)


async def test_no_place(transport: Transport) -> None:
    """Behind a call that lasts, another model waits as long as it may, and is told when to come again."""
    streaming = await begun(transport, "long")
    began = time.monotonic()
    error = await fails(complete(transport, "two"))

    assert "CAPACITY_EXHAUSTED" == error.reason
    assert {"model": "two"} == error.metadata
    assert 0.4 < time.monotonic() - began < 5
    assert ["long"] == await running(transport)
    await stop_backends(transport)
    await fails(streaming)


async def test_explicit_load_waits_too(transport: Transport) -> None:
    """It has the idle one go, and gives up behind the one in use."""
    await load(transport, "one")
    await load(transport, "long")
    streaming = await begun(transport, "long")

    assert "CAPACITY_EXHAUSTED" == (await fails(load(transport, "two"))).reason
    await stop_backends(transport)
    await fails(streaming)


async def test_load_without_waiting_is_queued(transport: Transport) -> None:
    """Who waits for a place is listed, without a backend, and can be sent away."""
    streaming = await begun(transport, "long")
    await load(transport, "two", wait=False)
    waiting = (await backends(transport))["two"]
    stopped = await transport.call(
        "BackendService.ShutdownBackend", pb.ShutdownBackendRequest(model="two")
    )

    assert (b.BACKEND_STATE_STOPPED, 1) == (waiting.state, waiting.waiting)
    assert "model stopped" == stopped.message
    assert ["long"] == await running(transport)
    await stop_backends(transport)
    await fails(streaming)


async def test_pinned_stays(transport: Transport) -> None:
    """What its YAML pins does not go for another."""
    await complete(transport, "kept")
    error = await fails(complete(transport, "two"))

    assert "CAPACITY_EXHAUSTED" == error.reason
    assert "1 pinned" in error.message


async def test_too_large(transport: Transport) -> None:
    """What can never fit is refused at once, and nothing goes for it."""
    await complete(transport, "one")
    error = await fails(complete(transport, "huge"))
    also = await fails(load(transport, "huge", wait=False))

    assert ("MODEL_TOO_LARGE", "MODEL_TOO_LARGE") == (error.reason, also.reason)
    assert str(1024**3) == error.metadata["budget"]
    assert int(error.metadata["needed"]) > HUGE_BYTES
    assert ["one"] == await running(transport)


async def test_cooldown(transport: Transport) -> None:
    """What fails again and again is left alone; an administrator may try at once."""
    await fails(load(transport, "refuses"))
    await fails(load(transport, "refuses"))
    error = await fails(complete(transport, "refuses"))
    listed = (await backends(transport))["refuses"]

    assert "LOAD_COOLDOWN" == error.reason
    assert "no such weights" in error.message
    assert listed.cooldown_until.ToSeconds() > time.time() - 1
    assert "LOAD_FAILED" == (await fails(load(transport, "refuses"))).reason


async def test_shutdown_all(transport: Transport) -> None:
    """Everything is stopped at once, cut where that is asked for, and each is told of."""
    streaming = await begun(transport, "long")
    await load(transport, "two", wait=False)
    answer = await transport.call("BackendService.ShutdownAll", pb.ShutdownAllRequest(force=True))
    error = await fails(streaming)

    assert "2 models stopped" == answer.message
    assert [("long", 1), ("two", 0)] == [(one.model, one.cut_calls) for one in answer.backends]
    assert all(not one.HasField("error") for one in answer.backends)
    assert answer.backends[0].freed_bytes > 0
    assert "BACKEND_GONE" == error.reason


async def test_shutdown_all_of_nothing(transport: Transport) -> None:
    """That is no error."""
    answer = await transport.call("BackendService.ShutdownAll", pb.ShutdownAllRequest())

    assert ("0 models stopped", 0) == (answer.message, len(answer.backends))


@pytest.mark.parametrize("grace", [-1.0, 3601.0])
async def test_shutdown_all_with_a_bad_grace(transport: Transport, grace: float) -> None:
    """A grace period that is none is refused before anything is stopped."""
    request = pb.ShutdownAllRequest(grace_seconds=grace)
    error = await fails(transport.call("BackendService.ShutdownAll", request))

    assert ("INVALID_ARGUMENT", "grace_seconds") == (error.reason, error.metadata["field"])
