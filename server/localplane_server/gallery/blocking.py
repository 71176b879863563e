"""Work that blocks, off the event loop: work that can be given up, and work that cannot."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")

Advance = Callable[[int], None]
"""Takes note that work got further by so many bytes. What it raises ends the work."""


class _GivenUpError(Exception):
    """Nobody wants the work any more."""


async def interruptible(work: Callable[[Advance], _Result], advance: Advance) -> _Result:
    """Run work on a thread. When the caller is cancelled, it ends where it tells next that it got further.

    Args:
        work: What to do. It is given what it tells that to.
        advance: Is told on the event loop.
    """
    loop = asyncio.get_running_loop()
    is_given_up = threading.Event()

    def told(size: int) -> None:
        if is_given_up.is_set():
            raise _GivenUpError
        loop.call_soon_threadsafe(advance, size)

    running = loop.run_in_executor(None, work, told)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        is_given_up.set()
        # Whatever it works on is its own until it has ended.
        await _ended(running)
        raise


async def uninterrupted(work: Awaitable[_Result]) -> _Result:
    """Wait for work that cannot turn back any more, also when the caller is cancelled meanwhile."""
    running = asyncio.ensure_future(work)
    await _ended(running)
    return running.result()


async def _ended(running: asyncio.Future[_Result]) -> None:
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait((running,))
    if not running.cancelled():
        # Seen, even if nobody asks for it.
        running.exception()
