"""The jobs and the keys of their requests, in the state file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import apsw

from localplane_server.state.database import Database


class JobRow(NamedTuple):
    """A job. The fields are the table's columns, in order; times are seconds since 1970, texts with structure JSON."""

    id: str
    number: int
    kind: str
    target: str
    request: str
    state: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    runs: int
    phase: str
    done_bytes: int
    total_bytes: int | None
    files: str
    result: str | None
    error: str | None


class KeyRow(NamedTuple):
    """The key of a request, and the job that came of it. The fields are the table's columns, in order."""

    request_id: str
    fingerprint: str
    job_id: str
    at: float


_PUT_JOB = f"INSERT OR REPLACE INTO jobs VALUES ({', '.join('?' * len(JobRow._fields))})"  # noqa: S608 - marks
_PUT_KEY = "INSERT OR REPLACE INTO job_keys VALUES (?, ?, ?, ?)"


class SqliteJobRecords:
    """Jobs by their identifiers, and keys by theirs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[JobRow]:
        """Return all jobs, in the order of their numbers."""

        def work(connection: apsw.Connection) -> list[JobRow]:
            columns = ", ".join(JobRow._fields)
            rows = connection.execute(f"SELECT {columns} FROM jobs ORDER BY number")  # noqa: S608 - our columns
            return [JobRow(*row) for row in rows]

        return await self._database.read(work)

    async def keys(self) -> list[KeyRow]:
        """Return all keys."""

        def work(connection: apsw.Connection) -> list[KeyRow]:
            rows = connection.execute("SELECT request_id, fingerprint, job_id, at FROM job_keys")
            return [KeyRow(*row) for row in rows]

        return await self._database.read(work)

    async def put(
        self, rows: Sequence[JobRow], keys: Sequence[KeyRow] = (), *, is_durable: bool
    ) -> None:
        """Write jobs and keys down, in place of what was there of the same, all or none of them.

        Args:
            rows: The jobs.
            keys: The keys.
            is_durable: Whether to wait for the disk; without, they survive the end of the process only.
        """

        def work(connection: apsw.Connection) -> None:
            connection.executemany(_PUT_JOB, rows)
            connection.executemany(_PUT_KEY, keys)

        await self._database.write(work, is_durable=is_durable)

    async def remove(self, job_ids: Sequence[str], *, keys_before: float) -> None:
        """Forget jobs, and keys from before a time."""

        def work(connection: apsw.Connection) -> None:
            connection.executemany("DELETE FROM jobs WHERE id = ?", [(one,) for one in job_ids])
            connection.execute("DELETE FROM job_keys WHERE at <= ?", (keys_before,))

        await self._database.write(work, is_durable=False)
