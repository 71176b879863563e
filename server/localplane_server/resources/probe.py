"""Readings that may not come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class Probe(Generic[T]):
    """Reads in a thread of its own, one reading at a time.

    A disk or a driver that hangs holds up neither the event loop nor, through a pool that it would fill, anything
    else. Whoever asks meanwhile waits for the same reading. The thread does not keep the process from ending.

    Args:
        name: What to call the thread.
        read: Reads.
        patience_seconds: How long a caller waits.
    """

    def __init__(self, name: str, read: Callable[[], T], *, patience_seconds: float = 2.0) -> None:
        self._name = name
        self._read = read
        self._patience_seconds = patience_seconds
        self._reading: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        """Return what is read.

        Raises:
            TimeoutError: If it takes too long. The reading goes on.
        """
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_future()
            # Nobody may be left to look at a failure.
            self._reading.add_done_callback(
                lambda reading: reading.cancelled() or reading.exception()
            )
            threading.Thread(
                target=self._run, args=(self._reading,), name=self._name, daemon=True
            ).start()
        async with asyncio.timeout(self._patience_seconds):
            return await asyncio.shield(self._reading)

    def _run(self, reading: asyncio.Future[T]) -> None:
        tell: Callable[[], object]
        try:
            tell = partial(reading.set_result, self._read())
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            tell = partial(reading.set_exception, error)
        try:
            reading.get_loop().call_soon_threadsafe(tell)
        except RuntimeError:
            return  # the loop is closed: the service has ended
