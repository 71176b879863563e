"""Work that several callers wait for is done once, and goes on for as long as one of them waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from localplane_server.downloads.progress import FileProgress, StagedFile

Report = Callable[[FileProgress], None]
"""Is told how far a download is. Must not block."""


class _Work:
    """Something that is being done."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.last: FileProgress | None = None
        self.task: asyncio.Task[StagedFile]

    def tell(self, progress: FileProgress) -> None:
        """Pass on how far it is."""
        self.last = progress
        for report in list(self.reports):
            report(progress)


class Sharing:
    """What is being done, by key."""

    def __init__(self) -> None:
        self._works: dict[str, _Work] = {}

    async def do(
        self, key: str, report: Report, begin: Callable[[Report], Awaitable[StagedFile]]
    ) -> StagedFile:
        """Wait for the work of a key, after beginning it if nobody has.

        A caller who is cancelled leaves; the last one takes the work along, and waits for its end.

        Args:
            key: What it is.
            report: Is told how far it is.
            begin: Does it, and tells how far it is.
        """
        while (work := self._works.get(key)) is not None and not work.reports:
            await asyncio.wait([work.task])  # everybody has left it
        if work is None:
            work = self._works[key] = _Work()
            work.task = asyncio.ensure_future(self._run(key, work, begin))
        elif work.last is not None:
            report(work.last)
        work.reports.append(report)
        try:
            return await asyncio.shield(work.task)
        finally:
            work.reports.remove(report)
            if not work.reports and not work.task.done():
                work.task.cancel()
                await _end_of(work.task)

    async def close(self) -> None:
        """End everything."""
        tasks = [work.task for work in self._works.values()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            await _end_of(task)

    async def _run(
        self, key: str, work: _Work, begin: Callable[[Report], Awaitable[StagedFile]]
    ) -> StagedFile:
        try:
            return await begin(work.tell)
        finally:
            del self._works[key]


async def _end_of(task: asyncio.Task[StagedFile]) -> None:
    """Wait until a task is over, however it ends."""
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen, so that nobody reports it as forgotten
