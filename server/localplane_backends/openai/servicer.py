"""The openai backend's side of the backend protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, NoReturn

import grpc

from localplane.localai import backend_pb2
from localplane_backends.backend import Backend, Context
from localplane_backends.bodies import BodyError, Kind
from localplane_backends.openai import body as bodies
from localplane_backends.openai.answer import Answer
from localplane_backends.openai.command import CommandError
from localplane_backends.openai.errors import ServerError
from localplane_backends.openai.registration import Registration, RegistrationError
from localplane_backends.openai.server import TERM_SECONDS, Server, opened
from localplane_backends.predictions import Predictions

logger = logging.getLogger(__name__)

FREE_SECONDS = 4.0
"""How long a command may take to end when its model is freed. Who asks for that waits 5 s."""
LAST_WORDS_SECONDS = 0.5
"""How long calls in flight get to hear that the server has ended, before this program does."""


class OpenAIBackend(Backend):
    """Serves a model by way of a server that speaks OpenAI's API."""

    def __init__(self, registration: Registration) -> None:
        self.name = registration.name
        self._registration = registration
        self._loading = asyncio.Lock()
        self._server: Server | None = None
        self._predictions = Predictions()
        self._in_flight = 0
        self._broken = asyncio.Event()
        self._closings: set[asyncio.Task[None]] = set()

    async def Health(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.Reply:
        # Before a load there is nothing to ask.
        if self._server is not None:
            async with self._reported(context):
                await self._server.check_health()
        return backend_pb2.Reply(message=b"OK")

    async def LoadModel(
        self, request: backend_pb2.ModelOptions, context: Context
    ) -> backend_pb2.Result:
        async with self._loading:
            await self._unload(FREE_SECONDS)
            began = time.monotonic()
            try:
                server = await opened(self._registration, request)
            except (CommandError, RegistrationError, ServerError) as error:
                message = f"{self.name}: cannot load {request.Model}: {error}"
                logger.error(message)  # noqa: TRY400 - a stack trace of ours would say nothing
                return backend_pb2.Result(success=False, message=message)
            self._server = server
            self.loaded = request
            if server.command is not None:
                server.command.ended.add_done_callback(lambda _: self._on_end(server))
            logger.info("loaded %s in %.3f s", server.model, time.monotonic() - began)
            return backend_pb2.Result(success=True, message="model loaded")

    async def Free(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.Result:
        async with self._loading:
            freed = await self._unload(FREE_SECONDS)
        message = "model freed" if freed else "no model is loaded"
        return backend_pb2.Result(success=True, message=message)

    async def Predict(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.Reply:
        async with self._call(request, context) as server:
            kind, body = self._body(server, request, stream=False)
            answer = Answer(kind)
            with self._remembered(request, answer):
                said = await server.client.post(server.client.api(bodies.ROUTES[kind]), body)
                reply = answer.reply([said])
                end = answer.end()
        context.set_trailing_metadata(answer.trailing_metadata())
        return reply or end

    # A coroutine that writes instead of a generator: a cancelled generator is closed whenever it is
    # collected.
    async def PredictStream(  # type: ignore[override]
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> None:
        async with self._call(request, context) as server:
            kind, body = self._body(server, request, stream=True)
            answer = Answer(kind)
            url = server.client.api(bodies.ROUTES[kind])
            with self._remembered(request, answer):
                async with aclosing(server.client.stream(url, body)) as events:
                    async for chunks in events:
                        reply = answer.reply(chunks)
                        if reply is not None:
                            await context.write(reply)
                end = answer.end()
            await context.write(end)
        context.set_trailing_metadata(answer.trailing_metadata())

    async def Embedding(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.EmbeddingResult:
        async with self._call(request, context) as server:
            body = bodies.adapted(
                {
                    "model": server.model,
                    "input": list(request.EmbeddingTokens) or request.Embeddings,
                    "encoding_format": "float",
                },
                self._registration,
            )
            said = await server.client.post(server.client.api("/embeddings"), body)
            try:
                vector = said["data"][0]["embedding"]
                return backend_pb2.EmbeddingResult(
                    embeddings=vector,
                    tokens=1,
                    dim=len(vector),
                    prompt_tokens=(said.get("usage") or {}).get("prompt_tokens") or 0,
                    layout=backend_pb2.EMBEDDING_LAYOUT_FINAL,
                )
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                message = "the server does not answer with an embedding"
                raise ServerError(grpc.StatusCode.INTERNAL, message) from error

    async def TokenizeString(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.TokenizationResponse:
        async with self._call(request, context) as server:
            tokens = await server.tokenize(request.Prompt)
            return backend_pb2.TokenizationResponse(length=len(tokens), tokens=tokens)

    async def Detokenize(
        self, request: backend_pb2.DetokenizeRequest, context: Context
    ) -> backend_pb2.DetokenizeResponse:
        async with self._call(request, context) as server:
            return backend_pb2.DetokenizeResponse(content=await server.detokenize(request.tokens))

    async def Status(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.StatusResponse:
        status = backend_pb2.StatusResponse
        server = self._server
        if server is None:
            return status(state=status.UNINITIALIZED)
        busy, memory = await asyncio.gather(server.is_busy(), server.memory())
        answer = status(state=status.BUSY if busy or self._in_flight else status.READY)
        if memory:
            answer.memory.total = sum(memory.values())
            answer.memory.breakdown.update(memory)
        return answer

    async def GetMetrics(
        self, request: backend_pb2.MetricsRequest, context: Context
    ) -> backend_pb2.MetricsResponse:
        await self.require_loaded(request, context)
        prediction = await self._predictions.meant(context)
        return backend_pb2.MetricsResponse(
            slot_id=0,
            tokens_per_second=prediction.tokens_per_second,
            tokens_generated=prediction.tokens,
            prompt_tokens_processed=prediction.processed_tokens,
        )

    async def broken(self) -> None:
        await self._broken.wait()

    async def close(self) -> None:
        await self._unload(TERM_SECONDS)
        await asyncio.gather(*self._closings)

    def _body(
        self, server: Server, request: backend_pb2.PredictOptions, *, stream: bool
    ) -> tuple[Kind, dict[str, Any]]:
        try:
            return bodies.read(
                request,
                model=server.model,
                registration=self._registration,
                dialect=server.dialect,
                stream=stream,
            )
        except BodyError as error:
            raise ServerError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    @contextmanager
    def _remembered(self, request: backend_pb2.PredictOptions, answer: Answer) -> Generator[None]:
        self._predictions.latest = answer
        over = self._predictions.remember(request.CorrelationId, answer)
        try:
            yield
        finally:
            over.set()

    @asynccontextmanager
    async def _call(
        self,
        request: backend_pb2.PredictOptions | backend_pb2.DetokenizeRequest,
        context: Context,
    ) -> AsyncGenerator[Server]:
        """Call the server in the block, if the model is loaded; its errors end the call."""
        await self.require_loaded(request, context)
        server = self._server
        if server is None:
            raise AssertionError  # it goes with `loaded`
        self._in_flight += 1
        try:
            async with self._reported(context):
                yield server
        finally:
            self._in_flight -= 1

    @asynccontextmanager
    async def _reported(self, context: Context) -> AsyncGenerator[None]:
        try:
            yield
        except ServerError as error:
            await self._fail(context, error)

    async def _fail(self, context: Context, error: ServerError) -> NoReturn:
        server = self._server
        if not error.is_answer and server is not None and server.command is not None:
            # A command that ends closes its connections before it is seen to have ended.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(server.command.ended), LAST_WORDS_SECONDS)
            if server.command.is_broken:
                message = f"the server ended with {server.command.ended.result()}"
                await self.refuse(context, error.code, message)
        await self.refuse(context, error.code, error.message, retry_seconds=error.retry_seconds)

    def _on_end(self, server: Server) -> None:
        if server.command is None or not server.command.is_broken:
            return
        logger.error("the server ended with %s", server.command.ended.result())
        # Without it this program is of no use: whoever runs it starts another one.
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._broken.set)

    async def _unload(self, term_seconds: float) -> bool:
        server, self._server, self.loaded = self._server, None, None
        if server is None:
            return False
        # It goes on when the caller goes away.
        closing = asyncio.create_task(server.close(term_seconds))
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)
        await asyncio.shield(closing)
        return True
