"""Changes of the galleries in the state file."""

from __future__ import annotations

from pathlib import Path

from localplane_server.state.database import Database
from localplane_server.state.gallery_records import GalleryRow, SqliteGalleryRecords

A, B = GalleryRow("a", "https://a/", ("https://m/",)), GalleryRow("B", None)


async def test_round_trip(tmp_path: Path) -> None:
    """Changes come back in their order; one of the same name takes the place of the one before, at the end."""
    async with Database(tmp_path / "state.db") as database:
        records = SqliteGalleryRecords(database)
        assert [] == await records.all()
        await records.put(A)
        await records.put(B)
        assert [A, B] == await records.all()
        await records.put(A._replace(name="A", url="https://other/"))
    async with Database(tmp_path / "state.db") as database:
        records = SqliteGalleryRecords(database)
        assert [B, A._replace(name="A", url="https://other/")] == await records.all()
        await records.remove("b")
        await records.remove("nope")

        assert ["A"] == [row.name for row in await records.all()]
