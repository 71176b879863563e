"""Jobs in the state file."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from localplane_server.state.database import Database
from localplane_server.state.job_records import JobRow, KeyRow, SqliteJobRecords

ROW = JobRow(
    "a", 1, "install", "m", "{}", "queued", 1.5, 2.5, 3.5, 1, "x", 5, 2**40, "[]", "{}", "[]"
)
KEY = KeyRow("k", "f", "a", 100.0)


async def test_round_trip(tmp_path: Path) -> None:
    """Jobs come back as they were, in order; a later state takes the place of an earlier one."""
    empty = ROW._replace(
        id="b", number=2, started_at=None, finished_at=None, total_bytes=None, result=None
    )
    async with Database(tmp_path / "state.db") as database:
        records = SqliteJobRecords(database)
        none = await records.all()
        await records.put([empty, ROW], [KEY], is_durable=True)
        await records.put([ROW._replace(state="paused")], is_durable=False)

        assert [] == none
        assert [ROW._replace(state="paused"), empty] == await records.all()
        assert [KEY] == await records.keys()


async def test_all_or_nothing(tmp_path: Path) -> None:
    """Of a job and a key of which one cannot be written, neither is."""
    async with Database(tmp_path / "state.db") as database:
        records = SqliteJobRecords(database)
        with pytest.raises(apsw.Error):
            await records.put([ROW], [KEY._replace(fingerprint=None)], is_durable=True)  # type: ignore[arg-type]

        assert [] == await records.all()


async def test_remove(tmp_path: Path) -> None:
    """Jobs go by their identifiers, keys by their time."""
    async with Database(tmp_path / "state.db") as database:
        records = SqliteJobRecords(database)
        late = KEY._replace(request_id="late", at=101.0)
        await records.put([ROW, ROW._replace(id="b", number=2)], [KEY, late], is_durable=True)
        await records.remove(["a", "unknown"], keys_before=100.0)

        assert ["b"] == [row.id for row in await records.all()]
        assert [late] == await records.keys()
