"""Stopping the gRPC server."""

from __future__ import annotations

import asyncio

from localplane_server import events
from localplane_server.rpc.stopping import OpenCalls

PATIENCE_SECONDS = 5.0


def finished(method: str = "/s/m") -> events.CallFinished:
    return events.CallFinished(
        method=method, code="OK", reason="", seconds=0.0, request_id="r", peer="p"
    )


class TestOpenCalls:
    async def test_waits_for_all(self) -> None:
        """Only the end of the last call is the end."""
        bus = events.Events()
        calls = OpenCalls(bus)
        bus.emit(events.CallStarted())
        bus.emit(events.CallStarted())
        waiting = asyncio.create_task(calls.all_ended())
        bus.emit(finished())
        await asyncio.wait((waiting,), timeout=0.01)
        is_early = waiting.done()
        bus.emit(finished())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await waiting

        assert not is_early

    async def test_nothing_to_wait_for(self) -> None:
        """Without a call it ends at once; one of no method never began, so its end is none."""
        bus = events.Events()
        calls = OpenCalls(bus)
        bus.emit(finished(""))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await calls.all_ended()
