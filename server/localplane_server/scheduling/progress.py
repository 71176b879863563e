"""Whether a load moves, as seen from outside: a backend that reads or fills memory is not stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psutil

from localplane_server.supervision import process_table
from localplane_server.supervision.running import RunningBackend

MOVED_BYTES = 1024 * 1024
"""What must have been read, or come to memory, between two looks. A program that only polls or logs takes less."""
LOOKS = 10
"""How often it is looked within the time that a load may go on without moving."""
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 5.0
"""Bounds of the time between two looks."""


class _Seen(NamedTuple):
    resident: int
    read: int


async def follow(
    backend: RunningBackend,
    patience_seconds: float,
    *,
    is_loading: Callable[[], bool],
    moved: Callable[[], None],
) -> None:
    """Look at a backend while it loads, and tell whenever it moved.

    Args:
        backend: The backend.
        patience_seconds: How long it may go on without moving.
        is_loading: Whether it still loads.
        moved: Is called each time it was seen to have moved.
    """
    pause = min(max(patience_seconds / LOOKS, SHORTEST_SECONDS), LONGEST_SECONDS)
    last = _Seen(0, 0)
    while True:
        await asyncio.sleep(pause)
        if not is_loading():
            return
        seen = await asyncio.to_thread(_look, backend)
        if seen.resident - last.resident >= MOVED_BYTES or seen.read - last.read >= MOVED_BYTES:
            last = seen
            if is_loading():
                moved()


def _look(backend: RunningBackend) -> _Seen:
    return _sum([_read(pid) for pid in backend.tree_in(process_table.snapshot())])


def _sum(parts: Sequence[_Seen]) -> _Seen:
    return _Seen(sum(one.resident for one in parts), sum(one.read for one in parts))


def _read(pid: int) -> _Seen:
    try:
        process = psutil.Process(pid)
        resident = process.memory_info().rss
    except psutil.Error:
        return _Seen(0, 0)
    try:
        counters = process.io_counters()
    except (psutil.Error, OSError):
        # Not every kernel and not every container tells.
        return _Seen(resident, 0)
    # Mapped files are read by the kernel alone, all else also by calls.
    return _Seen(resident, max(counters.read_bytes, counters.read_chars))
