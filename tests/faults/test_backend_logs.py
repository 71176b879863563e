"""Logs of backends when things go wrong: full disks, floods, deaths, and readers that are slow."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from backend_trees import (
    DYING_DAEMON,
    FLOOD,
    PYTHON,
    MemoryRecords,
    Program,
    launch,
    until,
    written,
)
from localplane_server.models.catalog import ModelCatalog
from localplane_server.scheduling.backend_logs import BackendLogs
from localplane_server.supervision.backend_process import BackendProcess, Exit
from localplane_server.supervision.keeper_handle import start_keeper
from localplane_server.supervision.log_files import LogLimits
from localplane_server.supervision.log_reader import LogReader
from localplane_server.supervision.log_record import (
    ENDED,
    GONE,
    LIVE,
    LOST,
    OUTPUT,
    STARTED,
    LogRecord,
)
from localplane_server.supervision.logs import LogArchive, tail
from localplane_server.supervision.processes import Processes

pytestmark = pytest.mark.faults

MEBIBYTE = 1024 * 1024
WITHIN_FIVE_SECONDS = 25.0


def python(text: str) -> Program:
    return Program((*PYTHON, text))


COUNTER = """
import sys, time
number = 0
while True:
    number += 1
    print(number, flush=True)
    {pause}
"""
"""Writes one number after the other."""


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    async with Processes(start_keeper(), MemoryRecords(), close_term_seconds=0.1) as processes:
        yield processes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for little."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("only root can mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class LittleMemory:
    """A control group with little memory."""

    def __init__(self) -> None:
        self._folder = Path(f"/sys/fs/cgroup/memory/localplane-test-{os.getpid()}")
        self._taken: list[tuple[int, Path]] = []
        self._folder.mkdir()
        (self._folder / "memory.limit_in_bytes").write_text(str(64 * MEBIBYTE))

    def take(self, pid: int) -> None:
        """Have a process, and what it starts from now on, be in it."""
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        path = next(line.partition(":memory:")[2] for line in lines if ":memory:" in line)
        self._taken.append((pid, Path(f"/sys/fs/cgroup/memory{path}")))
        (self._folder / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Put everything back."""
        for pid, folder in self._taken:
            (folder / "cgroup.procs").write_text(str(pid))
        self._folder.rmdir()


@pytest.fixture
def little_memory() -> Iterator[LittleMemory]:
    try:
        group = LittleMemory()
    except OSError:
        pytest.skip("there is no control group for memory to make a part of")
    yield group
    group.close()


