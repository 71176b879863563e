"""The in-process channel behaves like the wire, and both pass through the same interceptor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from localplane.v1 import (
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)
from localplane_server.deadlines import deadline
from localplane_server.errors import ModelNotFoundError
from localplane_server.events import CallFinished, CallStarted, Events
from localplane_server.rpc.access import Keys, Role
from localplane_server.rpc.inprocess import InProcessChannel
from localplane_server.rpc.interceptors import CallInterceptor

KEY = (("authorization", "Bearer k"),)


# To the type checker a servicer must have every method; here two are enough.
ModelBase: Any = model_service_pb2_grpc.ModelServiceServicer
InferenceBase: Any = inference_service_pb2_grpc.InferenceServiceServicer


class Models(ModelBase):  # type: ignore[misc]  # see above
    """Does what the name asked for says."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def GetModel(  # noqa: N802 - the proto's
        self, request: model_service_pb2.GetModelRequest, context: Any
    ) -> model_pb2.Model:
        match request.name:
            case "missing":
                raise ModelNotFoundError("missing")
            case "broken":
                raise ValueError("a secret")
            case "slow":
                self.entered.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            case "timed":
                return model_pb2.Model(name=f"{deadline() - time.monotonic():.0f}")
            case "abort":
                await context.abort(grpc.StatusCode.DATA_LOSS, "gone")
            case "headers":
                await context.send_initial_metadata((("x-early", "1"),))
        return model_pb2.Model(name=request.name)


class Inference(InferenceBase):  # type: ignore[misc]  # see above
    """Streams what the prompt says."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def CompleteStream(  # noqa: N802 - the proto's
        self, request: inference_service_pb2.CompleteRequest, context: Any
    ) -> AsyncIterator[inference_service_pb2.Completion]:
        try:
            for word in request.prompt:
                if word == "missing":
                    raise ModelNotFoundError("missing")
                if word == "broken":
                    raise ValueError("a secret")
                if word == "wait":
                    await asyncio.Event().wait()
                if word == "timed":
                    left = f"{deadline() - time.monotonic():.0f}"
                    yield inference_service_pb2.Completion(id=left)
                    continue
                yield inference_service_pb2.Completion(id=word)
        finally:
            self.closed.set()


class Wired:
    """Servicers behind a channel."""

    def __init__(self, channel: Any, models: Models, inference: Inference) -> None:
        self.channel = channel
        self.servicer, self.inference_servicer = models, inference
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.inference = inference_service_pb2_grpc.InferenceServiceStub(channel)
        self.finished: list[CallFinished] = []
        self.started: list[CallStarted] = []

    async def get(self, name: str, **options: Any) -> Any:
        options.setdefault("metadata", KEY)
        return await self.models.GetModel(model_service_pb2.GetModelRequest(name=name), **options)

    def stream(self, *words: str, **options: Any) -> Any:
        options.setdefault("metadata", KEY)
        request = inference_service_pb2.CompleteRequest(prompt=words)
        return self.inference.CompleteStream(request, **options)


@asynccontextmanager
async def in_process(interceptor: CallInterceptor) -> AsyncGenerator[Wired]:
    channel: Any = InProcessChannel(interceptor)
    models, inference = Models(), Inference()
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, channel)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(inference, channel)
    yield Wired(channel, models, inference)


@asynccontextmanager
async def over_the_wire(interceptor: CallInterceptor) -> AsyncGenerator[Wired]:
    server = grpc.aio.server(interceptors=[interceptor])
    models, inference = Models(), Inference()
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(inference, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Wired(channel, models, inference)
    await server.stop(None)


@pytest.fixture(params=[in_process, over_the_wire])
async def wired(request: pytest.FixtureRequest) -> AsyncIterator[Wired]:
    bus = Events()
    interceptor = CallInterceptor(Keys({"k": Role.USER}), bus)
    async with request.param(interceptor) as wired:
        bus.listen(CallFinished, wired.finished.append)
        bus.listen(CallStarted, wired.started.append)
        yield wired


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # the call's error has what it reads
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


class TestUnary:
    async def test_answer(self, wired: Wired) -> None:
        """The answer comes back, and the call is told of."""
        assert model_pb2.Model(name="a") == await wired.get("a")
        assert [("/localplane.v1.ModelService/GetModel", "OK")] == [
            (event.method, event.code) for event in wired.finished
        ]
        assert 1 == len(wired.started)

    async def test_error_of_the_domain(self, wired: Wired) -> None:
        """Code, message and reason."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wired.get("missing")

        assert grpc.StatusCode.NOT_FOUND is caught.value.code()
        assert 'model "missing" not found' in (caught.value.details() or "")
        assert "MODEL_NOT_FOUND" == reason_of(caught.value)

    async def test_error_nobody_foresaw(self, wired: Wired) -> None:
        """The caller is told nothing of it but that it is ours."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wired.get("broken")

        assert (grpc.StatusCode.INTERNAL, "internal error") == (
            caught.value.code(),
            caught.value.details(),
        )
        assert "INTERNAL" == reason_of(caught.value)

    async def test_abort(self, wired: Wired) -> None:
        """A status that a servicer sets itself passes as it is."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wired.get("abort")

        assert (grpc.StatusCode.DATA_LOSS, "gone") == (caught.value.code(), caught.value.details())

    async def test_no_key(self, wired: Wired) -> None:
        """Without a key nothing is answered."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wired.get("a", metadata=())

        assert grpc.StatusCode.UNAUTHENTICATED is caught.value.code()

    async def test_role(self, wired: Wired) -> None:
        """A user's key does not open what administrators may do, even if nobody implements it."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wired.models.ReloadModels(model_service_pb2.ReloadModelsRequest(), metadata=KEY)

        assert grpc.StatusCode.PERMISSION_DENIED is caught.value.code()

    async def test_deadline_is_known_where_it_waits(self, wired: Wired) -> None:
        """What serves a call can tell how long it may wait, and does not mistake the last call's time for it."""
        timed = await wired.get("timed", timeout=1000)
        untimed = await wired.get("timed")
        streamed = [one.id async for one in wired.stream("timed", timeout=1000)]
        forever = [one.id async for one in wired.stream("timed")]

        # The library rounds up what it sends.
        for left in (timed.name, *streamed):
            assert 990 < float(left) < 1020
        assert ("inf", ["inf"]) == (untimed.name, forever)

    async def test_deadline(self, wired: Wired) -> None:
        """A call does not outlive its deadline, nor does its servicer."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            # Long enough to get there even on a busy machine.
            await wired.get("slow", timeout=1.0)

        assert grpc.StatusCode.DEADLINE_EXCEEDED is caught.value.code()
        await asyncio.wait_for(wired.servicer.cancelled.wait(), 5)

    async def test_cancelled(self, wired: Wired) -> None:
        """Who stops waiting cancels the servicer."""
        task = asyncio.create_task(wired.get("slow"))
        await wired.servicer.entered.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(wired.servicer.cancelled.wait(), 5)

    async def test_metadata(self, wired: Wired) -> None:
        """Metadata comes ahead of and behind the answer; a sane request id is kept."""
        call = wired.models.GetModel(
            model_service_pb2.GetModelRequest(name="headers"),
            metadata=(*KEY, ("x-request-id", "abc-1")),
        )
        await call

        assert "1" == dict(await call.initial_metadata())["x-early"]
        assert "abc-1" == dict(await call.trailing_metadata())["x-request-id"]
        assert grpc.StatusCode.OK is await call.code()

    async def test_mad_request_id(self, wired: Wired) -> None:
        """An id that would forge the log is replaced."""
        await wired.get("a", metadata=(*KEY, ("x-request-id", "a b=c")))

        assert "a b=c" != wired.finished[0].request_id


class TestStream:
    async def test_messages(self, wired: Wired) -> None:
        """All messages, in order, then the end."""
        assert ["a", "b"] == [message.id async for message in wired.stream("a", "b")]

    async def test_error_in_the_middle(self, wired: Wired) -> None:
        """What came before the error arrives, then the error."""
        call = wired.stream("a", "missing")
        assert "a" == (await call.read()).id

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()

        assert grpc.StatusCode.NOT_FOUND is caught.value.code()
        assert "MODEL_NOT_FOUND" == reason_of(caught.value)

    async def test_error_nobody_foresaw(self, wired: Wired) -> None:
        """The same as in a unary call."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wired.stream("broken").read()

        assert "internal error" == caught.value.details()

    async def test_reader_goes_away(self, wired: Wired) -> None:
        """The servicer hears of it at once."""
        call = wired.stream("a", "wait")
        assert "a" == (await call.read()).id

        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(wired.inference_servicer.closed.wait(), 5)

    async def test_cancelled_between_two_messages(self, wired: Wired) -> None:
        """A reader that is busy elsewhere when it gives up tells the servicer all the same."""
        call = wired.stream("a", "b", "wait")
        async for _ in call:
            break

        call.cancel()

        await asyncio.wait_for(wired.inference_servicer.closed.wait(), 5)

    async def test_deadline(self, wired: Wired) -> None:
        """A stream does not outlive its deadline."""
        call = wired.stream("a", "wait", timeout=1.0)
        assert "a" == (await call.read()).id

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()

        assert grpc.StatusCode.DEADLINE_EXCEEDED is caught.value.code()
        await asyncio.wait_for(wired.inference_servicer.closed.wait(), 5)


