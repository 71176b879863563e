"""The client of the backend protocol. The domain knows no other way to a backend."""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any, NamedTuple, TypeVar

import grpc

from localplane.localai import backend_pb2, backend_pb2_grpc
from localplane_server import errors
from localplane_server.supervision.backend_requests import model_options, predict_options
from localplane_server.supervision.calls import (
    Answer,
    CallTokens,
    FinishReason,
    LoadOptions,
    Memory,
    Piece,
    Prediction,
    Report,
    ReportedState,
    SlotMetrics,
    ToolCallPiece,
    Vector,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_MESSAGE_BYTES = 50 * 1024 * 1024
"""LocalAI's limit, which its backends have too."""
KNOCK_SECONDS = 0.005
"""Pause before it is tried again whether somebody listens, at first. gRPC itself waits a tenth of a second."""
LONGEST_KNOCK_SECONDS = 0.1
"""What the pause grows to: a program that imports for a minute is not to be asked a thousand times."""
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # An error's message is a header, and some backends quote all that they could not read.
    ("grpc.max_metadata_size", MAX_MESSAGE_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A new backend must not inherit the back-off of the one that had its port.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy of the environment is for the outside world.
    ("grpc.enable_http_proxy", 0),
    # A connection that ends without a word is a backend that ended, so none may end because nobody called.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
)
LONGEST_QUOTE = 100
"""Bytes of an answer that an error repeats."""
FINISH_REASON = "x-finish-reason"
"""Trailing metadata of our own backends. LocalAI's backends do not say why an answer ended."""
SLOT = "x-slot-id"
PROMPT_TOKENS_PROCESSED = "x-prompt-tokens-processed"
PROMPT_TOKENS = "x-prompt-tokens"
RETRY_AFTER = "x-retry-after"
"""Trailing metadata of errors: seconds after which the call may come again. Says that the backend itself is well."""
LONGEST_RETRY_SECONDS = 3600.0
CORRELATION_ID = "x-correlation-id"
"""With `GetMetrics`, names the prediction to tell of; a backend that understands it sends it back at the end."""
FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
}
STATES: dict[int, ReportedState] = {
    backend_pb2.StatusResponse.UNINITIALIZED: "uninitialized",
    backend_pb2.StatusResponse.BUSY: "busy",
    backend_pb2.StatusResponse.READY: "ready",
    backend_pb2.StatusResponse.ERROR: "error",
}


