"""What every call passes through: request id, access, deadline, errors, and the note that it ended.

One interceptor does all of it, and wraps each method once: an interceptor object for each concern, and a new wrapper
for each call, cost a third of a small call. The in-process channel wraps its methods with the same code.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError

from localplane.v1 import options_pb2
from localplane_server import events
from localplane_server.deadlines import set_deadline
from localplane_server.errors import InvalidArgumentError, LocalplaneError, OverdueError
from localplane_server.rpc.access import ACCESS, Keys, Role
from localplane_server.rpc.status import INTERNAL, code_of, internal_status, status_of

log = logging.getLogger(__name__)

OPEN_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""Services of the gRPC project. Probes and tools expect that anybody may call them; they look after themselves."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Random once: each look at the system's random numbers has gRPC's thread take over the interpreter.
_PROCESS_ID = secrets.token_hex(6)
_numbers = itertools.count(1)

# The stubs of grpc describe only the blocking kind of handlers.
Handler = Any
Unary = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any], AsyncGenerator[Any]]

_STARTED = events.CallStarted()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of a server.

    Args:
        keys: The keys that callers may present.
        bus: Is told of calls.
        public: Full names of methods that need no key although they are not declared so.
    """

    def __init__(
        self, keys: Keys, bus: events.Events, *, public: Collection[str] = frozenset()
    ) -> None:
        self._keys = keys
        self._public = public
        self._events = bus
        self._handlers: dict[str, Handler] = {}
        self._open_calls: set[asyncio.Task[Any]] = set()

    async def end_open_calls(self, seconds: float) -> None:
        """End the calls that have no end of their own: who watches would hold up a stop for ever.

        Args:
            seconds: How long they may still take to send what they have to say.
        """
        if self._open_calls:
            await asyncio.wait(self._open_calls, timeout=seconds)
        for task in self._open_calls:
            task.cancel()

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the wrapped handler of the method called, or None when there is no such method."""
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            bare = await continuation(handler_call_details)
            if bare is None:
                self._events.emit(_unknown_method())
                return None
            handler = self._handlers[method] = self._wired(method, bare)
        return handler

    def _wired(self, method: str, bare: Handler) -> Handler:
        """Return the handler as the wire wants it: a coroutine that writes, not a generator that yields.

        The library drops the generator of a call that is cancelled, and nobody knows when it is closed; a coroutine is
        cancelled where it waits, while the call is still there.
        """
        if _service_of(method) in OPEN_SERVICES:
            return self._open(bare)
        handler = self.wrap(method, bare)
        if not handler.response_streaming:
            return handler
        stream = handler.unary_stream
        if _can_go_on(method):
            return handler._replace(unary_stream=self._noted(stream))

        async def write(request: Any, context: Any) -> None:
            async with aclosing(stream(request, context)) as messages:
                async for message in messages:
                    await context.write(message)

        return handler._replace(unary_stream=write)

    def _open(self, bare: Handler) -> Handler:
        """Return the handler of an open service, so that its streams can be ended."""
        if bare.unary_stream:
            return bare._replace(unary_stream=self._noted(bare.unary_stream))
        if bare.stream_stream:
            return bare._replace(stream_stream=self._noted(bare.stream_stream))
        return bare

    def _noted(self, behaviour: Any) -> Any:
        """Return a stream whose calls can be ended."""

        async def call(request: Any, context: Any) -> None:
            task = asyncio.current_task()
            if task is None:
                raise RuntimeError(behaviour)
            self._open_calls.add(task)
            try:
                outcome = behaviour(request, context)
                if inspect.isawaitable(outcome):
                    await outcome
                    return
                async with aclosing(outcome) as messages:
                    async for message in messages:
                        await context.write(message)
            finally:
                self._open_calls.discard(task)

        return call

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Return the handler with everything around it that a call passes through."""
        service = descriptor_pool.Default().FindServiceByName(_service_of(method))
        descriptor = service.methods_by_name[method.rpartition("/")[2]]
        declared = ACCESS[descriptor.GetOptions().Extensions[options_pb2.access]]
        role = None if method in self._public else declared
        read = _reading(handler.request_deserializer, descriptor.input_type.full_name)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, role, handler.unary_stream),
                request_deserializer=read,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, role, handler.unary_unary),
            request_deserializer=read,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, role: Role | None, behaviour: Unary) -> Unary:
        async def call(request: Any, context: Any) -> Any:
            note = _Note(self._events, method, context)
            try:
                self._keys.check(note.authorization, role)
                if isinstance(request, LocalplaneError):
                    raise request
                remaining = context.time_remaining()
                set_deadline(remaining)
                if remaining is None:
                    return await behaviour(request, context)
                async with asyncio.timeout(remaining):
                    return await behaviour(request, context)
            except BaseException as error:
                await note.failed(error)
                raise
            finally:
                note.emit()

        return call

    def _stream(self, method: str, role: Role | None, behaviour: Stream) -> Stream:
        async def call(request: Any, context: Any) -> AsyncGenerator[Any]:
            note = _Note(self._events, method, context)
            try:
                self._keys.check(note.authorization, role)
                if isinstance(request, LocalplaneError):
                    raise request
                set_deadline(context.time_remaining())
                # No timeout here: it would fire inside whatever the reader does between two messages. The library
                # itself ends an overdue stream, and the in-process channel does so where it reads.
                async with aclosing(behaviour(request, context)) as messages:
                    async for message in messages:
                        yield message
            except BaseException as error:
                await note.failed(error)
                raise
            finally:
                note.emit()

        return call


