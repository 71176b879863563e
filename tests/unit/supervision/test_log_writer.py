"""Writing logs."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import threading
from pathlib import Path

import pytest

from localplane_server.supervision.log_files import LogLimits
from localplane_server.supervision.log_record import OUTPUT, LogRecord, record_of
from localplane_server.supervision.log_writer import Entry, RotatedLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.log"


def entries(*texts: str) -> list[Entry]:
    return [Entry(OUTPUT, text.encode()) for text in texts]


def records(*files: Path) -> list[LogRecord]:
    found = [record_of(line) for file in files for line in file.read_bytes().splitlines()]
    assert None not in found
    return [record for record in found if record]


def texts(*files: Path) -> list[str]:
    return [record.text.decode() for record in records(*files)]


def aged(path: Path, number: int) -> Path:
    return Path(f"{path}.{number}")


class TestAppend:
    def test_numbers(self, path: Path) -> None:
        """Records are numbered from one on, without a gap."""
        log = RotatedLog(str(path))
        assert 2 == log.append(5, entries("a", "b"))
        assert 1 == log.append(5, entries("c"))
        log.close()

        assert [(1, 5, b"a"), (2, 5, b"b"), (3, 5, b"c")] == [
            (one.sequence, one.pid, one.text) for one in records(path)
        ]

    def test_keeps_the_newest(self, path: Path) -> None:
        """A full file moves aside, the oldest one goes, and no file is larger than it may be."""
        limits = LogLimits(max_bytes=100, files=3)
        log = RotatedLog(str(path), limits)
        for number in range(40):
            log.append(1, entries(f"line {number}"))
        log.close()

        files = [aged(path, 2), aged(path, 1), path]
        kept = [one.sequence for one in records(*files)]
        assert list(range(kept[0], 41)) == kept
        assert kept[0] > 1
        assert max(file.stat().st_size for file in files) <= limits.max_bytes
        assert 3 == len(list(path.parent.iterdir()))

    def test_one_file(self, path: Path) -> None:
        """With one file, a full one is begun anew."""
        log = RotatedLog(str(path), LogLimits(max_bytes=100, files=1))
        for number in range(9):
            log.append(1, entries(f"line {number}"))
        log.close()

        assert 9 == records(path)[-1].sequence
        assert [path] == list(path.parent.iterdir())

    def test_batch_larger_than_a_file(self, path: Path) -> None:
        """What comes at once may fill several files."""
        log = RotatedLog(str(path), LogLimits(max_bytes=100, files=9))
        assert 8 == log.append(1, entries(*"abcdefgh"))
        log.close()

        names = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_ino)
        assert len(names) > 2
        assert set("abcdefgh") == set(texts(*names))

    def test_is_private(self, path: Path) -> None:
        """Prompts may be in it, so nobody else can read it, before and after a rotation."""
        log = RotatedLog(str(path), LogLimits(max_bytes=60))
        log.append(1, entries("a" * 30, "b" * 30))
        log.close()

        assert [0o600, 0o600] == [file.stat().st_mode & 0o777 for file in (path, aged(path, 1))]


class TestStart:
    def test_goes_on(self, path: Path) -> None:
        """A log that exists is continued: its numbers and its size count."""
        for text in ("one", "two"):
            log = RotatedLog(str(path))
            log.append(1, entries(text))
            log.close()

        assert [1, 2] == [one.sequence for one in records(path)]

    def test_goes_on_behind_an_older_file(self, path: Path) -> None:
        """The newest file may have nothing yet."""
        aged(path, 1).write_text("41 t 1 out x\n")
        log = RotatedLog(str(path))
        log.append(1, entries("y"))
        log.close()

        assert 42 == records(path)[0].sequence

    def test_first_sequence(self, path: Path) -> None:
        """A new log may be told where to begin; an existing one knows better."""
        for _ in range(2):
            log = RotatedLog(str(path), LogLimits(first_sequence=7))
            log.append(1, entries("x"))
            log.close()

        assert [7, 8] == [one.sequence for one in records(path)]

    def test_torn_line(self, path: Path) -> None:
        """What a writer that was killed left unfinished does not damage what follows."""
        path.write_text("1 t 1 out whole\n2 t 1 out to")
        log = RotatedLog(str(path))
        log.append(1, entries("new"))
        log.close()

        assert [(1, b"whole"), (2, b"new")] == [(one.sequence, one.text) for one in records(path)]

    def test_foreign_text(self, path: Path) -> None:
        """A file that is no log of ours is continued like an empty one."""
        path.write_text("hello\nworld\n")
        log = RotatedLog(str(path))
        log.append(1, entries("new"))
        log.close()

        line = path.read_bytes().splitlines()[-1]
        assert (1, b"new") == (record_of(line) or LogRecord(0, "", 0, "", b""))[::4]

    def test_fewer_files_than_before(self, path: Path) -> None:
        """Files that are too many by now go."""
        for number in range(1, 5):
            aged(path, number).write_text(f"{9 - number} t 1 out x\n")
        RotatedLog(str(path), LogLimits(files=2)).close()

        assert {path, aged(path, 1)} == set(path.parent.iterdir())

    def test_cannot_be_opened(self, tmp_path: Path) -> None:
        """A log that is no file is an error."""
        with pytest.raises(IsADirectoryError):
            RotatedLog(str(tmp_path))


class TestLock:
    def test_waits_for_the_writer_before(self, path: Path) -> None:
        """Two writers do not mix: the second goes on where the first ended, wherever that is by now."""
        first = RotatedLog(str(path), LogLimits(max_bytes=60))
        first.append(1, entries("a"))
        seen: list[int] = []

        def second() -> None:
            log = RotatedLog(str(path), LogLimits(max_bytes=60), lock_seconds=20)
            seen.append(log.append(2, entries("c")))
            log.close()

        thread = threading.Thread(target=second)
        thread.start()
        first.append(1, entries("b" * 40))
        first.close()
        thread.join()

        assert [1] == seen
        found = records(
            *reversed([path, *[f for f in (aged(path, 1), aged(path, 2)) if f.exists()]])
        )
        assert [1, 2, 3] == [one.sequence for one in found]
        assert [1, 1, 2] == [one.pid for one in found]

    def test_does_not_wait_for_ever(self, path: Path) -> None:
        """A writer that is stuck is no reason to write nothing."""
        path.write_text("1 t 1 out x\n")
        with path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            log = RotatedLog(str(path), lock_seconds=0)
            assert 1 == log.append(2, entries("y"))
            log.close()

        assert [1, 2] == [one.sequence for one in records(path)]

    def test_is_kept_over_a_rotation(self, path: Path) -> None:
        """The new file is locked as the old one was."""
        log = RotatedLog(str(path), LogLimits(max_bytes=60))
        log.append(1, entries("a" * 30, "b" * 30))
        with path.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        log.close()


class TestFullDisk:
    def test_loses_records_and_no_number(self, path: Path) -> None:
        """What cannot be written is not counted, and no half of a line is left."""
        log = RotatedLog(str(path))
        log.append(1, entries("before"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, hard))
        try:
            assert 0 == log.append(1, entries("lost"))
            assert 0 == log.append(1, entries("lost too"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert 1 == log.append(1, entries("after"))
        log.close()

        assert ["before", "after"] == texts(path)
        assert [1, 2] == [one.sequence for one in records(path)]

    def test_from_the_start(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A log that cannot be made for want of room is made later."""
        real = os.open
        full = [True]

        def opening(name: str, flags: int, mode: int = 0o777) -> int:
            if full[0] and flags & os.O_CREAT:
                raise OSError(errno.ENOSPC, "no space")
            return real(name, flags, mode)

        monkeypatch.setattr(os, "open", opening)
        log = RotatedLog(str(path))
        assert 0 == log.append(1, entries("lost"))
        full[0] = False
        assert 1 == log.append(1, entries("kept"))
        log.close()

        assert ["kept"] == texts(path)
