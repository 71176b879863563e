"""Spawns in the state file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from localplane_server.state.database import Database
from localplane_server.state.spawn_records import SqliteSpawnRecords
from localplane_server.supervision.records import SpawnRecord

RECORD = SpawnRecord("id", "a model", "/bin/program", "boot", 12, 345)

WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from localplane_server.state.database import Database
from localplane_server.state.spawn_records import SqliteSpawnRecords

async def main():
    async with Database(Path(sys.argv[1])) as database:
        await SqliteSpawnRecords(database).add(("id", "a model", "/bin/program", "boot", 12, 345))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def add_and_be_killed(path: Path) -> None:
    """Add the record in a process that is killed at once."""
    killed = subprocess.run(
        [sys.executable, "-c", WRITER, str(path)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert -signal.SIGKILL == killed.returncode


async def test_round_trip(tmp_path: Path) -> None:
    """A record comes back as it was, a later one takes the place of an earlier one, until removed."""
    async with Database(tmp_path / "state.db") as database:
        records = SqliteSpawnRecords(database)
        await records.add(RECORD._replace(pid=None, start_ticks=None))
        unknown = await records.all()
        await records.add(RECORD)
        known = await records.all()
        await records.remove("id")
        await records.remove("id")

        assert [RECORD._replace(pid=None, start_ticks=None)] == unknown
        assert [RECORD] == known
        assert [] == await records.all()


async def test_survives_a_kill(tmp_path: Path) -> None:
    """What was added is there after the server was killed the moment after."""
    path = tmp_path / "state.db"
    add_and_be_killed(path)

    async with Database(path) as database:
        assert [RECORD] == await SqliteSpawnRecords(database).all()
