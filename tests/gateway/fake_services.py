"""Implementations of our services that answer at once with what they were asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.api import httpbody_pb2
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from localplane.v1 import (
    backend_log_pb2,
    backend_pb2,
    backend_service_pb2,
    backend_service_pb2_grpc,
    inference_pb2,
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    resources_pb2,
    summary_pb2,
    system_service_pb2,
    system_service_pb2_grpc,
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
)

Context = grpc.aio.ServicerContext[Any, Any]


class Services:
    """All of them, what they were asked last, and how they are to fail."""

    def __init__(self) -> None:
        self.request: Any = None
        """The last request."""
        self.summary = summary_pb2.Summary(title="Localplane v0.1.0", version="v0.1.0")
        """What the summary is."""
        self.metadata: dict[str, str] = {}
        """Its metadata."""
        self.headers: list[tuple[str, str]] = []
        """Headers to set on answers."""
        self.failure: status_pb2.Status | None = None
        """How calls fail; None is not at all."""
        self.bare_failure: tuple[grpc.StatusCode, str] | None = None
        """The same, as the gRPC library would fail: without details."""
        self.fails_after_pieces: int | None = None
        """After how many messages a stream fails."""
        self.pieces = 3
        """How many messages a stream has."""
        self.piece_text = "word"
        """What each of them says."""
        self.sent_pieces = 0
        """How many messages a stream has sent."""
        self.holds = False
        """Whether calls wait for `release`."""
        self.holds_between = False
        """Whether streams wait for `release` after each message."""
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        """Set while a call waits."""
        self.cancelled = asyncio.Event()
        """Set once a waiting call was cancelled."""
        self.stopped = asyncio.Event()
        """Set once a stream has ended, in whichever way."""

    def add_to(self, server: Any) -> None:
        """Register the services with a server, or with what takes them as one does."""
        backend_service_pb2_grpc.add_BackendServiceServicer_to_server(Backends(self), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(self), server)
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(Inference(self), server)
        system_service_pb2_grpc.add_SystemServiceServicer_to_server(System(self), server)
        tokenizer_service_pb2_grpc.add_TokenizerServiceServicer_to_server(Tokenizer(self), server)

    async def enter(self, request: Message, context: Context) -> None:
        """Take note of a call, and fail or wait as told."""
        self.request = request
        self.metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        if self.headers:
            named = [(f"x-http-header-{name}", value) for name, value in self.headers]
            await context.send_initial_metadata([*named, ("other", "secret")])
        if self.fails_after_pieces is None:
            await self.fail(context)
        if self.holds:
            await self.wait()

    async def fail(self, context: Context) -> None:
        """Fail as told."""
        if self.bare_failure is not None:
            await context.abort(*self.bare_failure)
        if self.failure is not None:
            code = next(c for c in grpc.StatusCode if c.value[0] == self.failure.code)
            trailing = (("grpc-status-details-bin", self.failure.SerializeToString()),)
            await context.abort(code, self.failure.message, trailing)

    async def wait(self) -> None:
        """Wait for the release, and notice a cancellation."""
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def failure(
    code: grpc.StatusCode,
    reason: str,
    message: str = "cannot do it",
    *,
    retry_seconds: float | None = None,
    **metadata: str,
) -> status_pb2.Status:
    """An error as our services answer it."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="localplane", metadata=metadata)]
    packed = [_packed(detail) for detail in details]
    if retry_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_seconds * 1000))
        packed.insert(0, _packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


class _Servicer:
    def __init__(self, services: Services) -> None:
        self._services = services


class Backends(_Servicer, backend_service_pb2_grpc.BackendServiceServicer):
    async def GetBackendStatus(  # noqa: N802
        self, request: backend_service_pb2.GetBackendStatusRequest, context: Context
    ) -> backend_pb2.BackendStatus:
        await self._services.enter(request, context)
        return backend_pb2.BackendStatus(
            state=backend_pb2.MONITOR_STATE_READY,
            memory=backend_pb2.BackendMemory(total=2**40, breakdown={"weights": 2**39}),
            model=request.model,
        )

    async def LoadModel(  # noqa: N802
        self, request: backend_service_pb2.LoadModelRequest, context: Context
    ) -> backend_service_pb2.LoadModelResponse:
        await self._services.enter(request, context)
        return backend_service_pb2.LoadModelResponse(loaded=[request.model], message="model loaded")

    async def ShutdownBackend(  # noqa: N802
        self, request: backend_service_pb2.ShutdownBackendRequest, context: Context
    ) -> backend_service_pb2.ShutdownBackendResponse:
        await self._services.enter(request, context)
        return backend_service_pb2.ShutdownBackendResponse(message="model stopped")

    async def ShutdownAll(  # noqa: N802
        self, request: backend_service_pb2.ShutdownAllRequest, context: Context
    ) -> backend_service_pb2.ShutdownAllResponse:
        await self._services.enter(request, context)
        return backend_service_pb2.ShutdownAllResponse(message="0 models stopped")

    async def ListBackends(  # noqa: N802
        self, request: backend_service_pb2.ListBackendsRequest, context: Context
    ) -> backend_service_pb2.ListBackendsResponse:
        await self._services.enter(request, context)
        return backend_service_pb2.ListBackendsResponse()

    async def WatchBackends(  # noqa: N802
        self, request: backend_service_pb2.WatchBackendsRequest, context: Context
    ) -> AsyncIterator[backend_service_pb2.WatchBackendsResponse]:
        services = self._services
        await services.enter(request, context)
        for number in range(services.pieces):
            if services.fails_after_pieces == number:
                await services.fail(context)
            revision = f"e-{number}" if number else ""
            yield backend_service_pb2.WatchBackendsResponse(revision=revision, removed=["a\nb"])

    async def ListInstalledBackends(  # noqa: N802
        self, request: backend_service_pb2.ListInstalledBackendsRequest, context: Context
    ) -> backend_service_pb2.ListInstalledBackendsResponse:
        await self._services.enter(request, context)
        names = ("llama", "piper") if self._services.pieces else ()
        backends = [backend_pb2.InstalledBackend(name=name, is_system=True) for name in names]
        return backend_service_pb2.ListInstalledBackendsResponse(backends=backends)

    async def TailBackendLog(  # noqa: N802
        self, request: backend_service_pb2.TailBackendLogRequest, context: Context
    ) -> AsyncIterator[backend_log_pb2.BackendLogRecord]:
        await self._services.enter(request, context)
        for number, text in enumerate(("one", "", None, "two"), start=1):
            if self._services.fails_after_pieces == number:
                await self._services.fail(context)
            yield backend_log_pb2.BackendLogRecord(sequence=number, text=text)
            if self._services.holds_between:
                await self._services.wait()


class Models(_Servicer, model_service_pb2_grpc.ModelServiceServicer):
    async def ListModels(  # noqa: N802
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        await self._services.enter(request, context)
        return model_service_pb2.ListModelsResponse(object="list")

    async def GetModel(  # noqa: N802
        self, request: model_service_pb2.GetModelRequest, context: Context
    ) -> model_pb2.Model:
        await self._services.enter(request, context)
        return model_pb2.Model(name=request.name)

    async def ReloadModels(  # noqa: N802
        self, request: model_service_pb2.ReloadModelsRequest, context: Context
    ) -> model_service_pb2.ReloadModelsResponse:
        await self._services.enter(request, context)
        return model_service_pb2.ReloadModelsResponse(message="models reloaded")


class Inference(_Servicer, inference_service_pb2_grpc.InferenceServiceServicer):
    async def Complete(  # noqa: N802
        self, request: inference_service_pb2.CompleteRequest, context: Context
    ) -> inference_service_pb2.Completion:
        await self._services.enter(request, context)
        return inference_service_pb2.Completion(model=request.model)

    async def CompleteStream(  # noqa: N802
        self, request: inference_service_pb2.CompleteRequest, context: Context
    ) -> AsyncIterator[inference_service_pb2.Completion]:
        await self._services.enter(request, context)
        yield inference_service_pb2.Completion(model=request.model)

    async def Chat(  # noqa: N802
        self, request: inference_service_pb2.ChatRequest, context: Context
    ) -> inference_service_pb2.ChatCompletion:
        await self._services.enter(request, context)
        message = inference_pb2.ChatAnswer(role="assistant", content="hello")
        choice = inference_service_pb2.ChatChoice(message=message)
        return inference_service_pb2.ChatCompletion(model=request.model, choices=[choice])

    async def ChatStream(  # noqa: N802
        self, request: inference_service_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[inference_service_pb2.ChatCompletionChunk]:
        services = self._services
        await services.enter(request, context)
        delta = inference_pb2.ChatDelta(content=services.piece_text)
        choice = inference_service_pb2.ChatChunkChoice(delta=delta)
        chunk = inference_service_pb2.ChatCompletionChunk(model=request.model, choices=[choice])
        try:
            for number in range(services.pieces):
                if services.fails_after_pieces == number:
                    await services.fail(context)
                yield chunk
                services.sent_pieces += 1
                if services.holds_between:
                    await services.wait()
        finally:
            services.stopped.set()

    async def Embed(  # noqa: N802
        self, request: inference_service_pb2.EmbedRequest, context: Context
    ) -> inference_service_pb2.EmbedResponse:
        await self._services.enter(request, context)
        return inference_service_pb2.EmbedResponse(object="list")


class System(_Servicer, system_service_pb2_grpc.SystemServiceServicer):
    async def GetSystem(  # noqa: N802
        self, request: system_service_pb2.GetSystemRequest, context: Context
    ) -> system_service_pb2.GetSystemResponse:
        await self._services.enter(request, context)
        return system_service_pb2.GetSystemResponse(backends=["llama"])

    async def GetVersion(  # noqa: N802
        self, request: system_service_pb2.GetVersionRequest, context: Context
    ) -> system_service_pb2.GetVersionResponse:
        await self._services.enter(request, context)
        return system_service_pb2.GetVersionResponse(version="v0.1.0")

    async def GetSummary(  # noqa: N802
        self, request: system_service_pb2.GetSummaryRequest, context: Context
    ) -> summary_pb2.Summary:
        await self._services.enter(request, context)
        return self._services.summary

    async def GetResources(  # noqa: N802
        self, request: system_service_pb2.GetResourcesRequest, context: Context
    ) -> resources_pb2.Resources:
        await self._services.enter(request, context)
        return resources_pb2.Resources()

    async def Live(  # noqa: N802
        self, request: system_service_pb2.LiveRequest, context: Context
    ) -> httpbody_pb2.HttpBody:
        await self._services.enter(request, context)
        return httpbody_pb2.HttpBody(content_type="text/plain; charset=utf-8", data=b"OK")

    async def Ready(  # noqa: N802
        self, request: system_service_pb2.ReadyRequest, context: Context
    ) -> httpbody_pb2.HttpBody:
        await self._services.enter(request, context)
        return httpbody_pb2.HttpBody(data=b"OK")


class Tokenizer(_Servicer, tokenizer_service_pb2_grpc.TokenizerServiceServicer):
    async def Tokenize(  # noqa: N802
        self, request: tokenizer_service_pb2.TokenizeRequest, context: Context
    ) -> tokenizer_service_pb2.TokenizeResponse:
        await self._services.enter(request, context)
        return tokenizer_service_pb2.TokenizeResponse(tokens=[1, 2], count=2)

    async def Detokenize(  # noqa: N802
        self, request: tokenizer_service_pb2.DetokenizeRequest, context: Context
    ) -> tokenizer_service_pb2.DetokenizeResponse:
        await self._services.enter(request, context)
        return tokenizer_service_pb2.DetokenizeResponse(content="text")
