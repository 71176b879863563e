"""Gathering what changed many times in a moment, so that it is looked at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Gathering:
    """Has keys looked at a moment after the first of them came, each once, in their order.

    It belongs to one event loop.

    Args:
        seconds: How long the moment is.
        look_at: Looks at a key.
    """

    def __init__(self, seconds: float, look_at: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._look_at = look_at
        self._keys: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def add(self, key: str) -> None:
        """Have a key looked at soon, unless it is closed."""
        if self._is_closed:
            return
        self._keys.add(key)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._look)

    def close(self) -> None:
        """Look at nothing any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        keys, self._keys = self._keys, set()
        for key in sorted(keys):
            self._look_at(key)