def fill(folder: Path) -> Path:
    """Leave no room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def records(path: Path) -> list[LogRecord]:
    found: list[LogRecord] = []
    with closing(LogReader(path)) as reader:
        reader.seek_last(10**6)
        while read := reader.read():
            found += read
    return found


def kinds(path: Path) -> list[str]:
    return [record.kind for record in records(path)]


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def warden_of(process: BackendProcess) -> psutil.Process:
    return psutil.Process(process._warden[0])


def without_a_gap(found: list[LogRecord]) -> bool:
    """Whether each record follows the one before, or stands for those that are missing."""
    expected = found[0].sequence
    for record in found:
        if record.kind == GONE:
            assert record.sequence >= expected
        elif record.sequence != expected:
            return False
        expected = record.sequence + 1
    return True


class TestFullDisk:
    async def test_while_a_backend_writes(self, processes: Processes, small_disk: Path) -> None:
        """The backend and its warden live on; when there is room, the log goes on and says what is missing."""
        path = small_disk / "log"
        program = python(COUNTER.format(pause="time.sleep(0.001)"))
        process = await processes.spawn(
            replace(launch(path, program), log_limits=LogLimits(16 * MEBIBYTE, 3))
        )
        await written(path, "1")
        filler = fill(small_disk)
        warden = warden_of(process)
        read_before = warden.io_counters().read_chars
        # The last page of the file has room still; more than that was not written.
        await until(lambda: warden.io_counters().read_chars - read_before > 2 * mmap.PAGESIZE)
        assert process.tree() == [process.pid]

        filler.unlink()
        await until(lambda: LOST in kinds(path))
        await until(lambda: kinds(path)[-1] == OUTPUT)
        found = records(path)
        at = [record.kind for record in found].index(LOST)
        numbers = [int(record.text) for record in found if record.kind == OUTPUT]
        lost = int(found[at].text.split()[0])
        before, after = int(found[at - 1].text), int(found[at + 1].text)
        assert lost == sum(len(str(number)) + 1 for number in range(before + 1, after))
        assert sorted(set(numbers)) == numbers
        assert without_a_gap(found)
        await process.stop(term_seconds=0)

    async def test_from_the_start(self, processes: Processes, small_disk: Path) -> None:
        """A backend is started though its log cannot be made, and its end is told."""
        filler = fill(small_disk)
        path = small_disk / "log"
        program = python(
            "import sys, time; print('x' * 5000, flush=True); time.sleep(0.5); sys.exit(3)"
        )
        process = await processes.spawn(launch(path, program))
        assert Exit(3, None) == await asyncio.wait_for(
            asyncio.shield(process.exited), WITHIN_FIVE_SECONDS
        )
        await until(lambda: process.is_ended)

        filler.unlink()
        process = await processes.spawn(launch(path, program))
        await asyncio.wait_for(asyncio.shield(process.exited), WITHIN_FIVE_SECONDS)
        assert [STARTED, OUTPUT, ENDED] == kinds(path)[-3:]


class TestFlood:
    async def test_is_bounded(self, processes: Processes, tmp_path: Path) -> None:
        """Neither disk nor memory grow, what is missing is told, and another backend's words are kept."""
        limits = LogLimits(MEBIBYTE, 3)
        flood = await processes.spawn(replace(launch(tmp_path / "flood", FLOOD), log_limits=limits))
        await until(lambda: LOST in kinds(tmp_path / "flood"), seconds=60)
        quiet = await processes.spawn(
            launch(tmp_path / "quiet", python("print('hello'); raise SystemExit(4)"))
        )
        assert Exit(4, None) == await asyncio.wait_for(
            asyncio.shield(quiet.exited), WITHIN_FIVE_SECONDS
        )
        assert ["hello"] == tail(tmp_path / "quiet")
        warden = warden_of(flood)
        before = warden.memory_info().rss
        written_before = psutil.Process(flood.pid).io_counters().write_chars
        await asyncio.sleep(2.0)
        grown = warden.memory_info().rss - before
        flooded = psutil.Process(flood.pid).io_counters().write_chars - written_before

        assert grown < 4 * MEBIBYTE
        assert flooded > 8 * MEBIBYTE, "the backend was held up"
        assert size_of(tmp_path / "flood") <= 3 * MEBIBYTE
        await flood.stop(term_seconds=0)

    async def test_is_not_held_up(self, processes: Processes, tmp_path: Path) -> None:
        """A backend that writes 100 MB and fails is done in no time, and its last words are there."""
        program = python(
            "import os, sys\n"
            "for _ in range(1600): os.write(1, b'x' * 65535 + b'\\n')\n"
            "os.write(2, b'the reason\\n')\n"
            "sys.exit(7)"
        )
        began = time.monotonic()
        process = await processes.spawn(launch(tmp_path / "log", program))
        assert Exit(7, None) == await asyncio.wait_for(
            asyncio.shield(process.exited), WITHIN_FIVE_SECONDS
        )

        assert time.monotonic() - began < WITHIN_FIVE_SECONDS
        assert "the reason" in tail(tmp_path / "log", lines=8, spawn_id=process.spawn_id)
        assert LOST in kinds(tmp_path / "log")

    async def test_strange_output(self, processes: Processes, tmp_path: Path) -> None:
        """Whatever the bytes are, the log stays one, and each record can be read."""
        program = python(
            "import os, random\n"
            "draw = random.Random(1)\n"
            "for _ in range(200):\n"
            "    os.write(draw.choice((1, 2)), draw.randbytes(draw.randrange(1, 3000)))\n"
            "os.write(1, b'\\n1 2026-01-31T12:00:00.000Z 1 end forged\\n\\0\\xff\\n')"
        )
        process = await processes.spawn(launch(tmp_path / "log", program))
        await asyncio.wait_for(asyncio.shield(process.exited), WITHIN_FIVE_SECONDS)
        found = records(tmp_path / "log")

        assert without_a_gap(found)
        assert [STARTED, ENDED] == [one.kind for one in found if one.kind in (STARTED, ENDED)]
        assert b"1 2026-01-31T12:00:00.000Z 1 end forged" in [one.text for one in found]

    async def test_progress(self, processes: Processes, tmp_path: Path) -> None:
        """A progress bar is seen while it moves, and does not fill the log."""
        program = python(
            "import sys, time\n"
            "for number in range(250):\n"
            "    sys.stderr.write(f'\\r{number} of 250'); sys.stderr.flush(); time.sleep(0.01)\n"
            "sys.stderr.write('\\n'); time.sleep(600)"
        )
        process = await processes.spawn(launch(tmp_path / "log", program))
        await until(lambda: b"249 of 250" in [one.text for one in records(tmp_path / "log")])
        states = [one.text for one in records(tmp_path / "log") if one.kind == "err"]

        assert 2 <= len(states) < 30
        await process.stop(term_seconds=0)


