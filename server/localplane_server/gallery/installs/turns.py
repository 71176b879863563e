"""Whose turn it is to change a model, whatever it was called by whoever wants to change it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from localplane_server.gallery.index import key_of


class Turns:
    """Lets one change of a model begin when the one before it has ended. Changes of other models wait for none.

    Jobs are kept apart by what was asked for; here is what that came to. It belongs to one event loop.
    """

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._wanted: dict[str, int] = {}

    def is_taken(self, name: str) -> bool:
        """Return whether a model is being changed."""
        return key_of(name) in self._locks

    @asynccontextmanager
    async def of(self, *names: str) -> AsyncGenerator[None]:
        """Wait until nobody changes the models of some names, then keep others from it.

        Names that differ in the case of their letters only, or in `/` and `__`, are one.
        """
        async with AsyncExitStack() as stack:
            # Always in the same order: nobody waits for one who waits for him.
            for key in sorted({key_of(name) for name in names}):
                lock = self._locks.setdefault(key, asyncio.Lock())
                self._wanted[key] = self._wanted.get(key, 0) + 1
                stack.callback(self._left, key)
                await stack.enter_async_context(lock)
            yield

    def _left(self, key: str) -> None:
        self._wanted[key] -= 1
        if not self._wanted[key]:
            del self._wanted[key], self._locks[key]
