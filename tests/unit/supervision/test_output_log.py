"""Writing down what a backend says."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from localplane_server.supervision.log_record import ERRORS, LOST, OUTPUT, LogRecord, record_of
from localplane_server.supervision.log_writer import RotatedLog
from localplane_server.supervision.output_log import BURST_BYTES, BYTES_PER_SECOND, OutputLog

CHUNK = 65536


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.log"


@pytest.fixture
def log(path: Path, clock: Clock) -> OutputLog:
    return OutputLog(RotatedLog(str(path)), now=clock)


def written(path: Path) -> list[LogRecord]:
    files = [Path(f"{path}.2"), Path(f"{path}.1"), path]
    lines = [line for file in files if file.exists() for line in file.read_bytes().split(b"\n")]
    return [record for line in lines if (record := record_of(line))]


def said(path: Path) -> list[tuple[str, str]]:
    return [(one.kind, one.text.decode()) for one in written(path)]


class TestMarks:
    def test_life_of_a_process(self, log: OutputLog, path: Path) -> None:
        """Start and end stand around what was said on either stream, unfinished lines included."""
        log.started(7, "abc")
        log.write(OUTPUT, b"hello\nbye")
        log.write(ERRORS, b"oh\n")
        log.ended("exit code 3")
        log.close()

        assert [
            ("start", "process 7 started, spawn abc"),
            ("out", "hello"),
            ("err", "oh"),
            ("out", "bye"),
            ("end", "process 7 ended with exit code 3"),
        ] == said(path)
        assert {7} == {one.pid for one in written(path)}

    def test_not_started(self, log: OutputLog, path: Path) -> None:
        """A program that cannot be run is a line, of no process."""
        log.not_started("cannot run x")
        log.close()

        assert [(0, b"cannot run x")] == [(one.pid, one.text) for one in written(path)]

    def test_others_go_on(self, log: OutputLog, path: Path) -> None:
        """What children say after the end is kept."""
        log.started(7, "abc")
        log.ended("exit code 0")
        log.write(OUTPUT, b"still here")
        log.close()

        assert ("out", "still here") == said(path)[-1]


class TestUnfinishedLines:
    def test_are_written_after_a_while(self, log: OutputLog, clock: Clock, path: Path) -> None:
        """The beginning of a line waits for a second, then it is written, and its end follows."""
        log.write(OUTPUT, b"Loading ... ")
        log.look()
        assert [] == said(path)
        assert clock.now + 1.0 == log.due_at

        clock.now += 1.0
        log.look()
        assert [("out+", "Loading ... ")] == said(path)
        assert log.due_at is None

        log.write(OUTPUT, b"done\n")
        assert [("out+", "Loading ... "), ("out", "done")] == said(path)

    def test_nothing_to_wait_for(self, log: OutputLog) -> None:
        """Whole lines leave nothing to come back for."""
        log.write(OUTPUT, b"one\n")

        assert log.due_at is None


class TestFlood:
    def flood(self, log: OutputLog, clock: Clock, seconds: float, letter: bytes = b"x") -> int:
        """Write a hundred MiB for each second."""
        chunk = letter * (CHUNK - 1) + b"\n"
        count = int(1600 * seconds)
        for _ in range(count):
            log.write(OUTPUT, chunk)
            clock.now += 1 / 1600
        return count * CHUNK

    def test_is_bounded_and_told(self, log: OutputLog, clock: Clock, path: Path) -> None:
        """Of what comes too fast a part is written; the rest is counted, to the byte."""
        total = self.flood(log, clock, 4.0)
        log.close()

        records = written(path)
        lost = [int(one.text.split()[0]) for one in records if one.kind == LOST]
        kept = sum(len(one.text) for one in records if one.kind.startswith(OUTPUT))
        last = [one for one in records if one.kind == LOST][-1]
        assert sum(path.parent.joinpath(f.name).stat().st_size for f in path.parent.iterdir()) < (
            BURST_BYTES + 5 * BYTES_PER_SECOND
        )
        assert b"more than 1 MiB a second" in last.text
        assert sum(lost) + kept <= total
        assert sum(lost) > 0.9 * (total - BURST_BYTES - 4 * BYTES_PER_SECOND)

    def test_last_words(self, log: OutputLog, clock: Clock, path: Path) -> None:
        """What was said last is written, however fast it came."""
        log.started(7, "abc")
        self.flood(log, clock, 1.0)
        log.write(ERRORS, b"the reason\n")
        log.ended("exit code 1")
        log.close()

        assert ("err", "the reason") == said(path)[-2]

    def test_end_of_a_flood(self, log: OutputLog, clock: Clock, path: Path) -> None:
        """When it is over, what came last is written by itself, and everything after that."""
        self.flood(log, clock, 1.0)
        log.write(OUTPUT, b"calm\n")
        while (due_at := log.due_at) is not None:
            clock.now = max(clock.now, due_at)
            log.look()
        assert ("out", "calm") == said(path)[-1]

        clock.now += 5.0
        log.write(OUTPUT, b"after\n")
        assert ("out", "after") == said(path)[-1]

    def test_empty_lines(self, log: OutputLog, clock: Clock, path: Path) -> None:
        """Lines cost what they take on the disk, not what they say."""
        for _ in range(100):
            log.write(OUTPUT, b"\n" * CHUNK)
        log.close()

        assert sum(file.stat().st_size for file in path.parent.iterdir()) < 3 * BURST_BYTES


class TestFullDisk:
    def test_is_told_when_there_is_room(self, log: OutputLog, path: Path) -> None:
        """What could not be written is counted, and the log says so as soon as it can."""
        log.write(OUTPUT, b"before\n")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        try:
            log.write(OUTPUT, b"12345\n")
            log.write(OUTPUT, b"67\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.write(OUTPUT, b"after\n")
        log.close()

        assert [
            ("out", "before"),
            ("lost", "9 bytes of output are missing: they could not be written"),
            ("out", "after"),
        ] == said(path)


class TestSecrets:
    def test_are_not_written(self, path: Path) -> None:
        """A backend that prints its environment does not give away what is secret there."""
        log = OutputLog(RotatedLog(str(path)), (b"hush-hush",))
        log.write(ERRORS, b"TOKEN=hush-hush\n")
        log.close()

        assert [("err", "TOKEN=***")] == said(path)
