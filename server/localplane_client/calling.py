"""How calls are made: a blocking way and an awaiting one. All that differs between the two clients is here."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from operator import methodcaller
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message

from localplane_client.errors import LocalplaneError, error_of
from localplane_client.streams import AnswerStream, AsyncAnswerStream
from localplane_client.target import (
    DEFAULT_TARGET,
    api_key_from,
    checked_target,
    target_from,
)

Answer = TypeVar("Answer", bound=Message)

TIMEOUT_SECONDS = 60.0
"""How long a call may take that neither loads nor generates."""

# Messages are limited by the service, not by its callers.
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_to_bytes = methodcaller("SerializeToString")


@dataclass(frozen=True, slots=True)
class Method(Generic[Answer]):
    """A method of the service."""

    path: str
    """Path of it: `/localplane.v1.BackendService/LoadModel`."""
    answer: type[Answer]
    """What it answers with, or what its stream is made of."""
    is_quick: bool
    """Whether it answers at once. Others load, generate or wait, and have no deadline of their own."""


class Caller:
    """What both kinds of callers know: where the service is, with which key and deadline it is called."""

    _channel: Any

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Name a service. Nothing is connected before the first call.

        Args:
            target: `HOST:PORT`, or `unix:PATH` for a socket file.
            api_key: Key to present. None presents none.
            timeout: Deadline of each call, in seconds. None: 60 for calls that answer at once, none for calls that
                load, generate or wait.

        Raises:
            InvalidTargetError: If the target is neither.
        """
        self.target = checked_target(target)
        """Where the service is."""
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._timeout = timeout
        self._starters: dict[str, Any] = {}
        self._channel = self._open()

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> Self:
        """Name the service that `LOCALPLANE_GRPC` and `LOCALPLANE_API_KEY` tell of, else the one on this machine."""
        told = os.environ if environment is None else environment
        return cls(target_from(told), api_key=api_key_from(told), timeout=timeout)

    def with_timeout(self, seconds: float) -> Self:
        """Return the same client, on the same connection, with another deadline for each call."""
        other = copy.copy(self)
        other._timeout = seconds  # noqa: SLF001 - it is one of this class
        return other

    def _open(self) -> Any:
        raise NotImplementedError

    def _start(self, method: Method[Any], request: Message, kind: str) -> Any:
        start = self._starters.get(method.path)
        if start is None:
            start = self._starters[method.path] = getattr(self._channel, kind)(
                method.path,
                request_serializer=_to_bytes,
                response_deserializer=method.answer.FromString,
            )
        timeout = self._timeout
        if timeout is None and method.is_quick:
            timeout = TIMEOUT_SECONDS
        return start(request, timeout=timeout, metadata=self._metadata)

    def _explain(self, error: grpc.RpcError, method: Method[Any]) -> LocalplaneError:
        return error_of(error, target=self.target, method=method.path)


class BlockingCaller(Caller):
    """Calls and waits. Threads may share it."""

    def unary(self, method: Method[Answer], request: Message) -> Answer:
        """Call a method that answers once.

        Raises:
            LocalplaneError: If it fails.
        """
        try:
            answer: Answer = self._start(method, request, "unary_unary")
        except grpc.RpcError as error:
            raise self._explain(error, method) from error
        return answer

    def stream(self, method: Method[Answer], request: Message) -> AnswerStream[Answer]:
        """Call a method that answers piece by piece."""
        call = self._start(method, request, "unary_stream")
        return AnswerStream(call, lambda error: self._explain(error, method))

    def close(self) -> None:
        """End the connection, and with it the calls in flight."""
        self._channel.close()

    def _open(self) -> grpc.Channel:
        return grpc.insecure_channel(self.target, options=_OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncCaller(Caller):
    """Calls and lets others run meanwhile. It belongs to the event loop that it was made in."""

    async def unary(self, method: Method[Answer], request: Message) -> Answer:
        """Call a method that answers once.

        Raises:
            LocalplaneError: If it fails.
        """
        try:
            answer: Answer = await self._start(method, request, "unary_unary")
        except grpc.RpcError as error:
            raise self._explain(error, method) from error
        return answer

    def stream(self, method: Method[Answer], request: Message) -> AsyncAnswerStream[Answer]:
        """Call a method that answers piece by piece."""
        call = self._start(method, request, "unary_stream")
        return AsyncAnswerStream(call, lambda error: self._explain(error, method))

    async def close(self) -> None:
        """End the connection, and with it the calls in flight."""
        await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        asyncio.get_running_loop()  # else gRPC would bind the channel to a loop that never runs
        return grpc.aio.insecure_channel(self.target, options=_OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
