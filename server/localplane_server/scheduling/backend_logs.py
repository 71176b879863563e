"""What backends wrote, by the name of the model, and as it is written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from localplane_server.errors import InvalidArgumentError, ModelNotFoundError
from localplane_server.models.catalog import ModelCatalog
from localplane_server.supervision.log_reader import LogReader
from localplane_server.supervision.log_record import GONE, LIVE, LogRecord, utc
from localplane_server.supervision.logs import LogArchive

log = logging.getLogger(__name__)

T = TypeVar("T")

HISTORY_RECORDS = 100
"""How many records a reader begins with that does not say."""
LOOK_SECONDS = 0.1
"""Pause before it is looked again whether something was written."""
REMOVE_SECONDS = 3600.0
"""Pause before it is looked again for logs that were kept long enough."""


class BackendLogs:
    """Reads the logs of backends, and removes old ones.

    A reader asks for records when it has room for them, so one that is slow holds up nobody and nothing is piled up
    for it; what is rotated away before it comes to it, it is told.
    """

    def __init__(self, catalog: ModelCatalog, archive: LogArchive) -> None:
        self._catalog = catalog
        self._archive = archive
        self._closing = asyncio.Event()

    async def run(self) -> None:
        """Remove logs that were kept long enough, for ever."""
        while True:
            removed = await asyncio.to_thread(self._archive.remove_old)
            if removed:
                log.info("old logs of backends were removed", extra={"logs": removed})
            await asyncio.sleep(REMOVE_SECONDS)

    def close(self) -> None:
        """End the readers that would wait for more: the service stops."""
        self._closing.set()

    async def tail(
        self,
        name: str,
        *,
        lines: int | None = None,
        after_sequence: int | None = None,
        follow: bool = False,
    ) -> AsyncGenerator[LogRecord]:
        """Yield what the backend of a model wrote and, when following, what it goes on to write.

        Args:
            name: Name, alias or file name of the model.
            lines: How many of the last records to begin with. Default: 100.
            after_sequence: Begin behind this record instead.
            follow: Whether to go on after the records that there are now, over restarts of the backend.

        Raises:
            InvalidArgumentError: If a number is negative, or both ways to begin are given.
            InvalidModelNameError: If the name cannot be one.
            ModelNotFoundError: If there is neither such a model nor a log of that name.
        """
        for field, number in (("lines", lines), ("after_sequence", after_sequence)):
            if number is not None and number < 0:
                raise InvalidArgumentError(f"{field} must not be below 0", field=field)
        if lines is not None and after_sequence is not None:
            raise InvalidArgumentError("lines and after_sequence exclude each other", field="lines")
        reader = _ThreadedReader(LogReader(self._archive.path(self._known_name(name))))
        try:
            if after_sequence is None:
                count = HISTORY_RECORDS if lines is None else lines
                until = await reader.do(lambda: reader.log.seek_last(count))
                is_past = not until or not count
            else:
                until = await reader.do(lambda: reader.log.seek_after(after_sequence))
                is_past = until in (0, after_sequence)
            last = until
            while not is_past:
                records = await reader.do(reader.log.read)
                for record in records:
                    # A backend that writes on and on must not keep the past from ending.
                    if record.sequence > until and record.kind != GONE and not follow:
                        return
                    yield record
                    last = record.sequence
                is_past = not records or last >= until
            if not follow:
                return
            yield LogRecord(last, utc(time.time()), 0, LIVE, b"")
            while not await self._closes_soon():
                while not self._closing.is_set() and (records := await reader.do(reader.log.read)):
                    for record in records:
                        yield record
        finally:
            reader.close()

    async def _closes_soon(self) -> bool:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._closing.wait()
        except TimeoutError:
            return False
        return True

    def _known_name(self, name: str) -> str:
        try:
            return self._catalog.get(name).name
        except ModelNotFoundError:
            # Its configuration may be gone while its log is still there.
            for written in dict.fromkeys((name, name.replace("__", "/"))):
                if self._archive.has(written):
                    return written
            raise


class _ThreadedReader:
    """A reader in threads: a disk that hangs holds up nobody else, and nothing is closed while it is read."""

    def __init__(self, log: LogReader) -> None:
        self.log = log
        self._reading: asyncio.Future[Any] | None = None

    async def do(self, read: Callable[[], T]) -> T:
        reading = asyncio.get_running_loop().run_in_executor(None, read)
        self._reading = reading
        return await asyncio.shield(reading)

    def close(self) -> None:
        if self._reading is None or self._reading.done():
            self.log.close()
        else:
            self._reading.add_done_callback(lambda _: self.log.close())
