"""Files as they are staged: one at a time has each, and whoever wants it is given one of their own."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from localplane_server.downloads import local, staging
from localplane_server.downloads.disk import Disk
from localplane_server.downloads.progress import StagedFile
from localplane_server.downloads.staging import StagedPart
from localplane_server.errors import DigestMismatchError, DownloadFailedError

_LOCK_SECONDS = 0.2
"""How often a file is tried that another process has."""


class Brought(NamedTuple):
    """What came into a staged part."""

    size_bytes: int
    """How much."""
    sha256: str
    """Its SHA-256."""
    file_name: str
    """The name that the source has for it."""
    told_bytes: int
    """How much of it was told as progress, which is more than its size if it came in something else."""


class Takers:
    """Callers who want the same file, and have not got it yet."""

    def __init__(self) -> None:
        self.count = 0
        self.turn = asyncio.Lock()
        """Held by the one who is being given it."""


class Parts:
    """The folder of staged files."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._given: set[Path] = set()
        self._takers: dict[str, Takers] = {}

    @asynccontextmanager
    async def opened(self, key: str, name: str) -> AsyncGenerator[StagedPart]:
        """Have a staged part for as long as the context is open; wait until no other process has it.

        Raises:
            DownloadFailedError: If the folder cannot be used.
        """
        part = StagedPart(self._folder, key)
        try:
            while not await self._disk.run(part.open):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(_LOCK_SECONDS)
            yield part
        except OSError as error:
            cause = f"the staging folder cannot be used: {os.strerror(error.errno or 0)}"
            raise DownloadFailedError(name, cause) from error
        finally:
            if not part.ranges.size and part.is_open:
                part.throw_away()
            part.close()

    async def left_whole(self, part: StagedPart, sha256: str, file_name: str) -> StagedFile | None:
        """Take what was finished before and not fetched by its caller, if it still is what it was."""
        try:
            found = await self._disk.run(local.digest_of, part.whole)
            size = part.whole.stat().st_size
        except FileNotFoundError:
            self._given.discard(part.whole)
            return None
        if sha256 and found != sha256:
            self._given.discard(part.whole)
            part.whole.unlink(missing_ok=True)
            return None
        part.throw_away()
        return StagedFile(part.whole, size, found, file_name)

    async def finish(
        self, part: StagedPart, brought: Brought, sha256: str, name: str
    ) -> StagedFile:
        """Give a part that came whole the name of a file, if it is the right one.

        Raises:
            DigestMismatchError: If it is another one. It is thrown away.
        """
        if sha256 and sha256 != brought.sha256:
            await self._disk.run(part.throw_away)
            raise DigestMismatchError(name, sha256, brought.sha256)
        path = await self._disk.run(part.finish)
        return StagedFile(path, brought.size_bytes, brought.sha256, brought.file_name)

    @contextmanager
    def taking(self, key: str) -> Iterator[Takers]:
        """Count as somebody who wants a file for as long as the context is open."""
        takers = self._takers.setdefault(key, Takers())
        takers.count += 1
        try:
            yield takers
        finally:
            takers.count -= 1
            if not takers.count:
                del self._takers[key]

    async def give(self, staged: StagedFile, key: str, takers: Takers) -> StagedFile:
        """Give a caller a file that nobody else has: the last the file itself, others a second name of it.

        Whoever has the file itself may move it at once, so nobody else may still need it then.

        Raises:
            FileNotFoundError: If somebody who was given it before has moved it.
        """
        async with takers.turn:
            if takers.count == 1 and staged.path not in self._given:
                self._given.add(staged.path)
                return staged
            mine = self._folder / f"{key}-{secrets.token_hex(8)}.whole"
            await self._disk.run(local.link_or_copy, staged.path, mine)
            return StagedFile(mine, staged.size_bytes, staged.sha256, staged.file_name)

    async def give_back(self, staged: StagedFile) -> None:
        """Take a file back from a caller who has not moved it: it is there for the next one."""
        if staged.path in self._given:
            self._given.remove(staged.path)
        else:
            await self._disk.run(partial(staged.path.unlink, missing_ok=True))

    async def discard(self, key: str) -> None:
        """Throw away what is staged of a file, unless somebody wants it."""
        if key not in self._takers:
            await self._disk.run(staging.discard, self._folder, key)

    def prune(self, *, older_than_seconds: float) -> list[Path]:
        """Remove what was not touched for so long and nobody has; return what was removed. Blocks for a moment."""
        return staging.prune(self._folder, older_than_seconds=older_than_seconds)
