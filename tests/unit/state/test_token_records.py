"""Accounts of tokens in the state file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from localplane_server.state.database import Database
from localplane_server.state.token_records import SqliteTokenRecords, TokenRow

ROW = TokenRow("a model", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.5, 11, 12, 1, 1900000000.25)


async def test_round_trip(tmp_path: Path) -> None:
    """Accounts come back as they were; a later one takes the place of an earlier one of the same slot."""
    async with Database(tmp_path / "state.db") as database:
        records = SqliteTokenRecords(database)
        none = await records.all()
        await records.put([ROW, ROW._replace(slot=0)], is_durable=False)
        await records.put([ROW._replace(chats=50)], is_durable=True)

        assert [] == none
        assert [ROW._replace(slot=0), ROW._replace(chats=50)] == sorted(await records.all())


async def test_epoch(tmp_path: Path) -> None:
    """It is when the state was made, whoever opens it later; another state has another one."""
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    epochs = []
    for name in ("a.db", "a.db", "b.db"):
        async with Database(tmp_path / name) as database:
            epochs.append(await SqliteTokenRecords(database).epoch())

    assert before <= epochs[0] == epochs[1] <= epochs[2] <= datetime.now(UTC)