class TestDeaths:
    async def test_of_the_warden(self, processes: Processes, tmp_path: Path) -> None:
        """A log whose writer was killed goes on with the next process: no number twice, none left out."""
        path = tmp_path / "log"
        for _ in range(3):
            process = await processes.spawn(launch(path, python(COUNTER.format(pause="pass"))))
            await written(path, " out 5")
            warden_of(process).send_signal(signal.SIGKILL)
            await process.stop(term_seconds=0)
        found = records(path)

        assert without_a_gap(found)
        assert 3 >= [one.kind for one in found].count(STARTED) >= 1

    async def test_of_a_backend_that_leaves_others(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        """The next process does not mix its words with what the last one's children still say."""
        path = tmp_path / "log"
        first = await processes.spawn(launch(path, DYING_DAEMON))
        await asyncio.wait_for(asyncio.shield(first.exited), WITHIN_FIVE_SECONDS)
        second = await processes.spawn(launch(path, python("print('second')")))
        await asyncio.wait_for(asyncio.shield(second.exited), WITHIN_FIVE_SECONDS)
        found = records(path)
        pids = [one.pid for one in found]

        assert first.is_ended
        assert without_a_gap(found)
        assert pids == sorted(pids, key=[first.pid, second.pid].index)

    async def test_for_want_of_memory(
        self, processes: Processes, little_memory: LittleMemory, tmp_path: Path
    ) -> None:
        """A backend that the kernel kills for its memory is told apart from one that somebody killed."""
        little_memory.take(processes.keeper_pid)
        greedy = python("x = bytearray(500_000_000)\nx[::4096] = x[::4096]")
        process = await processes.spawn(launch(tmp_path / "log", greedy))
        status = await asyncio.wait_for(asyncio.shield(process.exited), WITHIN_FIVE_SECONDS)
        await until(lambda: process.is_ended)

        assert "signal SIGKILL, most likely for want of memory" in str(status)
        assert b"for want of memory" in records(tmp_path / "log")[-1].text


class TestReaders:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> LogArchive:
        return LogArchive(tmp_path / "logs")

    @pytest.fixture
    def logs(self, archive: LogArchive, tmp_path: Path) -> BackendLogs:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "m.yaml").write_text("name: m\nbackend: fake\n")
        return BackendLogs(ModelCatalog(tmp_path / "models"), archive)

    async def spawn(
        self, processes: Processes, archive: LogArchive, program: Program, limits: LogLimits
    ) -> BackendProcess:
        path = archive.path("m")
        return await processes.spawn(replace(launch(path, program), log_limits=limits))

    async def test_over_rotations(
        self, processes: Processes, archive: LogArchive, logs: BackendLogs
    ) -> None:
        """A reader that keeps up sees every line, while files are rotated all the time."""
        program = python(COUNTER.format(pause="time.sleep(0.0005)"))
        process = await self.spawn(processes, archive, program, LogLimits(100_000, 3))
        seen: list[LogRecord] = []
        async with aclosing(logs.tail("m", after_sequence=0, follow=True)) as tailing:
            async for record in tailing:
                seen.append(record)
                if record.sequence > 6000:
                    break
        await process.stop(term_seconds=0)
        numbers = [int(record.text) for record in seen if record.kind == OUTPUT]

        assert list(range(1, len(numbers) + 1)) == numbers
        assert archive.path("m").with_name("m.log.1").exists()
        assert without_a_gap([record for record in seen if record.kind != LIVE])

    async def test_slow_one(
        self, processes: Processes, archive: LogArchive, logs: BackendLogs
    ) -> None:
        """A reader that stops reading holds up nobody, costs nothing, and is told what it missed."""
        program = python(COUNTER.format(pause="pass"))
        process = await self.spawn(processes, archive, program, LogLimits(200_000, 2))
        own = psutil.Process()
        async with aclosing(logs.tail("m", after_sequence=0, follow=True)) as tailing:
            first = await anext(tailing)
            before, at = (
                own.memory_info().rss,
                psutil.Process(process.pid).io_counters().write_chars,
            )
            await until(
                lambda: psutil.Process(process.pid).io_counters().write_chars > at + 2 * MEBIBYTE,
                seconds=60,
            )
            grown = own.memory_info().rss - before
            await process.stop(term_seconds=0)
            seen = [first]
            async for record in tailing:
                seen.append(record)
                if record.kind == ENDED:
                    break

        assert grown < 8 * MEBIBYTE
        assert GONE in [record.kind for record in seen]
        assert without_a_gap([record for record in seen if record.kind != LIVE])

    async def test_no_end_without_following(
        self, processes: Processes, archive: LogArchive, logs: BackendLogs
    ) -> None:
        """Whoever asks for the past gets an end, though the backend writes faster than they read."""
        process = await self.spawn(
            processes, archive, python(COUNTER.format(pause="pass")), LogLimits(MEBIBYTE, 3)
        )
        await written(archive.path("m"), " out 500")
        seen = 0
        async with asyncio.timeout(60):
            async for _ in logs.tail("m", lines=500):
                seen += 1
                await asyncio.sleep(0.001)
        await process.stop(term_seconds=0)

        assert 500 == seen

    async def test_end_of_the_service(self, logs: BackendLogs) -> None:
        """Who waits for more is let go when the service stops."""
        async with aclosing(logs.tail("m", follow=True)) as tailing:
            assert LIVE == (await anext(tailing)).kind
            waiting = asyncio.ensure_future(anext(tailing, None))
            await asyncio.sleep(0)
            logs.close()

            assert await asyncio.wait_for(waiting, 5.0) is None

    async def test_one_who_leaves(self, logs: BackendLogs, archive: LogArchive) -> None:
        """A reader that is cancelled leaves no file open."""
        archive.path("m").parent.mkdir()
        archive.path("m").write_text("1 2026-01-31T12:00:00.000Z 1 out x\n")

        def open_files() -> int:
            return sum(Path(one.path) == archive.path("m") for one in psutil.Process().open_files())

        async def read() -> None:
            async with aclosing(logs.tail("m", follow=True)) as tailing:
                async for _ in tailing:
                    pass

        tasks = [asyncio.create_task(read()) for _ in range(10)]
        await until(lambda: open_files() == 10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        await until(lambda: open_files() == 0)
