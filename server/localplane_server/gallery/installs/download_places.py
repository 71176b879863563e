"""Places for files that come at the same time: so many for all installations, shared fairly."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

PARALLEL_DOWNLOADS = 4
"""How many files come at a time if nobody says otherwise."""


class DownloadPlaces:
    """So many places. One that becomes free goes to whoever has the fewest, and among those to who waits longest.

    It belongs to one event loop.
    """

    def __init__(self, limit: int) -> None:
        """Have all places free.

        Args:
            limit: How many there are.
        """
        self._limit = limit
        self._taken: Counter[object] = Counter()
        self._waiting: list[tuple[object, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def place(self, owner: object) -> AsyncGenerator[None]:
        """Have a place for as long as the context is open.

        Args:
            owner: Whose it is: one that has many leaves the next one to others.
        """
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, turn))
        self._grant()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._taken[owner] -= 1
                if not self._taken[owner]:
                    del self._taken[owner]
            self._grant()

    def _grant(self) -> None:
        # Whoever was cancelled has not got to say so yet.
        self._waiting = [one for one in self._waiting if not one[1].cancelled()]
        while self._waiting and self._taken.total() < self._limit:
            at = min(range(len(self._waiting)), key=lambda one: self._taken[self._waiting[one][0]])
            owner, turn = self._waiting.pop(at)
            self._taken[owner] += 1
            turn.set_result(None)
