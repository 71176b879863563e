"""The spawns of backends, in the state file."""

from __future__ import annotations

import apsw

from localplane_server.state.database import Database

Row = tuple[str, str, str, str, int | None, int | None]
"""Spawn id, model, program, boot id, process and start time."""


class SqliteSpawnRecords:
    """Spawns that are not known to have ended.

    Written without a wait for the disk: no process survives a loss of power either.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, record: Row) -> None:
        """Write a spawn down, in place of an earlier record of the same spawn."""

        def work(connection: apsw.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO spawns VALUES (?, ?, ?, ?, ?, ?)", record)

        await self._database.write(work, is_durable=False)

    async def remove(self, spawn_id: str) -> None:
        """Forget a spawn. One that is not known is no error."""

        def work(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM spawns WHERE spawn_id = ?", (spawn_id,))

        await self._database.write(work, is_durable=False)

    async def all(self) -> list[Row]:
        """Return all records."""

        def work(connection: apsw.Connection) -> list[Row]:
            rows = connection.execute(
                "SELECT spawn_id, model, program, boot_id, pid, start_ticks FROM spawns"
            )
            return [tuple(row) for row in rows]

        return await self._database.read(work)
