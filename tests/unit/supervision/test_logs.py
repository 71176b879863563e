"""The logs of all backends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localplane_server.supervision import logs
from localplane_server.supervision.log_files import DEFAULT_LIMITS, LogLimits
from localplane_server.supervision.log_record import ERRORS, OUTPUT
from localplane_server.supervision.log_writer import Entry, RotatedLog
from localplane_server.supervision.logs import KEEP_LOGS, KEEP_SECONDS, LogArchive
from localplane_server.supervision.output_log import OutputLog

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.log"


@pytest.fixture
def archive(tmp_path: Path) -> LogArchive:
    return LogArchive(tmp_path / "logs", now=lambda: NOW)


def begin(path: Path, spawn_id: str, limits: LogLimits = DEFAULT_LIMITS) -> OutputLog:
    path.parent.mkdir(exist_ok=True)
    log = OutputLog(RotatedLog(str(path), limits))
    log.started(7, spawn_id)
    return log


def say(path: Path, text: bytes, spawn_id: str = "aaaa") -> None:
    log = begin(path, spawn_id)
    log.write(OUTPUT, text)
    log.ended("exit code 0")
    log.close()


class TestTail:
    def test_last_lines(self, path: Path) -> None:
        """The last lines come, oldest first, without the marks, with or without an end of line."""
        say(path, b"a\nb\r\nc\nd")

        assert ["b", "c", "d"] == logs.tail(path, lines=3)
        assert [] == logs.tail(path, lines=0)

    def test_missing_log(self, path: Path) -> None:
        """A log that does not exist is empty."""
        assert [] == logs.tail(path)

    def test_undecodable_bytes(self, path: Path) -> None:
        """Bytes that are not text are replaced."""
        say(path, b"caf\xe9\n")

        assert ["caf\ufffd"] == logs.tail(path)

    def test_long_lines(self, path: Path) -> None:
        """A line that was written in pieces is one line, and is cut; the streams are kept apart."""
        log = begin(path, "aaaa")
        log.write(OUTPUT, b"x" * 40_000)
        log.write(ERRORS, b"y\n")
        log.write(OUTPUT, b"\nend\n")
        log.close()

        assert ["x" * 4096, "y", "end"] == logs.tail(path)

    def test_only_one_spawn(self, path: Path) -> None:
        """What an earlier process said is not mistaken for this one's last words."""
        say(path, b"from before\n")
        begin(path, "bbbb").close()

        assert [] == logs.tail(path, spawn_id="bbbb")

    def test_spawn_that_began_in_an_older_file(self, path: Path) -> None:
        """The start of a spawn is found across a rotation; one that is out of reach hides nothing."""
        say(path, b"old\n", "0000")
        log = begin(path, "aaaa", LogLimits(max_bytes=250))
        log.write(OUTPUT, b"one\n")
        log.write(OUTPUT, b"two, which goes to the next file, as it is rather long\n")
        log.close()

        expected = ["one", "two, which goes to the next file, as it is rather long"]
        assert Path(f"{path}.1").exists()
        assert expected == logs.tail(path, spawn_id="aaaa")
        assert expected == logs.tail(path, lines=2, spawn_id="unknown")


class TestPath:
    def test_one_file_for_each_name(self, archive: LogArchive, tmp_path: Path) -> None:
        """Whatever a model is called, its log lies in the folder and is no other's."""
        long = "n" * 250
        names = [
            "a",
            "A",
            "a/b",
            "a__b",
            "a%2Fb",
            "..",
            "../x",
            ".",
            "ü.gguf",
            "x y",
            long,
            long + "n",
        ]
        paths = [archive.path(name) for name in names]

        assert len(names) == len(set(paths))
        assert {tmp_path / "logs"} == {path.parent for path in paths}
        assert all(len(path.name.encode()) < 240 for path in paths)


class TestRemoval:
    def age(self, archive: LogArchive, model: str, seconds: float) -> Path:
        path = archive.path(model)
        say(path, b"x\n")
        os.utime(path, (NOW - seconds, NOW - seconds))
        return path

    def test_by_age(self, archive: LogArchive) -> None:
        """What nobody has written to for long goes, with its older files."""
        old = self.age(archive, "old", KEEP_SECONDS + 1)
        older_file = Path(f"{old}.1")
        older_file.write_text("0 t 1 out x\n")
        os.utime(older_file, (NOW - 2 * KEEP_SECONDS, NOW - 2 * KEEP_SECONDS))
        young = self.age(archive, "young", KEEP_SECONDS - 1)

        assert [old.name] == archive.remove_old()
        assert (False, False, True) == (old.exists(), older_file.exists(), young.exists())

    def test_by_number(self, archive: LogArchive) -> None:
        """Of too many, those go that were not written to for the longest time."""
        paths = [self.age(archive, f"m{number}", float(number)) for number in range(KEEP_LOGS + 3)]
        archive.remove_old()

        assert [True] * KEEP_LOGS + [False] * 3 == [path.exists() for path in paths]

    def test_not_in_use(self, archive: LogArchive) -> None:
        """A backend that has nothing to say keeps its log."""
        path = archive.path("quiet")
        log = begin(path, "aaaa")
        os.utime(path, (0, 0))
        assert [] == archive.remove_old()

        log.close()
        os.utime(path, (0, 0))
        assert [path.name] == archive.remove_old()

    def test_no_folder(self, archive: LogArchive) -> None:
        """Before the first log there is nothing to remove."""
        assert [] == archive.remove_old()

    def test_other_files_stay(self, archive: LogArchive, tmp_path: Path) -> None:
        """Only logs are removed."""
        self.age(archive, "m", 0.0)
        other = tmp_path / "logs" / "notes.txt"
        other.write_text("mine")
        os.utime(other, (0, 0))
        archive.remove_old()

        assert other.exists()

    def test_numbers_are_not_used_again(self, archive: LogArchive) -> None:
        """After a removal, logs begin behind every number that was ever told."""
        path = self.age(archive, "m", KEEP_SECONDS + 1)
        log = RotatedLog(str(path), archive.limits())
        log.append(1, [Entry(OUTPUT, b"x")] * 10)
        last = log._sequence
        log.close()
        os.utime(path, (0, 0))
        archive.remove_old()

        assert last + 1 == archive.limits().first_sequence
