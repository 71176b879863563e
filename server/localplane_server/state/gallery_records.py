"""Galleries that were added and removed at run time, in the state file."""

from __future__ import annotations

import json
from typing import NamedTuple

import apsw

from localplane_server.state.database import Database


class GalleryRow(NamedTuple):
    """What was said last of a gallery of this name."""

    name: str
    url: str | None
    """URL of its index. None when the gallery was removed, and must stay so though it is configured."""
    mirrors: tuple[str, ...] = ()


class SqliteGalleryRecords:
    """What callers changed of the configured galleries, by name; the case of the letters does not matter."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[GalleryRow]:
        """Return what was changed, the oldest first."""

        def work(connection: apsw.Connection) -> list[GalleryRow]:
            rows = connection.execute("SELECT name, url, mirrors FROM galleries ORDER BY position")
            return [
                GalleryRow(name, url, tuple(json.loads(mirrors or "[]")))
                for name, url, mirrors in rows
            ]

        return await self._database.read(work)

    async def put(self, row: GalleryRow) -> None:
        """Write down what became of a gallery, behind the others."""

        def work(connection: apsw.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO galleries (name, position, url, mirrors) VALUES"
                " (?, (SELECT coalesce(max(position), 0) + 1 FROM galleries), ?, ?)",
                (row.name, row.url, json.dumps(row.mirrors)),
            )

        await self._database.write(work)

    async def remove(self, name: str) -> None:
        """Forget what was changed of a gallery."""

        def work(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM galleries WHERE name = ?", (name,))

        await self._database.write(work)
