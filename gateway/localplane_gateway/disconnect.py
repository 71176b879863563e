"""Notices that a client has gone while its request is being worked on."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from types import TracebackType
from typing import Any, TypeVar

from starlette.types import Receive

from localplane_gateway.errors import ClientGoneError

T = TypeVar("T")

# Most calls are over by then, and a task for each of them would cost more than the calls.
_WATCH_AFTER_SECONDS = 0.02


@types.coroutine
def unless_gone(work: Awaitable[T], receive: Receive) -> Generator[Any, Any, T]:
    """Await something; end it when the client closes the connection, as `DisconnectWatch` does.

    What is over without having waited for anything is never watched: most calls within a process
    are, and even a timer costs as much as half of such a call.

    Raises:
        ClientGoneError: If the client has gone.
    """
    steps = work.__await__()
    try:
        awaited = next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    with DisconnectWatch(receive):
        while True:
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - the work must have it, whatever it is
                try:
                    awaited = steps.throw(error)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
            else:
                return (yield from steps)


class DisconnectWatch:
    """Ends what happens in its context when the client closes the connection.

    It cancels the current task, and the context turns that cancellation, and no other, into
    `ClientGoneError`. The body must have been read before.

    Args:
        receive: The request's.
    """

    __slots__ = ("_has_gone", "_owner", "_receive", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_gone = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._owner = asyncio.current_task(loop)
        self._timer = loop.call_later(_WATCH_AFTER_SECONDS, self._begin, loop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._has_gone and self._owner is not None:
            is_by_us_alone = self._owner.uncancel() == 0
            if is_by_us_alone and isinstance(error, asyncio.CancelledError):
                raise ClientGoneError from None

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        # Ends with the context at the latest, which the task that it may cancel leaves.
        self._watcher = loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_gone = True
        if self._owner is not None:
            self._owner.cancel()