def _reading(deserialize: Callable[[bytes], Any], name: str) -> Callable[[bytes], Any]:
    """Return what reads a request, and gives the error in its place when the bytes are none.

    If it raised, the library would answer UNKNOWN with the name of a class of ours, and log a trace of the stack.
    """

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return InvalidArgumentError(f"cannot read the request: these bytes are no {name}")

    return read


def _unknown_method() -> events.CallFinished:
    # Its name is not told: callers choose it, and it may be anything.
    return events.CallFinished(
        method="",
        code=grpc.StatusCode.UNIMPLEMENTED.name,
        reason="",
        seconds=0.0,
        request_id="",
        peer="",
    )


class _Note:
    """What is said of one call when it has ended."""

    __slots__ = (
        "_began",
        "_bus",
        "_context",
        "_method",
        "_peer",
        "_request_id",
        "authorization",
        "code",
        "reason",
    )

    def __init__(self, bus: events.Events, method: str, context: Any) -> None:
        self._began = time.perf_counter()
        self._bus = bus
        self._method = method
        self._context = context
        # Asked now: the library crashes the process when it is asked about a call whose connection is gone.
        self._peer = context.peer()
        self.authorization: str | None = None
        self.code = "OK"
        self.reason = ""
        request_id = ""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                self.authorization = value
            elif key == "x-request-id":
                request_id = value
        if not (request_id and _REQUEST_ID.fullmatch(request_id)):
            request_id = f"{_PROCESS_ID}-{next(_numbers):x}"
        self._request_id = request_id
        context.set_trailing_metadata((("x-request-id", request_id),))
        bus.emit(_STARTED)

    async def failed(self, error: BaseException) -> None:
        """End the call with the status of the error. Returns only where the error speaks for itself."""
        context = self._context
        if isinstance(error, TimeoutError):
            error = OverdueError("the deadline of the call has passed")
        if isinstance(error, LocalplaneError):
            self.code, self.reason = code_of(error).name, error.reason
            await self._abort(status_of(error))
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            remaining = context.time_remaining()
            is_overdue = remaining is not None and remaining <= 0
            self.code = self.reason = "DEADLINE_EXCEEDED" if is_overdue else "CANCELLED"
        elif isinstance(error, grpc.aio.AbortError):
            self.code = (
                context.code().name if isinstance(context.code(), grpc.StatusCode) else "UNKNOWN"
            )
        elif isinstance(error, Exception):
            log.error(INTERNAL, exc_info=error, extra={"request_id": self._request_id})
            self.code, self.reason = "INTERNAL", "INTERNAL"
            await self._abort(internal_status())

    async def _abort(self, status: grpc.Status) -> None:
        trailing = (*status.trailing_metadata, ("x-request-id", self._request_id))
        await self._context.abort(status.code, status.details, trailing)

    def emit(self) -> None:
        """Tell the listeners that the call has ended."""
        self._bus.emit(
            events.CallFinished(
                method=self._method,
                code=self.code,
                reason=self.reason,
                seconds=time.perf_counter() - self._began,
                request_id=self._request_id,
                peer=self._peer,
            )
        )


def _can_go_on(method: str) -> bool:
    """Whether a stream can be taken up again where it was cut, so that no stop need wait for it."""
    found = descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
    return any(
        field.GetOptions().Extensions[options_pb2.event_id] for field in found.output_type.fields
    )


def _service_of(method: str) -> str:
    return method.removeprefix("/").partition("/")[0]