@pytest.mark.parametrize("method", ["ModelService/GetModel", "InferenceService/CompleteStream"])
@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (KEY, (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")),
        ((), (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")),
    ],
)
async def test_bytes_that_are_no_request(
    method: str, metadata: Any, expected: tuple[grpc.StatusCode, str]
) -> None:
    """They are refused like any wrong argument, to those who may ask."""
    interceptor = CallInterceptor(Keys({"k": Role.USER}), Events())
    async with over_the_wire(interceptor) as wired:
        call = wired.channel.unary_unary(f"/localplane.v1.{method}")(b"\xff", metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call

    assert expected == (caught.value.code(), reason_of(caught.value))
    assert "DecodeError" not in (caught.value.details() or "")


async def test_unknown_method() -> None:
    """A method that there is not is told of without its name, and never began."""
    bus = Events()
    heard: list[CallFinished | CallStarted] = []
    bus.listen(CallStarted, heard.append)
    bus.listen(CallFinished, heard.append)
    async with over_the_wire(CallInterceptor(Keys({}), bus)) as wired:
        call: Any = wired.channel.unary_unary("/localplane.v1.ModelService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")

    assert grpc.StatusCode.UNIMPLEMENTED is caught.value.code()
    assert [("", "UNIMPLEMENTED")] == [
        (event.method, event.code) for event in heard if isinstance(event, CallFinished)
    ]
    assert 1 == len(heard)


@pytest.mark.parametrize("channel", [in_process, over_the_wire])
async def test_public_by_setting(channel: Any) -> None:
    """A method that the operator opened needs no key; the others do."""
    method = "/localplane.v1.ModelService/GetModel"
    interceptor = CallInterceptor(Keys({"k": Role.USER}), Events(), public={method})
    async with channel(interceptor) as wired:
        assert "a" == (await wired.get("a", metadata=())).name
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in wired.stream("a", metadata=()):
                pass

    assert grpc.StatusCode.UNAUTHENTICATED is caught.value.code()
