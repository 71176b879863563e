"""A gRPC channel without the wire: calls reach the servicers of this process through the same interceptor.

It has the part of `grpc.aio.Channel` that the gateway uses: unary and server-streaming calls with metadata, deadlines,
cancellation, initial and trailing metadata and status codes. Messages are handed over as they are, so neither side may
keep or change them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any, NoReturn

import grpc
from grpc.aio import AbortError, AioRpcError, Metadata

from localplane_server.rpc.interceptors import CallInterceptor, Handler

MetadataLike = Sequence[tuple[str, Any]]


class InProcessChannel:
    """Calls the servicers that were added to it. `add_*Servicer_to_server` takes it for a server."""

    def __init__(self, interceptor: CallInterceptor) -> None:
        self._interceptor = interceptor
        self._handlers: dict[str, Handler] = {}

    # The part of a server that generated code uses

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Do nothing: the same handlers come through `add_registered_method_handlers`."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Take the methods of a servicer."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._handlers[method] = self._interceptor.wrap(method, handler)

    # The part of a channel that generated stubs and the gateway use

    def unary_unary(
        self, method: str, *_serializers: object, **_options: object
    ) -> Callable[..., UnaryCall]:
        """Return what calls a unary method; serializers are not needed."""
        handler = self._handlers.get(method)

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: MetadataLike | None = None,
            **_: Any,
        ) -> UnaryCall:
            return UnaryCall(
                handler.unary_unary if handler else _unimplemented, request, timeout, metadata
            )

        return call

    def unary_stream(
        self, method: str, *_serializers: object, **_options: object
    ) -> Callable[..., StreamCall]:
        """Return what calls a server-streaming method; serializers are not needed."""
        handler = self._handlers.get(method)

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: MetadataLike | None = None,
            **_: Any,
        ) -> StreamCall:
            behaviour = handler.unary_stream if handler else _unimplemented_stream
            return StreamCall(behaviour, request, timeout, metadata)

        return call


class InProcessContext:
    """The servicer's side of a call: the part of `grpc.aio.ServicerContext` that makes sense without a wire."""

    def __init__(self, metadata: MetadataLike | None, timeout: float | None) -> None:
        self._metadata = tuple(metadata or ())
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self.initial: MetadataLike = ()
        self.trailing: MetadataLike = ()
        self._code: grpc.StatusCode | None = None
        self._details = ""

    def invocation_metadata(self) -> MetadataLike:
        """Return the metadata that the caller sent."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, or None when there is none."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def peer(self) -> str:
        """Return who calls."""
        return "inprocess"

    async def send_initial_metadata(self, metadata: MetadataLike) -> None:
        """Send metadata ahead of the answer."""
        self.initial = metadata

    def set_trailing_metadata(self, metadata: MetadataLike) -> None:
        """Send metadata behind the answer."""
        self.trailing = metadata

    def trailing_metadata(self) -> MetadataLike:
        """Return the metadata that goes behind the answer."""
        return self.trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code of the call."""
        self._code = code

    def code(self) -> grpc.StatusCode | None:
        """Return the status code that was set."""
        return self._code

    def set_details(self, details: str) -> None:
        """Set the message of the status."""
        self._details = details

    def details(self) -> str:
        """Return the message of the status."""
        return self._details

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: MetadataLike = ()
    ) -> NoReturn:
        """End the call with this status."""
        self._code, self._details = code, details
        self.trailing = trailing_metadata
        raise AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with this status."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def status_error(self, code: grpc.StatusCode | None = None, details: str = "") -> AioRpcError:
        """Return the status of the call as the error that a caller gets."""
        return AioRpcError(
            code or self._code or grpc.StatusCode.UNKNOWN,
            Metadata(*self.initial),
            Metadata(*self.trailing),
            details or self._details,
        )


