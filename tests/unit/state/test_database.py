"""Opening, migrating, reading and writing the state file."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from localplane_server import errors
from localplane_server.state.database import Database
from localplane_server.state.migrations import MIGRATIONS

STEPS = ("CREATE TABLE a (x INTEGER) STRICT", "ALTER TABLE a ADD COLUMN y TEXT")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def content(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    return data


def columns(connection: apsw.Connection) -> list[str]:
    return [row[1] for row in connection.execute("PRAGMA table_info(a)")]


def put(connection: apsw.Connection, value: object) -> None:
    connection.execute("INSERT INTO a (x) VALUES (?)", (value,))


def values(connection: apsw.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT x FROM a ORDER BY x")]


class TestOpen:
    async def test_new_file(self, path: Path) -> None:
        """A new file has the newest schema, is private, and is written ahead."""
        async with Database(path) as database:
            version = await database.read(lambda c: c.pragma("user_version"))
            mode = await database.read(lambda c: c.pragma("journal_mode"))

        assert len(MIGRATIONS) == version
        assert "wal" == mode
        assert 0o600 == mode_of(path)

    async def test_older_file(self, path: Path) -> None:
        """An older file goes through the steps that it lacks, and keeps what is in it."""
        async with Database(path, migrations=STEPS[:1]) as database:
            await database.write(lambda c: put(c, 7))

        async with Database(path, migrations=STEPS) as database:
            assert ["x", "y"] == await database.read(columns)
            assert [7] == await database.read(values)

    async def test_step_that_fails(self, path: Path) -> None:
        """A step that fails leaves the file at the step before, to be tried again."""
        broken = (*STEPS, "CREATE TABLE b (x INTEGER); CREATE TABLE a (x INTEGER)")
        with pytest.raises(errors.StateUnreadableError, match="table a already exists"):
            async with Database(path, migrations=broken):
                pass

        async with Database(path, migrations=STEPS) as database:
            assert ["x", "y"] == await database.read(columns)

    async def test_newer_file(self, path: Path) -> None:
        """A file of a newer version is refused by name, and stays as it is."""
        async with Database(path, migrations=STEPS):
            pass
        before = content(path)

        expected = (
            f"cannot open {path}: a newer version of localplane wrote it "
            "(schema 2, this version knows 1)"
        )
        with pytest.raises(errors.StateTooNewError) as caught:
            async with Database(path, migrations=STEPS[:1]):
                pass

        assert expected == str(caught.value)
        assert before == content(path)

    async def test_not_a_database(self, path: Path) -> None:
        """A file that is something else is refused by name, and stays as it is."""
        before = write(path, b"shopping list\n" * 100)

        with pytest.raises(errors.StateUnreadableError, match=f"cannot open {path}: "):
            async with Database(path):
                pass

        assert before == content(path)

    async def test_missing_folder(self, tmp_path: Path) -> None:
        """A folder that is missing is an error that names the file."""
        with pytest.raises(errors.StateUnreadableError, match="No such file or directory"):
            async with Database(tmp_path / "nowhere" / "state.db"):
                pass


class TestWrite:
    async def test_failure_leaves_nothing(self, path: Path) -> None:
        """Work that raises changes nothing, and the next work goes on."""

        def half(connection: apsw.Connection) -> None:
            put(connection, 1)
            raise LookupError

        async with Database(path, migrations=STEPS) as database:
            with pytest.raises(LookupError):
                await database.write(half)
            await database.write(lambda c: put(c, 2))

            assert [2] == await database.read(values)

    @pytest.mark.parametrize(("is_durable", "level"), [(True, 2), (False, 1)])
    async def test_durability(self, path: Path, *, is_durable: bool, level: int) -> None:
        """Only what must survive a loss of power waits for the disk."""
        async with Database(path, migrations=STEPS) as database:
            await database.write(lambda c: put(c, 1), is_durable=not is_durable)
            found = await database.write(lambda c: c.pragma("synchronous"), is_durable=is_durable)

        assert level == found

    async def test_does_not_hold_up_the_loop(self, path: Path) -> None:
        """While work waits for the disk, the event loop goes on."""
        may_end = threading.Event()
        async with Database(path, migrations=STEPS) as database:
            work = asyncio.ensure_future(database.write(lambda _: may_end.wait(60)))
            await asyncio.sleep(0)
            may_end.set()

            assert await work

    async def test_goes_on_without_its_caller(self, path: Path) -> None:
        """Work whose caller is cancelled is finished, in the order in which it was asked for."""
        may_end = threading.Event()

        def slow(connection: apsw.Connection) -> None:
            may_end.wait(60)
            put(connection, 1)

        async with Database(path, migrations=STEPS) as database:
            work = asyncio.ensure_future(database.write(slow))
            await asyncio.sleep(0)
            work.cancel()
            may_end.set()

            assert [1] == await database.read(values)

    async def test_closed(self, path: Path) -> None:
        """Work after the close is an error."""
        async with Database(path) as database:
            pass

        with pytest.raises(RuntimeError):
            await database.read(lambda _: None)


async def test_full_disk(path: Path) -> None:
    """A disk that is full is told as one; what was there stays, and can be written again later."""
    async with Database(path, migrations=STEPS) as database:
        pages = await database.read(lambda connection: connection.pragma("page_count"))
        await database.read(lambda connection: connection.pragma("max_page_count", pages))
        with pytest.raises(errors.InsufficientStorageError, match="disk of the data folder"):
            await database.write(
                lambda connection: connection.execute(
                    "INSERT INTO a (y) VALUES (hex(zeroblob(99999)))"
                )
            )
        await database.write(lambda connection: put(connection, 1))

        assert [1] == await database.read(values)
