"""Waking all who wait for something to happen."""

from __future__ import annotations

import asyncio


class Signal:
    """Wakes everybody who waits at the moment. It is not remembered: who waits next waits for the next time."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._waiters = 0

    def set(self) -> None:
        """Wake all who wait."""
        if self._waiters:
            event, self._event = self._event, asyncio.Event()
            event.set()

    async def wait(self) -> None:
        """Return the next time that it is set. No time is missed between a look at the state and this call."""
        self._waiters += 1
        try:
            await self._event.wait()
        finally:
            self._waiters -= 1
