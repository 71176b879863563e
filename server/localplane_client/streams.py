"""Answers that come piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from localplane_client.errors import LocalplaneError

Answer = TypeVar("Answer")
Explain = Callable[[grpc.RpcError], LocalplaneError]


class AnswerStream(Generic[Answer]):
    """Iterates over the pieces of an answer. Leaving its context cancels what is still to come."""

    def __init__(self, call: Any, explain: Explain) -> None:
        self._call = call
        self._explain = explain
        self._is_cancelled = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Answer:
        """Return the next piece.

        Raises:
            LocalplaneError: If the call fails.
        """
        try:
            piece: Answer = next(self._call)
        except grpc.RpcError as error:
            if self._is_cancelled:
                raise StopIteration from None
            raise self._explain(error) from error
        return piece

    def cancel(self) -> None:
        """End the call: the service stops generating, and the iteration ends. Another thread may do this."""
        self._is_cancelled = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


class AsyncAnswerStream(Generic[Answer]):
    """Iterates over the pieces of an answer. Leaving its context cancels what is still to come."""

    def __init__(self, call: Any, explain: Explain) -> None:
        self._call = call
        self._explain = explain
        self._is_cancelled = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer:
        """Return the next piece.

        Raises:
            LocalplaneError: If the call fails.
        """
        try:
            piece = await self._call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            # Either the call was cancelled here, or whoever reads it was.
            if self._is_cancelled and task is not None and not task.cancelling():
                raise StopAsyncIteration from None
            raise
        except grpc.RpcError as error:
            raise self._explain(error) from error
        if piece is grpc.aio.EOF:
            raise StopAsyncIteration
        answer: Answer = piece
        return answer

    def cancel(self) -> None:
        """End the call: the service stops generating, and the iteration ends."""
        self._is_cancelled = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
