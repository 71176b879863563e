"""Stopping the gRPC server: calls may end, and nobody waits for those who do not listen."""

from __future__ import annotations

import asyncio

import grpc

from localplane_server import events
from localplane_server.rpc.health import HealthReporter
from localplane_server.rpc.interceptors import CallInterceptor
from localplane_server.watching.signal import Signal

WATCHER_SECONDS = 0.2
"""How long those who watch get to hear that the service stops."""
STALLED_SECONDS = 2.0
"""How long clients get to read the rest of what was written for them."""


class OpenCalls:
    """Counts the calls that are under way, over whichever interface they came."""

    def __init__(self, bus: events.Events) -> None:
        self._count = 0
        self._ended = Signal()
        bus.listen(events.CallStarted, self._began)
        bus.listen(events.CallFinished, self._finished)

    async def all_ended(self) -> None:
        """Return once no call is under way."""
        while self._count:
            await self._ended.wait()

    def _began(self, _: events.CallStarted) -> None:
        self._count += 1

    def _finished(self, event: events.CallFinished) -> None:
        if event.method:  # else there was no such method, and no start was told
            self._count -= 1
            self._ended.set()


async def stop_server(
    server: grpc.aio.Server,
    interceptor: CallInterceptor,
    health: HealthReporter,
    calls: OpenCalls,
    grace_seconds: float,
) -> None:
    """Stop a server: who watches hears of it and is let go, calls may end within the grace period.

    The library keeps a call that has ended until its client has read everything, for the whole grace period: a client
    that does not read would hold up every stop for that long.
    """
    health.close()
    stopping = asyncio.ensure_future(server.stop(grace_seconds))
    await interceptor.end_open_calls(min(WATCHER_SECONDS, grace_seconds))
    ended = asyncio.ensure_future(calls.all_ended())
    await asyncio.wait((stopping, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    await asyncio.wait((stopping,), timeout=STALLED_SECONDS)
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait((stopping,))
        await server.stop(None)