class BackendClient:
    """Calls one backend. Cancelling the task of a call cancels the call.

    Any call may raise `BackendGoneError`, `NotSupportedByBackendError`, `InvalidArgumentError`,
    `OverdueError` or `BackendFailedError`.
    """

    def __init__(self, address: str, *, token: str, model: str) -> None:
        """Connect on first use.

        Args:
            address: `HOST:PORT` or `unix:PATH`.
            token: What the backend was given to know its owner by. Empty for none.
            model: Name of the model, for the messages of errors.
        """
        self._address = address
        self._model = model
        self._identity = ""
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel, self._opened_stub = self._connect()
        self._is_connected = False
        self._is_closed = False

    async def health(self, timeout_seconds: float) -> bool:
        """Return whether the backend answers, waiting for it as long as the time allows."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                if not self._is_connected:
                    await self._knock()
                reply = await self._stub.Health(
                    backend_pb2.HealthMessage(), metadata=self._metadata, wait_for_ready=True
                )
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            logger.debug("%s is not healthy: %s", self._address, error)
            return False
        except asyncio.CancelledError as error:
            if self._cancelled(error) is error:
                raise
            return False
        self._is_connected = True
        return reply.message == b"OK"

    async def check(self, timeout_seconds: float) -> None:
        """Ask once whether the backend is well.

        Raises:
            LocalplaneError: If it does not answer, or not with `OK`: whatever listens there may be anything.
        """
        call = self._stub.Health(
            backend_pb2.HealthMessage(), timeout=timeout_seconds, metadata=self._metadata
        )
        reply = await self._call("answer Health", call)
        if reply.message != b"OK":
            text = reply.message[:LONGEST_QUOTE].decode("utf-8", "replace")
            message = f"the backend of {self._model} answers {text!r} and not OK to Health"
            raise errors.BackendFailedError(message, model=self._model)
        self._is_connected = True

    async def disconnected(self) -> None:
        """Return once the connection, over which a call was answered before, is lost or closed."""
        channel = self._channel
        # Cancelling this leaves the wait to the channel until that is closed: wait with `asyncio.wait` and a limit.
        while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)

    async def load(self, options: LoadOptions) -> None:
        """Load the model. Takes as long as it takes: whoever calls has the deadline.

        Raises:
            LoadFailedError: If the backend says so, with its reason.
        """
        request = model_options(options)
        try:
            result = await self._call(
                "load", self._stub.LoadModel(request, metadata=self._metadata)
            )
        except (errors.BackendFailedError, errors.InvalidArgumentError) as error:
            raise errors.LoadFailedError(error.message, model=self._model) from error
        if not result.success:
            message = result.message or "the backend does not say why"
            raise errors.LoadFailedError(message, model=self._model)
        self._identity = options.model

    async def predict(self, prediction: Prediction) -> Answer:
        """Return the whole continuation."""
        request = predict_options(prediction, self._identity)
        call = self._stub.Predict(request, metadata=self._metadata)
        reply = await self._call("predict", call)
        text = reply.message.decode("utf-8", "replace")
        calls = _merged(call for delta in reply.chat_deltas for call in delta.tool_calls)
        end = await _end(call)
        return Answer(
            text=text,
            content=_content(reply, text),
            reasoning="".join(delta.reasoning_content for delta in reply.chat_deltas),
            tool_calls=calls,
            tokens=reply.tokens,
            prompt_tokens=reply.prompt_tokens,
            prompt_ms=reply.timing_prompt_processing,
            generation_ms=reply.timing_token_generation,
            finish_reason=end.finish_reason
            or _guess(prediction, reply.tokens, has_calls=bool(calls)),
            slot=end.slot,
            prompt_tokens_processed=end.prompt_tokens_processed,
        )

    async def predict_stream(self, prediction: Prediction) -> AsyncGenerator[Piece]:
        """Yield the continuation piece by piece.

        The last piece, whose text may be empty, has the counts, the timings and the finish reason.
        Close the iterator to cancel the call.
        """
        request = predict_options(prediction, self._identity)
        call = self._stub.PredictStream(request, metadata=self._metadata)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        last = backend_pb2.Reply()
        has_calls = False
        try:
            async for reply in call:
                last = reply
                text = decoder.decode(reply.message)
                if not (text or reply.chat_deltas):
                    continue
                piece = _piece(reply, text)
                has_calls = has_calls or bool(piece.tool_calls)
                yield piece
            end = await _end(call)
        except grpc.aio.AioRpcError as error:
            raise self._translated("predict", error) from error
        except asyncio.CancelledError as error:
            raise self._cancelled(error) from error
        finally:
            call.cancel()
        tail = decoder.decode(b"", final=True)
        yield Piece(
            text=tail,
            content=tail,
            tokens=last.tokens,
            prompt_tokens=last.prompt_tokens,
            prompt_ms=last.timing_prompt_processing,
            generation_ms=last.timing_token_generation,
            finish_reason=end.finish_reason or _guess(prediction, last.tokens, has_calls=has_calls),
            slot=end.slot,
            prompt_tokens_processed=end.prompt_tokens_processed,
        )

    async def embed(self, text: str) -> Vector:
        """Return the embedding of a text."""
        request = backend_pb2.PredictOptions(Embeddings=text, ModelIdentity=self._identity)
        result = await self._call("embed", self._stub.Embedding(request, metadata=self._metadata))
        return Vector(result.embeddings, result.prompt_tokens)

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        request = backend_pb2.PredictOptions(Prompt=text, ModelIdentity=self._identity)
        call = self._stub.TokenizeString(request, metadata=self._metadata)
        return list((await self._call("tokenize", call)).tokens)

    async def detokenize(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens."""
        request = backend_pb2.DetokenizeRequest(tokens=tokens)
        call = self._stub.Detokenize(request, metadata=self._metadata)
        return (await self._call("detokenize", call)).content

    async def status(self, timeout_seconds: float) -> Report:
        """Return what the backend says of itself."""
        call = self._stub.Status(
            backend_pb2.HealthMessage(), timeout=timeout_seconds, metadata=self._metadata
        )
        answer = await self._call("report the status", call)
        memory = None
        if answer.HasField("memory"):
            parts = dict(answer.memory.breakdown)
            memory = Memory(max(answer.memory.total, sum(parts.values())), parts)
        return Report(STATES.get(answer.state), memory)

    async def metrics(self, timeout_seconds: float) -> SlotMetrics:
        """Return the tokens of the slot that was active most recently."""
        call = self._stub.GetMetrics(
            backend_pb2.MetricsRequest(), timeout=timeout_seconds, metadata=self._metadata
        )
        answer = await self._call("report token metrics", call)
        return SlotMetrics(
            slot_id=answer.slot_id,
            prompt_json=answer.prompt_json_for_slot,
            tokens_per_second=answer.tokens_per_second,
            tokens_generated=answer.tokens_generated,
            prompt_tokens_processed=answer.prompt_tokens_processed,
        )

    async def call_tokens(self, correlation_id: str, timeout_seconds: float) -> CallTokens | None:
        """Return the tokens of a prediction once it has ended; None if the backend does not know it any more.

        Only our own backends tell of one prediction; of others, None is returned.
        """
        call = self._stub.GetMetrics(
            backend_pb2.MetricsRequest(),
            timeout=timeout_seconds,
            metadata=(*self._metadata, (CORRELATION_ID, correlation_id)),
        )
        answer = await self._call("report token metrics", call)
        said = await _trailing(call)
        if said.get(CORRELATION_ID) != correlation_id:
            return None
        return CallTokens(
            slot=answer.slot_id,
            tokens=answer.tokens_generated,
            prompt_tokens=_number(said, PROMPT_TOKENS) or answer.prompt_tokens_processed,
            prompt_tokens_processed=answer.prompt_tokens_processed,
        )

    async def free(self, timeout_seconds: float) -> None:
        """Free the model's memory, ahead of a stop."""
        call = self._stub.Free(
            backend_pb2.HealthMessage(), timeout=timeout_seconds, metadata=self._metadata
        )
        result = await self._call("free", call)
        if not result.success:
            raise errors.BackendFailedError(result.message, model=self._model)

    async def cut_calls(self) -> None:
        """End the calls in flight: each gets `BackendGoneError`. Other calls can follow."""
        channel, (self._channel, self._opened_stub) = self._channel, self._connect()
        await channel.close()

    def _connect(self) -> tuple[grpc.aio.Channel, backend_pb2_grpc.BackendAsyncStub]:
        channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        return channel, backend_pb2_grpc.BackendStub(channel)

    async def close(self) -> None:
        """Close the connection. Calls in flight are cancelled."""
        self._is_closed = True
        await self._channel.close()

    @property
    def _stub(self) -> backend_pb2_grpc.BackendAsyncStub:
        # Whoever kept the client may call after the backend was stopped.
        if self._is_closed:
            message = f"the backend of {self._model} is gone: it was stopped"
            raise errors.BackendGoneError(message, model=self._model)
        return self._opened_stub

    async def _knock(self) -> None:
        """Return once somebody listens."""
        pause = KNOCK_SECONDS
        while True:
            try:
                if self._address.startswith("unix:"):
                    path = self._address.removeprefix("unix:")
                    _, writer = await asyncio.open_unix_connection(path)
                else:
                    host, _, port = self._address.rpartition(":")
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except OSError:
                await asyncio.sleep(pause)
                pause = min(pause * 1.02, LONGEST_KNOCK_SECONDS)
            else:
                writer.close()
                return

    async def _call(self, operation: str, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._translated(operation, error) from error
        except asyncio.CancelledError as error:
            raise self._cancelled(error) from error

    def _cancelled(self, error: asyncio.CancelledError) -> BaseException:
        """Tell a caller that was cancelled from a call that was: closing the channel does that."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return error
        message = f"the backend of {self._model} is gone: its connection was closed"
        return errors.BackendGoneError(message, model=self._model)

    def _translated(self, operation: str, error: grpc.aio.AioRpcError) -> errors.LocalplaneError:
        text = error.details() or error.code().name
        retry_seconds = _retry_seconds(error)
        match error.code():
            case grpc.StatusCode.UNAVAILABLE if retry_seconds is not None:
                return errors.BackendUnavailableError(
                    text, retry_after_seconds=retry_seconds, model=self._model
                )
            case grpc.StatusCode.RESOURCE_EXHAUSTED if retry_seconds is not None:
                return errors.TooManyRequestsError(
                    text, retry_after_seconds=retry_seconds, model=self._model
                )
            case grpc.StatusCode.UNIMPLEMENTED:
                return errors.NotSupportedByBackendError(operation, self._model)
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                # A task that is cancelled here raises CancelledError: this is the backend's doing.
                message = f"the backend of {self._model} is gone: {text}"
                return errors.BackendGoneError(message, model=self._model)
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"the backend of {self._model} did not {operation} in time"
                return errors.OverdueError(message, model=self._model)
            case grpc.StatusCode.INVALID_ARGUMENT:
                return errors.InvalidArgumentError(text, model=self._model)
            case _:
                return errors.BackendFailedError(text, model=self._model)


def _piece(reply: backend_pb2.Reply, text: str) -> Piece:
    return Piece(
        text=text,
        content=_content(reply, text),
        reasoning="".join(delta.reasoning_content for delta in reply.chat_deltas),
        tool_calls=tuple(
            ToolCallPiece(index=call.index, id=call.id, name=call.name, arguments=call.arguments)
            for delta in reply.chat_deltas
            for call in delta.tool_calls
        ),
        tokens=reply.tokens,
        prompt_tokens=reply.prompt_tokens,
        prompt_ms=reply.timing_prompt_processing,
        generation_ms=reply.timing_token_generation,
    )


def _content(reply: backend_pb2.Reply, text: str) -> str:
    return "".join(delta.content for delta in reply.chat_deltas) if reply.chat_deltas else text


def _merged(pieces: Iterable[backend_pb2.ToolCallDelta]) -> tuple[ToolCallPiece, ...]:
    whole: dict[int, ToolCallPiece] = {}
    for piece in pieces:
        begun = whole.get(piece.index, ToolCallPiece(index=piece.index))
        whole[piece.index] = ToolCallPiece(
            index=piece.index,
            id=begun.id or piece.id,
            name=begun.name or piece.name,
            arguments=begun.arguments + piece.arguments,
        )
    return tuple(whole[index] for index in sorted(whole))


class _End(NamedTuple):
    """What a backend says at the end of a prediction, beyond the protocol."""

    finish_reason: FinishReason | None
    slot: int | None
    prompt_tokens_processed: int | None


async def _end(call: Any) -> _End:
    said = await _trailing(call)
    return _End(
        FINISH_REASONS.get(said.get(FINISH_REASON, "")),
        _number(said, SLOT),
        _number(said, PROMPT_TOKENS_PROCESSED),
    )


async def _trailing(call: Any) -> dict[str, str]:
    return {key: value for key, value in await call.trailing_metadata() if isinstance(value, str)}


def _retry_seconds(error: grpc.aio.AioRpcError) -> float | None:
    """Return when a backend wants the call again, or None when it does not say so."""
    said = dict(error.trailing_metadata() or ()).get(RETRY_AFTER)
    try:
        seconds = float(said) if isinstance(said, str) else -1.0
    except ValueError:
        return None
    # The comparison is false for "nan" too.
    return min(seconds, LONGEST_RETRY_SECONDS) if seconds >= 0 else None


def _number(said: dict[str, str], key: str) -> int | None:
    text = said.get(key, "")
    # Whatever is none of our backends may say anything.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004 - int32


def _guess(prediction: Prediction, tokens: int, *, has_calls: bool) -> FinishReason:
    if has_calls:
        return "tool_calls"
    if prediction.max_tokens and tokens >= prediction.max_tokens:
        return "length"
    return "stop"
