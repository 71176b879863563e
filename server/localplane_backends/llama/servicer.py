"""The llama backend's side of the backend protocol."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import grpc

from localplane.localai import backend_pb2
from localplane_backends.backend import Backend, Context
from localplane_backends.bodies import BodyError, Kind
from localplane_backends.llama import body as bodies
from localplane_backends.llama import settings
from localplane_backends.llama.answer import Answer
from localplane_backends.llama.engine import Chunk, Engine, EngineError
from localplane_backends.predictions import Prediction, Predictions

logger = logging.getLogger(__name__)

T = TypeVar("T")

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""The engine's errors, whose numbers are HTTP's, in gRPC's. All others are INTERNAL."""


class Loaded(NamedTuple):
    """A loaded model and what it needs."""

    engine: Engine
    slots: ThreadPoolExecutor
    """As many threads as slots: what waits for a slot waits here, where cancelling it costs
    nothing."""
    folder: Path
    stops: set[threading.Event]
    """Of the calls that run, wait, or were cancelled and have not ended yet."""


class LlamaBackend(Backend):
    """Serves a language model, or a model that embeds, from a GGUF file."""

    name = "llama"

    def __init__(self) -> None:
        self._loading = asyncio.Lock()
        self._model: Loaded | None = None
        self._folders: set[Path] = set()
        self._predictions = Predictions()

    async def LoadModel(
        self, request: backend_pb2.ModelOptions, context: Context
    ) -> backend_pb2.Result:
        # A load cannot be interrupted. When the caller goes away it goes on, and is not lost.
        return await asyncio.shield(asyncio.ensure_future(self._load(request)))

    async def Free(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.Result:
        freed = await asyncio.shield(asyncio.ensure_future(self._free()))
        message = "model freed" if freed else "no model is loaded"
        return backend_pb2.Result(success=True, message=message)

    async def Predict(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.Reply:
        all_chunks: list[Chunk] = []

        async def keep(_answer: Answer, chunks: list[Chunk]) -> None:
            all_chunks.extend(chunks)

        answer = await self._predict(request, context, keep)
        reply = answer.reply(all_chunks) or backend_pb2.Reply()
        context.set_trailing_metadata(answer.trailing_metadata())
        return reply

    # A coroutine that writes instead of a generator: a cancelled generator is closed whenever it is
    # collected.
    async def PredictStream(  # type: ignore[override]
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> None:
        async def write(answer: Answer, chunks: list[Chunk]) -> None:
            reply = answer.reply(chunks)
            if reply is not None:
                await context.write(reply)

        answer = await self._predict(request, context, write)
        context.set_trailing_metadata(answer.trailing_metadata())

    async def Embedding(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.EmbeddingResult:
        model = await self._loaded_for(request, context)
        text = list(request.EmbeddingTokens) or request.Embeddings
        vector, tokens = await self._in_slot(model, context, lambda _: model.engine.embed(text))
        return backend_pb2.EmbeddingResult(
            embeddings=vector,
            tokens=1,
            dim=len(vector),
            prompt_tokens=tokens,
            layout=backend_pb2.EMBEDDING_LAYOUT_FINAL,
        )

    async def TokenizeString(
        self, request: backend_pb2.PredictOptions, context: Context
    ) -> backend_pb2.TokenizationResponse:
        model = await self._loaded_for(request, context)
        tokens = await self._aside(context, lambda: model.engine.tokenize(request.Prompt))
        return backend_pb2.TokenizationResponse(length=len(tokens), tokens=tokens)

    async def Detokenize(
        self, request: backend_pb2.DetokenizeRequest, context: Context
    ) -> backend_pb2.DetokenizeResponse:
        model = await self._loaded_for(request, context)
        text = await self._aside(context, lambda: model.engine.detokenize(list(request.tokens)))
        return backend_pb2.DetokenizeResponse(content=text)

    async def Status(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.StatusResponse:
        status = backend_pb2.StatusResponse
        model = self._model
        if model is None:
            return status(state=status.UNINITIALIZED)
        answer = status(state=status.BUSY if model.stops else status.READY)
        if model.engine.memory:
            answer.memory.total = sum(model.engine.memory.values())
            answer.memory.breakdown.update(model.engine.memory)
        return answer

    async def GetMetrics(
        self, request: backend_pb2.MetricsRequest, context: Context
    ) -> backend_pb2.MetricsResponse:
        model = await self._loaded_for(request, context)
        answer = await self._predictions.meant(context)
        slot = self._slot_of(model, answer)
        return backend_pb2.MetricsResponse(
            slot_id=await asyncio.to_thread(model.engine.latest_slot) if slot is None else slot,
            tokens_per_second=answer.tokens_per_second,
            tokens_generated=answer.tokens,
            prompt_tokens_processed=answer.processed_tokens,
        )

    async def close(self) -> None:
        for folder in list(self._folders):
            self._remove(folder)

    async def _loaded_for(
        self,
        request: backend_pb2.PredictOptions
        | backend_pb2.DetokenizeRequest
        | backend_pb2.MetricsRequest,
        context: Context,
    ) -> Loaded:
        await self.require_loaded(request, context)
        if self._model is None:
            raise AssertionError  # it goes with `loaded`
        return self._model

    async def _predict(
        self,
        request: backend_pb2.PredictOptions,
        context: Context,
        pass_on: Callable[[Answer, list[Chunk]], Awaitable[None]],
    ) -> Answer:
        """Generate and pass on the chunks.

        Those that come faster than they are taken are passed on together.
        """
        model = await self._loaded_for(request, context)
        kind, body = await self._body(model, request, context)
        answer = Answer(kind)
        over = self._predictions.remember(request.CorrelationId, answer)
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Chunk | None] = asyncio.Queue()

        def generate(stop: threading.Event) -> None:
            def take(chunk: Chunk) -> bool:
                # The engine swallows exceptions from here, so there must be none. Progress has
                # nothing to pass on: waking the loop for it would delay the first token.
                if answer.took(chunk):
                    loop.call_soon_threadsafe(queue.put_nowait, chunk)
                return stop.is_set()

            self._predictions.latest = answer
            model.engine.predict(kind, body, take)
            if stop.is_set():
                raise EngineError(503, "the model was freed")

        running = asyncio.ensure_future(self._in_slot(model, context, generate, over.set))
        running.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            chunk = await queue.get()
            while chunk is not None:
                chunks = [chunk]
                while not queue.empty() and (chunk := queue.get_nowait()) is not None:
                    chunks.append(chunk)
                await pass_on(answer, chunks)
                chunk = chunk and await queue.get()
            await running
        finally:
            running.cancel()
        return answer

    @staticmethod
    def _slot_of(model: Loaded, answer: Prediction) -> int | None:
        return answer.slot if model.engine.settings.slots > 1 else 0

    async def _body(
        self, model: Loaded, request: backend_pb2.PredictOptions, context: Context
    ) -> tuple[Kind, dict[str, Any]]:
        try:
            kind, body = bodies.read(request)
        except BodyError as error:
            await self.refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        # The engine would leave the tools out and let the model answer whatever it likes.
        must_call = body.get("tool_choice", "auto") not in {"none", "auto"}
        if must_call and not model.engine.has_tools:
            message = "the model cannot be made to call tools: its chat template has none"
            await self.refuse(context, grpc.StatusCode.INVALID_ARGUMENT, message)
        return kind, body

    async def _in_slot(
        self,
        model: Loaded,
        context: Context,
        work: Callable[[threading.Event], T],
        on_end: Callable[[], None] = lambda: None,
    ) -> T:
        """Run work when a slot is free. The work ends early once its event is set.

        ``on_end`` is called when the work is over, or was given up before it began.
        """
        stop = threading.Event()

        def run() -> T:
            if stop.is_set():
                raise EngineError(503, "the model was freed")
            return work(stop)

        def over() -> None:
            model.stops.discard(stop)
            on_end()

        def forget(_: object) -> None:
            # Only now is the slot free: a cancelled call ends when the engine comes to look.
            loop.call_soon_threadsafe(over)

        loop = asyncio.get_running_loop()
        model.stops.add(stop)
        future = model.slots.submit(run)
        future.add_done_callback(forget)
        try:
            return await asyncio.wrap_future(future)
        except EngineError as error:
            await self._fail(context, error)
        finally:
            stop.set()

    async def _aside(self, context: Context, work: Callable[[], T]) -> T:
        """Run work that needs no slot."""
        try:
            return await asyncio.to_thread(work)
        except EngineError as error:
            await self._fail(context, error)

    async def _fail(self, context: Context, error: EngineError) -> NoReturn:
        code = CODES.get(error.status, grpc.StatusCode.INTERNAL)
        await self.refuse(context, code, str(error))

    async def _load(self, request: backend_pb2.ModelOptions) -> backend_pb2.Result:
        async with self._loading:
            await self._unload()
            began = time.monotonic()
            folder = Path(tempfile.mkdtemp(prefix="localplane-llama-"))
            self._folders.add(folder)
            try:
                wanted = settings.read(request)
                engine = await asyncio.to_thread(Engine, wanted, folder)
            except (settings.SettingsError, EngineError) as error:
                self._remove(folder)
                name = request.Model or request.ModelFile
                message = f"{self.name}: cannot load {name}: {error}"
                # The engine's own log has the rest; a stack trace of ours would say nothing.
                logger.error(message)  # noqa: TRY400
                return backend_pb2.Result(success=False, message=message)
            slots = ThreadPoolExecutor(wanted.slots, thread_name_prefix="slot")
            self._model = Loaded(engine, slots, folder, set())
            self.loaded = request
            logger.info("loaded %s in %.3f s", request.Model, time.monotonic() - began)
            return backend_pb2.Result(success=True, message="model loaded")

    async def _free(self) -> bool:
        async with self._loading:
            return await self._unload()

    async def _unload(self) -> bool:
        model, self._model, self.loaded = self._model, None, None
        if model is None:
            return False
        for stop in model.stops:
            stop.set()
        await asyncio.to_thread(model.slots.shutdown)
        await asyncio.to_thread(model.engine.close)
        self._remove(model.folder)
        return True

    def _remove(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folders.discard(folder)
