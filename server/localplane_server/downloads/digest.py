"""The hash of a file while it is being written, never far behind the bytes that arrive."""

from __future__ import annotations

import asyncio
import hashlib

from localplane_server.downloads.disk import Disk
from localplane_server.downloads.staging import StagedPart

_STEP_BYTES = 16 * 1024 * 1024
"""What is hashed before the thread looks whether it is still wanted."""
_READ_BYTES = 1024 * 1024


class Digest:
    """Hashes a staged part in order.

    It reads what was just written, which the system still has in memory: that is cheaper than to
    keep bytes that arrive out of order, and the same works for what an earlier process has left.
    """

    def __init__(self, part: StagedPart, disk: Disk) -> None:
        self._part = part
        self._disk = disk
        self._hash = hashlib.sha256()
        self._done = 0
        self._buffer = bytearray(_READ_BYTES)
        self._moved = asyncio.Event()
        self._is_finished = False

    def move(self) -> None:
        """Say that more is written."""
        self._moved.set()

    def finish(self) -> None:
        """Say that all is written."""
        self._is_finished = True
        self._moved.set()

    async def follow(self) -> None:
        """Hash what is written without a gap from the beginning on, until all is."""
        while True:
            self._moved.clear()
            if (end := self._part.ranges.frontier) > self._done:
                await self._disk.run(self._advance, min(end, self._done + _STEP_BYTES))
            elif self._is_finished:
                return
            else:
                await self._moved.wait()

    def hexdigest(self) -> str:
        """Return the digest of what was hashed."""
        return self._hash.hexdigest()

    def _advance(self, end: int) -> None:
        view = memoryview(self._buffer)
        while self._done < end:
            size = min(self._part.read(self._done, self._buffer), end - self._done)
            if size <= 0:
                raise OSError("a staged file became shorter")
            self._hash.update(view[:size])
            self._done += size
