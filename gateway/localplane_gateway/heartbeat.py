"""Keeps a stream alive that has nothing to say for a while."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from localplane_gateway.exchange import Exchange
from localplane_gateway.streams import StreamFormat

HEARTBEAT_SECONDS = 15.0
"""The longest silence. Proxies cut connections on which nothing was said for a minute, some for half of one."""


class Heartbeat:
    """Writes the messages of a stream, and a heartbeat whenever none was written for a while.

    Without it, proxies would cut a silent stream, and a client that went away without a word would never be noticed:
    only what is written shows that nobody is there. A client that does not read gets no heartbeats on top.

    A context manager. Nothing is written before the answer has begun: its status is not known until then.

    Args:
        exchange: Where to write.
        form: How a heartbeat is written.
    """

    __slots__ = ("_beat", "_beating", "_exchange", "_is_writing", "_last", "_loop", "_timer")

    def __init__(self, exchange: Exchange, form: StreamFormat) -> None:
        self._exchange = exchange
        self._beat = form.heartbeat
        self._loop = asyncio.get_running_loop()
        self._beating: asyncio.Task[None] | None = None
        self._is_writing = False
        self._last = self._loop.time()

    async def write(self, chunk: bytes) -> None:
        """Write a message; waits while the client is slow to read."""
        self._is_writing = True
        await self._exchange.write(chunk)
        self._is_writing = False
        self._last = self._loop.time()

    def stop(self) -> None:
        """Write no more heartbeats: the last words come next."""
        self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(HEARTBEAT_SECONDS, self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _look(self) -> None:
        now = self._loop.time()
        if self._is_writing or not self._exchange.started:
            self._last = now
        elif now - self._last >= HEARTBEAT_SECONDS:
            self._last = now
            if self._beating is None or self._beating.done():
                self._beating = self._loop.create_task(self._exchange.write(self._beat))
        self._timer = self._loop.call_at(self._last + HEARTBEAT_SECONDS, self._look)
