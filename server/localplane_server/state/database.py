"""The state file: opened, migrated, read and written, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import apsw

from localplane_server import errors
from localplane_server.state.migrations import MIGRATIONS

_Result = TypeVar("_Result")

_BUSY_MILLISECONDS = 5000


class Database:
    """The state file of one service.

    An async context manager. All work runs on one thread of its own, one piece after the other, in
    the order in which it was asked for; the event loop never waits for the disk. Work goes on when
    the caller is cancelled.
    """

    def __init__(self, path: Path, *, migrations: Sequence[str] = MIGRATIONS) -> None:
        """Name a state file without opening it.

        Args:
            path: The file. Made when it is missing.
            migrations: Steps to the schema.
        """
        self._path = path
        self._migrations = migrations
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._connection: apsw.Connection | None = None

    async def __aenter__(self) -> Self:
        """Open the file and bring its schema up to date.

        Raises:
            StateTooNewError: If a newer version of the service wrote it.
            StateUnreadableError: If it cannot be opened, is damaged or is something else.
        """
        try:
            await self._run(self._open)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the work that was asked for and close the file."""
        await self._close()

    async def read(self, work: Callable[[apsw.Connection], _Result]) -> _Result:
        """Run a piece of work that changes nothing, and return what it returns."""
        return await self._run(lambda: work(self._opened()))

    async def write(
        self, work: Callable[[apsw.Connection], _Result], *, is_durable: bool = True
    ) -> _Result:
        """Run a piece of work in a transaction, and return what it returns once that is committed.

        Args:
            work: The work. When it raises, nothing of it remains.
            is_durable: Whether it must survive a loss of power. If not, it survives the end of
                the process, however sudden, and costs no wait for the disk.

        Raises:
            InsufficientStorageError: If the disk is full.
        """

        def transact() -> _Result:
            connection = self._opened()
            _set_durable(connection, is_durable=is_durable)
            return _transact(connection, lambda: work(connection))

        try:
            return await self._run(transact)
        except apsw.FullError as error:
            message = "cannot write down what was asked for: the disk of the data folder is full"
            raise errors.InsufficientStorageError(message) from error

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        # Shielded, as cancelling the caller would otherwise drop work that has not begun yet.
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(work)))

    def _opened(self) -> apsw.Connection:
        if self._connection is None:
            raise apsw.ConnectionClosedError("the state file is not open")
        return self._connection

    def _open(self) -> None:
        try:
            # What is in it is nobody else's to read.
            self._path.touch(mode=0o600)
            self._connection = connection = apsw.Connection(str(self._path))
            connection.set_busy_timeout(_BUSY_MILLISECONDS)
            version = connection.pragma("user_version")
            if version > len(self._migrations):
                raise errors.StateTooNewError(self._path, version, len(self._migrations))
            connection.pragma("journal_mode", "wal")
            connection.pragma("foreign_keys", True)  # noqa: FBT003 - the library's signature
            self._migrate(connection, version)
        except (apsw.Error, OSError) as error:
            raise errors.StateUnreadableError(self._path, str(error)) from error

    def _migrate(self, connection: apsw.Connection, version: int) -> None:
        _set_durable(connection, is_durable=True)
        for number, step in enumerate(self._migrations[version:], start=version + 1):
            _transact(connection, partial(_apply, connection, step, number))

    async def _close(self) -> None:
        def close() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        await self._run(close)
        self._thread.shutdown()


def _set_durable(connection: apsw.Connection, *, is_durable: bool) -> None:
    # In a write-ahead log, FULL waits for the disk at each commit and NORMAL only at checkpoints.
    connection.pragma("synchronous", "full" if is_durable else "normal")


def _apply(connection: apsw.Connection, step: str, number: int) -> None:
    connection.execute(step)
    connection.pragma("user_version", number)


def _transact(connection: apsw.Connection, work: Callable[[], _Result]) -> _Result:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work()
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has already rolled back after some errors, such as a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result