class _Call:
    """What both kinds of calls have."""

    def __init__(self, timeout: float | None, metadata: MetadataLike | None) -> None:
        self._context = InProcessContext(metadata, timeout)
        self._task: asyncio.Task[Any] | None = None
        self._code: grpc.StatusCode | None = None
        self._is_cancelled = False

    def cancel(self) -> bool:
        """Cancel the call; what waits for it gets `asyncio.CancelledError`."""
        if self._code is not None:
            return False
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()
        return True

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._code is not None

    async def initial_metadata(self) -> Metadata:
        """Return the metadata that came ahead of the answer."""
        return Metadata(*self._context.initial)

    async def trailing_metadata(self) -> Metadata:
        """Return the metadata that came behind the answer."""
        return Metadata(*self._context.trailing)

    async def code(self) -> grpc.StatusCode:
        """Return the status code; UNKNOWN while the call goes on."""
        return self._code or grpc.StatusCode.UNKNOWN

    async def details(self) -> str:
        """Return the message of the status."""
        return self._context.details()

    def _ended(self, error: BaseException) -> BaseException:
        """Note how the call ended and return the error that the caller gets."""
        if isinstance(error, AbortError):
            failed = self._context.status_error()
            self._code = failed.code()
            return failed
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._code = grpc.StatusCode.CANCELLED
            return error
        # The interceptor turns every other error into a status; this is one of its own.
        self._code = grpc.StatusCode.UNKNOWN
        return error


class UnaryCall(_Call):
    """A unary call. It runs in the task that awaits it."""

    def __init__(
        self, behaviour: Any, request: Any, timeout: float | None, metadata: MetadataLike | None
    ) -> None:
        super().__init__(timeout, metadata)
        self._behaviour = behaviour
        self._request = request

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run().__await__()

    async def _run(self) -> Any:
        if self._is_cancelled:
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        try:
            response = await self._behaviour(self._request, self._context)
        except BaseException as error:  # noqa: BLE001 - it is raised again, as the caller's error
            raise self._ended(error) from None
        self._code = grpc.StatusCode.OK
        return response


class StreamCall(_Call):
    """A server-streaming call. The servicer advances only as the caller reads."""

    def __init__(
        self, behaviour: Any, request: Any, timeout: float | None, metadata: MetadataLike | None
    ) -> None:
        super().__init__(timeout, metadata)
        self._messages = behaviour(request, self._context)
        self._closing: asyncio.Task[None] | None = None

    def cancel(self) -> bool:
        """Cancel the call; what waits for a message gets `asyncio.CancelledError`."""
        was_reading = self._task is not None
        if not super().cancel():
            return False
        if not was_reading and self._closing is None:
            # Nobody is inside the servicer who could be interrupted: it is told where it waits.
            self._closing = asyncio.get_running_loop().create_task(self._messages.aclose())
        return True

    def __aiter__(self) -> AsyncGenerator[Any]:
        return self._iterate()

    async def read(self) -> Any:
        """Return the next message, or `grpc.aio.EOF` after the last."""
        if self._is_cancelled:
            self._code = grpc.StatusCode.CANCELLED
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        try:
            async with asyncio.timeout(self._context.time_remaining()):
                return await anext(self._messages)
        except TimeoutError:
            self._code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise self._context.status_error(self._code, "Deadline Exceeded") from None
        except StopAsyncIteration:
            self._code = grpc.StatusCode.OK
            return grpc.aio.EOF
        except BaseException as error:  # noqa: BLE001 - it is raised again, as the caller's error
            raise self._ended(error) from None
        finally:
            self._task = None

    async def _iterate(self) -> AsyncGenerator[Any]:
        try:
            while (message := await self.read()) is not grpc.aio.EOF:
                yield message
        finally:
            # A caller that stops reading has gone away: the servicer must hear of it now, not when memory is swept.
            await self._messages.aclose()


async def _unimplemented(_request: Any, context: InProcessContext) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


async def _unimplemented_stream(_request: Any, context: InProcessContext) -> AsyncGenerator[Any]:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    yield
