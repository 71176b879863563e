"""Threads that wait for the disk, so that the event loop never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

THREADS = 8
"""How many there are for all downloads."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Disk:
    """Runs what blocks. Threads are made when they are needed."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="downloads")

    async def run(
        self,
        work: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """Run some work in a thread and return what it returns.

        A caller who is cancelled waits for its end, too: whatever file it works on may be closed
        afterwards, and its number may soon mean another file.
        """
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: work(*arguments, **named)
        )
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # cancelled again: the work is still not over
            if not future.cancelled():
                future.exception()  # seen, so that nobody reports it as forgotten
            raise

    def close(self) -> None:
        """End the threads once their work is done."""
        self._threads.shutdown()
