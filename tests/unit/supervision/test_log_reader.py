"""Reading logs while they are written and rotated."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from localplane_server.supervision.log_files import LogLimits
from localplane_server.supervision.log_reader import LogReader
from localplane_server.supervision.log_record import GONE, OUTPUT, LogRecord
from localplane_server.supervision.log_writer import Entry, RotatedLog

LIMITS = LogLimits(max_bytes=400, files=3)
"""A dozen records in each file."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.log"


@pytest.fixture
def reader(path: Path) -> Iterator[LogReader]:
    with closing(LogReader(path)) as reader:
        yield reader


def write(path: Path, count: int, limits: LogLimits = LIMITS) -> None:
    """Append records whose text is their number."""
    log = RotatedLog(str(path), limits)
    for _ in range(count):
        number = log._sequence + 1
        log.append(1, [Entry(OUTPUT, str(number).encode())])
    log.close()


def rest(reader: LogReader) -> list[LogRecord]:
    found: list[LogRecord] = []
    while records := reader.read():
        found += records
    return found


def numbers(records: list[LogRecord]) -> list[int]:
    assert all(int(one.text) == one.sequence for one in records if one.kind != GONE)
    return [one.sequence for one in records]


def oldest(path: Path) -> int:
    with closing(LogReader(path)) as reader:
        reader.seek_last(10**6)
        return reader.read()[0].sequence


class TestLast:
    @pytest.mark.parametrize("count", [1, 2, 9, 12, 13, 20, 30, 33])
    def test_last_ones(self, path: Path, reader: LogReader, count: int) -> None:
        """The last records come, oldest first, from as many files as it takes."""
        write(path, 100)
        reader.seek_last(count)

        kept = 101 - oldest(path)
        assert list(range(101 - min(count, kept), 101)) == numbers(rest(reader))

    def test_none(self, path: Path, reader: LogReader) -> None:
        """No history is asked for: only what comes after."""
        write(path, 50)
        reader.seek_last(0)
        assert [] == rest(reader)

        write(path, 3)
        assert [51, 52, 53] == numbers(rest(reader))

    def test_all_when_there_are_fewer(self, path: Path, reader: LogReader) -> None:
        """More than there is, is all there is, and nothing is said to be missing."""
        write(path, 5)
        reader.seek_last(1000)

        assert [1, 2, 3, 4, 5] == numbers(rest(reader))

    def test_long_lines(self, path: Path, reader: LogReader) -> None:
        """Records larger than what is read at once are found too."""
        log = RotatedLog(str(path))
        for size in (100_000, 1, 150_000, 2):
            log.append(1, [Entry(OUTPUT, b"x" * size)])
        log.close()
        reader.seek_last(2)

        assert [150_000, 2] == [len(one.text) for one in rest(reader)]


class TestAfter:
    @pytest.mark.parametrize("back", [0, 1, 5, 12, 25])
    def test_goes_on(self, path: Path, reader: LogReader, back: int) -> None:
        """What follows a record comes, without a gap."""
        write(path, 100)
        reader.seek_after(100 - back)

        assert list(range(101 - back, 101)) == numbers(rest(reader))

    def test_gone(self, path: Path, reader: LogReader) -> None:
        """What was rotated away is told: which records, and that they do not come."""
        write(path, 100)
        first = oldest(path)
        reader.seek_after(3)
        gap, *found = rest(reader)

        assert (GONE, first - 1) == (gap.kind, gap.sequence)
        assert f"records 4 to {first - 1} are gone: rotated away" == gap.text.decode()
        assert list(range(first, 101)) == numbers(found)

    def test_begun_anew(self, path: Path, reader: LogReader) -> None:
        """A log that has not come to the sequence yet is another one: all of it is new."""
        write(path, 5)
        reader.seek_after(1000)

        assert [1, 2, 3, 4, 5] == numbers(rest(reader))


class TestLive:
    def test_before_there_is_a_log(self, path: Path, reader: LogReader) -> None:
        """A log may come later than its reader."""
        reader.seek_last(10)
        assert [] == rest(reader)

        write(path, 3)
        assert [1, 2, 3] == numbers(rest(reader))

    def test_over_rotations(self, path: Path, reader: LogReader) -> None:
        """A reader that keeps up misses nothing, however often files are rotated."""
        seen: list[int] = []
        for _ in range(60):
            write(path, 3)
            seen += numbers(rest(reader))

        assert list(range(1, 181)) == seen

    def test_at_random(self, path: Path, reader: LogReader) -> None:
        """Whatever a reader misses it is told, and nothing comes twice."""
        draw = random.Random(4)  # noqa: S311 - it only has to vary
        seen: list[LogRecord] = []
        for _ in range(80):
            write(path, draw.randrange(40))
            if draw.random() < 0.5:
                seen += rest(reader)
        write(path, 1)
        seen += rest(reader)

        expected = 1
        for record in seen:
            if record.kind == GONE:
                assert record.text.startswith(b"record")
                assert record.sequence >= expected
            else:
                assert record.sequence == expected
            expected = record.sequence + 1
        assert any(record.kind == GONE for record in seen)

    def test_while_a_thread_writes(self, path: Path, reader: LogReader) -> None:
        """The same while files are rotated under the reader's hands."""
        done = threading.Event()

        def write_all() -> None:
            write(path, 5000, LogLimits(max_bytes=2000, files=3))
            done.set()

        thread = threading.Thread(target=write_all)
        reader.seek_after(0)
        thread.start()
        seen: list[LogRecord] = []
        while not done.is_set():
            seen += reader.read()
        thread.join()
        seen += rest(reader)

        expected = 1
        for record in seen:
            assert record.kind == GONE or record.sequence == expected
            expected = record.sequence + 1
        assert expected == 5001

    def test_torn_line(self, path: Path, reader: LogReader) -> None:
        """A line comes when it is whole."""
        path.write_bytes(b"1 t 1 out 1\n2 t 1 o")
        assert [1] == numbers(rest(reader))

        with path.open("ab") as file:
            file.write(b"ut 2\n")
        assert [2] == numbers(rest(reader))

    def test_emptied(self, path: Path, reader: LogReader) -> None:
        """An operator who empties the file does not confuse the reader."""
        write(path, 5)
        assert 5 == len(rest(reader))
        path.write_bytes(b"")
        assert [] == rest(reader)
        path.write_bytes(b"6 t 1 out 6\n")

        assert [6] == numbers(rest(reader))

    def test_removed(self, path: Path, reader: LogReader) -> None:
        """A log that was removed and begun anew is read from its start."""
        write(path, 5)
        assert 5 == len(rest(reader))
        path.unlink()
        assert [] == rest(reader)
        write(path, 2)

        assert [1, 2] == numbers(rest(reader))

    @pytest.mark.parametrize("is_there", [False, True])
    def test_removed_before(self, path: Path, reader: LogReader, is_there: bool) -> None:  # noqa: FBT001
        """The same for one who comes back later, even before its first record is there."""
        if is_there:
            path.touch()
        assert 0 == reader.seek_after(1000)
        assert [] == rest(reader)
        write(path, 2)

        assert [1, 2] == numbers(rest(reader))

    def test_foreign_lines(self, path: Path, reader: LogReader) -> None:
        """What is no record is left out, however long it is."""
        path.write_bytes(b"hello\n" + b"x" * 2_000_000 + b"\n1 t 1 out 1\n")

        assert [1] == numbers(rest(reader))
