"""Real processes, and every death that can befall them or those that watch them.

One module, longer than others: each death is tried on the same trees of processes, through the same fixtures.
"""

from __future__ import annotations

import asyncio
import errno
import json
import operator
import os
import signal
import subprocess
import sys
import time
from asyncio import subprocess as aio_subprocess
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from backend_trees import (
    COMET,
    CROWD,
    DAEMON,
    DYING_DAEMON,
    FLOOD,
    NAMELESS_DAEMON,
    PYTHON,
    SHELL,
    SLEEPER,
    STUBBORN,
    Identity,
    MemoryRecords,
    Program,
    alive,
    identities,
    launch,
    spawn,
    until,
    wardens_below,
    written,
)
from localplane_server import errors
from localplane_server.supervision import logs, process_table
from localplane_server.supervision.backend_process import BackendProcess, Exit, Launch
from localplane_server.supervision.keeper_handle import start_keeper
from localplane_server.supervision.log_files import LogLimits
from localplane_server.supervision.processes import Processes

pytestmark = pytest.mark.faults

STAND_IN = (sys.executable, str(Path(__file__).with_name("server_stand_in.py")))
STAND_IN_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

# Promises to users are a fifth of these.
AT_ONCE = 2.5
WITHIN_A_SECOND = 5.0
WITHIN_TWO_SECONDS = 10.0


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
async def processes(records: MemoryRecords) -> AsyncIterator[Processes]:
    async with Processes(start_keeper(), records, close_term_seconds=0.1) as processes:
        yield processes
    assert {} == records.rows
    assert [] == wardens_below(os.getpid())


TREES = (SHELL, DAEMON, NAMELESS_DAEMON, STUBBORN)


async def spawn_all(
    processes: Processes, folder: Path, programs: Iterable[Program]
) -> tuple[list[BackendProcess], set[Identity]]:
    """Start programs and wait until all their trees are complete."""
    spawned = [
        await spawn(processes, folder / f"{number}.log", program)
        for number, program in enumerate(programs)
    ]
    return [process for process, _ in spawned], set().union(*[seen for _, seen in spawned])


def exiting_child() -> subprocess.Popen[bytes]:
    """Start a child with which the keeper has nothing to do, and which exits with code 5."""
    return subprocess.Popen(["/bin/sh", "-c", "exit 5"], start_new_session=True)


async def replaced(processes: Processes, keeper: int) -> None:
    """Wait until there is another keeper."""
    await until(lambda: processes.is_ready and processes.keeper_pid != keeper)


def warden_of(process: BackendProcess) -> int:
    return process._warden[0]


class TestStop:
    @pytest.mark.parametrize(
        "program",
        [SLEEPER, SHELL, DAEMON, NAMELESS_DAEMON],
        ids=["plain", "shell", "daemon", "nameless-daemon"],
    )
    async def test_leaves_nothing(
        self, processes: Processes, tmp_path: Path, program: Program
    ) -> None:
        """No descendant is alive when a stop returns, whatever the shape of the tree."""
        process, seen = await spawn(processes, tmp_path / "log", program)
        assert program.size == len(seen)

        started = time.monotonic()
        await process.stop()
        seconds = time.monotonic() - started

        assert set() == alive(seen, [process.spawn_id])
        assert [] == process.tree()
        assert seconds < AT_ONCE
        assert Exit(None, signal.SIGTERM) == process.exited.result()

    async def test_sigterm_comes_first(self, processes: Processes, tmp_path: Path) -> None:
        """A backend that obeys SIGTERM ends in its own way, and its last words are in the log."""
        program = """
import signal, sys, time
def end(*_):
    print("bye", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
print("hello", flush=True)
time.sleep(600)
"""
        process, _ = await spawn(
            processes, tmp_path / "log", Program((*PYTHON, program), 1, "hello")
        )

        await process.stop()

        assert Exit(7, None) == process.exited.result()
        assert ["hello", "bye"] == logs.tail(tmp_path / "log", spawn_id=process.spawn_id)

    @pytest.mark.parametrize(
        "program", [STUBBORN, COMET, FLOOD], ids=["stubborn", "comet", "flood"]
    )
    async def test_kills_after_the_grace_period(
        self, processes: Processes, tmp_path: Path, program: Program
    ) -> None:
        """What ignores SIGTERM is gone within the grace period and a second."""
        process, seen = await spawn(processes, tmp_path / "log", program)

        started = time.monotonic()
        await process.stop(term_seconds=0.2)
        seconds = time.monotonic() - started

        assert set() == alive(seen, [process.spawn_id])
        assert seconds < 0.2 + WITHIN_A_SECOND

    async def test_stubborn_gets_the_whole_grace_period(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        """Nothing is killed before the grace period is over."""
        process, _ = await spawn(processes, tmp_path / "log", STUBBORN)

        started = time.monotonic()
        await process.stop(term_seconds=0.3)

        assert time.monotonic() - started >= 0.3
        assert Exit(None, signal.SIGKILL) == process.exited.result()

    async def test_crowd(self, processes: Processes, tmp_path: Path) -> None:
        """Fifty children in sessions of their own are all found."""
        process, seen = await spawn(processes, tmp_path / "log", CROWD)

        await process.stop(term_seconds=0.1)

        assert set() == alive(seen, [process.spawn_id])

    async def test_suspended(self, processes: Processes, tmp_path: Path) -> None:
        """A suspended backend is woken up to obey, and does not use up the grace period."""
        process = await processes.spawn(launch(tmp_path / "log", SLEEPER))
        os.kill(process.pid, signal.SIGSTOP)

        started = time.monotonic()
        await process.stop(term_seconds=60)

        assert time.monotonic() - started < AT_ONCE
        assert Exit(None, signal.SIGTERM) == process.exited.result()

    async def test_many_callers(self, processes: Processes, tmp_path: Path) -> None:
        """Callers share one stop, the most impatient one decides, a later call returns at once."""
        process, _ = await spawn(processes, tmp_path / "log", STUBBORN)

        started = time.monotonic()
        await asyncio.gather(
            process.stop(term_seconds=60), process.stop(term_seconds=0.1), process.stop()
        )
        await process.stop()

        assert time.monotonic() - started < WITHIN_A_SECOND
        assert set() == alive([], [process.spawn_id])

    async def test_caller_goes_away(self, processes: Processes, tmp_path: Path) -> None:
        """A stop goes on when its caller is cancelled."""
        process, _ = await spawn(processes, tmp_path / "log", STUBBORN)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await process.stop(term_seconds=0.1)

        await until(lambda: process.is_ended)

        assert set() == alive([], [process.spawn_id])

    async def test_others_live_on(self, processes: Processes, tmp_path: Path) -> None:
        """A stop touches no process of another model."""
        other, of_other = await spawn(processes, tmp_path / "other.log", DAEMON)
        process, _ = await spawn(processes, tmp_path / "log", DAEMON)

        await process.stop()

        assert {pid for pid, _ in of_other} == alive(of_other)
        assert not other.exited.done()

    async def test_stuck_warden(
        self, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A warden that does not do its work is killed, and the keeper does it."""
        monkeypatch.setattr("localplane_server.supervision.backend_process.KILL_SECONDS", 0.1)
        process, seen = await spawn(processes, tmp_path / "log", DAEMON)
        os.kill(warden_of(process), signal.SIGSTOP)

        await process.stop(term_seconds=0.1)

        assert set() == alive(seen, [process.spawn_id])


class TestDeathOfABackend:
    async def test_exit_code(self, processes: Processes, tmp_path: Path) -> None:
        """An exit code is reported, with the last words already in the log."""
        program = Program((*PYTHON, "import sys; print('no such device'); sys.exit(3)"))
        process = await processes.spawn(launch(tmp_path / "log", program))

        status = await process.exited

        assert "exit code 3" == str(status)
        assert ["no such device"] == logs.tail(tmp_path / "log", spawn_id=process.spawn_id)

    async def test_signal(self, processes: Processes, tmp_path: Path) -> None:
        """A kill is noticed at once, and named."""
        process = await processes.spawn(launch(tmp_path / "log", SLEEPER))

        os.kill(process.pid, signal.SIGKILL)
        started = time.monotonic()
        status = await process.exited

        assert "signal SIGKILL" == str(status)
        assert time.monotonic() - started < 0.5

    async def test_leaves_a_daemon(self, processes: Processes, tmp_path: Path) -> None:
        """What a backend that died leaves behind is ended, without waiting for a stop."""
        process = await processes.spawn(launch(tmp_path / "log", DYING_DAEMON))
        assert Exit(3, None) == await process.exited

        await until(lambda: process.is_ended)
        await process.stop()

        assert set() == alive([], [process.spawn_id])

    async def test_stop_at_the_same_moment(self, processes: Processes, tmp_path: Path) -> None:
        """A stop that meets a death returns all the same."""
        for number in range(20):
            process = await processes.spawn(launch(tmp_path / f"{number}.log", SLEEPER))
            os.kill(process.pid, signal.SIGKILL)
            await process.stop()

            assert set() == alive([], [process.spawn_id])


class TestSpawn:
    @pytest.mark.parametrize(
        ("program", "number"),
        [("missing", errno.ENOENT), ("plain-file", errno.EACCES), ("noise", errno.ENOEXEC)],
    )
    async def test_program_that_cannot_run(
        self,
        processes: Processes,
        records: MemoryRecords,
        tmp_path: Path,
        program: str,
        number: int,
    ) -> None:
        """A program that cannot run is an error with the system's words, and leaves no record."""
        (tmp_path / "plain-file").write_text("text")
        (tmp_path / "noise").write_bytes(b"\0\1\2\3")
        (tmp_path / "noise").chmod(0o700)

        with pytest.raises(errors.BackendFailedError) as caught:
            await processes.spawn(launch(tmp_path / "log", Program((str(tmp_path / program),))))

        expected = f"cannot run {tmp_path / program}: {os.strerror(number)}"
        assert f"cannot start the backend of model m: {expected}" == str(caught.value)
        assert {"model": "m", "cause": expected} == caught.value.metadata
        await until(lambda: records.rows == {})

    async def test_missing_interpreter(self, processes: Processes, tmp_path: Path) -> None:
        """A script whose interpreter is missing is told from a script that is missing."""
        script = tmp_path / "run.sh"
        script.write_text("#!/nowhere/bash\n")
        script.chmod(0o700)

        with pytest.raises(errors.BackendFailedError, match="the interpreter that its first line"):
            await processes.spawn(launch(tmp_path / "log", Program((str(script),))))

    async def test_missing_folder(self, processes: Processes, tmp_path: Path) -> None:
        """A working directory that is missing is named."""
        what = Launch(
            model="m", argv=("true",), env={}, cwd=tmp_path / "nowhere", log_path=tmp_path / "log"
        )

        with pytest.raises(errors.BackendFailedError, match=f"cannot enter {tmp_path / 'nowhere'}"):
            await processes.spawn(what)

    async def test_log_that_cannot_be_opened(self, processes: Processes, tmp_path: Path) -> None:
        """A log that cannot be opened is named, and no process is started."""
        (tmp_path / "log").mkdir()

        with pytest.raises(errors.BackendFailedError, match=f"cannot open {tmp_path / 'log'}"):
            await processes.spawn(launch(tmp_path / "log", SLEEPER))

        await until(lambda: processes.trees() == {})

    async def test_log_folder_that_cannot_be_made(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        """So is a folder for logs that is something else."""
        (tmp_path / "logs").touch()

        with pytest.raises(errors.BackendFailedError, match="logs"):
            await processes.spawn(launch(tmp_path / "logs" / "log", SLEEPER))

    async def test_nul_in_an_argument(self, processes: Processes, tmp_path: Path) -> None:
        """An argument that no process can have is an error, not a hang."""
        with pytest.raises(errors.BackendFailedError, match="embedded null byte"):
            await processes.spawn(launch(tmp_path / "log", Program(("true", "\0"))))

    async def test_surroundings(self, processes: Processes, tmp_path: Path) -> None:
        """A backend has its own session, environment and folder, and nothing of the server's."""
        what = Launch(
            model="m",
            argv=("sleep", "600"),
            env={"PATH": os.environ["PATH"], "WORD": "snow\udcff"},
            cwd=tmp_path,
            log_path=tmp_path / "logs" / "log",
        )

        process = await processes.spawn(what)

        proc = Path(f"/proc/{process.pid}")
        # The last descriptors close while the program already counts as started.
        await until(lambda: {path.name for path in (proc / "fd").iterdir()} == {"0", "1", "2"})
        files = {path.name: str(path.readlink()) for path in (proc / "fd").iterdir()}
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
        entry = process_table.read(process.pid)
        assert entry is not None
        assert "/dev/null" == files["0"]
        assert files["1"].startswith("pipe:")
        assert files["2"].startswith("pipe:")
        assert str(tmp_path) == str((proc / "cwd").readlink())
        assert (process.pid, process.pid) == (entry.session, entry.group)
        # The first two of the real-time signals belong to the C library, which lets nobody reset them.
        ignored = int(status["SigIgn"], 16) & ~(0b11 << 31)
        assert (0, 0) == (ignored, int(status["SigBlk"], 16))
        environment = {**what.env, "LOCALPLANE_SPAWN_ID": process.spawn_id}
        items = {os.fsencode(f"{name}={value}") for name, value in environment.items()}
        assert items == set((proc / "environ").read_bytes().rstrip(b"\0").split(b"\0"))

    async def test_large_environment(self, processes: Processes, tmp_path: Path) -> None:
        """An environment larger than any message is passed on whole."""
        big = {f"V{number}": "x" * 100_000 for number in range(10)}
        program = "import os; print(sum(len(v) for k, v in os.environ.items() if k[0] == 'V'))"
        process = await processes.spawn(
            Launch(
                model="m",
                argv=(*PYTHON, program),
                env=big,
                cwd=None,
                log_path=tmp_path / "log",
            )
        )

        assert Exit(0, None) == await process.exited
        assert ["1000000"] == logs.tail(tmp_path / "log", spawn_id=process.spawn_id)

    async def test_caller_goes_away(
        self, processes: Processes, records: MemoryRecords, tmp_path: Path
    ) -> None:
        """What was being started for a caller that went away is ended."""
        task = asyncio.ensure_future(processes.spawn(launch(tmp_path / "log", DAEMON)))
        await until(lambda: records.rows)
        [spawn_id] = records.rows
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await until(lambda: not alive([], [spawn_id]) and not records.rows)

    async def test_records(
        self, processes: Processes, records: MemoryRecords, tmp_path: Path
    ) -> None:
        """A spawn is on record, with what tells its process from later ones, until it has ended."""
        process = await processes.spawn(launch(tmp_path / "log", SLEEPER, model="a model"))
        entry = process_table.read(process.pid)
        assert entry is not None

        [row] = records.rows.values()
        assert (process.spawn_id, "a model", SLEEPER.argv[0]) == row[:3]
        assert (process.pid, entry.start_ticks) == row[4:]
        await process.stop()

        await until(lambda: records.rows == {})

    async def test_log_is_bounded(self, processes: Processes, tmp_path: Path) -> None:
        """A backend that never stops talking does not fill the disk."""
        limits = LogLimits(max_bytes=100_000, files=3)
        process = await processes.spawn(replace(launch(tmp_path / "log", FLOOD), log_limits=limits))
        await until((tmp_path / "log.2").exists)
        await process.stop(term_seconds=0)

        sizes = [(tmp_path / name).stat().st_size for name in ("log", "log.1", "log.2")]
        assert not (tmp_path / "log.3").exists()
        assert max(sizes) <= limits.max_bytes

    async def test_no_descriptor_stays_open(self, processes: Processes, tmp_path: Path) -> None:
        """Spawns and stops leave no descriptor open, neither here nor in the keeper."""

        def descriptors() -> tuple[int, int]:
            here = len(list(Path("/proc/self/fd").iterdir()))
            return here, len(list(Path(f"/proc/{processes.keeper_pid}/fd").iterdir()))

        async def once() -> None:
            process = await processes.spawn(launch(tmp_path / "log", SLEEPER))
            await process.stop()
            with pytest.raises(errors.BackendFailedError):
                await processes.spawn(launch(tmp_path / "log", Program(("nowhere",))))

        await once()
        before = descriptors()
        for _ in range(30):
            await once()

        # Others' may be closed meanwhile, when what holds them is collected.
        await until(lambda: all(map(operator.le, descriptors(), before)))


class TestDeathOfAWarden:
    @pytest.mark.parametrize(
        "program", [SHELL, DAEMON, NAMELESS_DAEMON], ids=["shell", "daemon", "nameless-daemon"]
    )
    async def test_its_tree_goes(
        self, processes: Processes, tmp_path: Path, program: Program
    ) -> None:
        """A killed warden's tree is ended within a second; no other tree is touched."""
        _, of_other = await spawn(processes, tmp_path / "other.log", DAEMON)
        process, seen = await spawn(processes, tmp_path / "log", program)

        os.kill(warden_of(process), signal.SIGKILL)
        started = time.monotonic()
        await until(lambda: process.is_ended)

        assert time.monotonic() - started < WITHIN_A_SECOND
        assert set() == alive(seen, [process.spawn_id])
        assert Exit(None, signal.SIGKILL) == process.exited.result()
        assert {pid for pid, _ in of_other} == alive(of_other)
        assert processes.is_ready

    async def test_all_at_once(self, processes: Processes, tmp_path: Path) -> None:
        """Wardens that are killed together leave nothing either."""
        spawned, seen = await spawn_all(processes, tmp_path, [DAEMON] * 4)

        for process in spawned:
            os.kill(warden_of(process), signal.SIGKILL)
        await asyncio.gather(*[process.stop() for process in spawned])

        assert set() == alive(seen, [process.spawn_id for process in spawned])

    async def test_polite_signals(self, processes: Processes, tmp_path: Path) -> None:
        """Neither keeper nor warden answers a signal that is meant for the server."""
        process = await processes.spawn(launch(tmp_path / "log", SLEEPER))

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(processes.keeper_pid, number)
            os.kill(warden_of(process), number)

        another = await processes.spawn(launch(tmp_path / "another.log", SLEEPER))
        assert not process.exited.done()
        assert not another.exited.done()


class TestDeathOfTheKeeper:
    async def test_everything_goes_and_a_new_keeper_comes(
        self, processes: Processes, records: MemoryRecords, tmp_path: Path
    ) -> None:
        """Within a second of the keeper's death no backend is left; then comes another keeper."""
        states: list[bool] = []
        processes.add_listener(states.append)
        spawned, seen = await spawn_all(processes, tmp_path, TREES)
        spawn_ids = [process.spawn_id for process in spawned]
        old_keeper = processes.keeper_pid

        os.kill(old_keeper, signal.SIGKILL)
        started = time.monotonic()
        await asyncio.gather(*[process.exited for process in spawned])
        await until(lambda: not alive(seen, spawn_ids))
        assert time.monotonic() - started < WITHIN_A_SECOND

        await until(lambda: processes.is_ready)
        await asyncio.gather(*[process.stop() for process in spawned])
        assert [False, True] == states
        assert {} == records.rows
        assert old_keeper != processes.keeper_pid
        another = await processes.spawn(launch(tmp_path / "log", SLEEPER))
        await another.stop()

    async def test_not_ready_meanwhile(self, processes: Processes, tmp_path: Path) -> None:
        """Between two keepers a spawn is refused, not delayed."""
        await spawn(processes, tmp_path / "log", STUBBORN)
        os.kill(processes.keeper_pid, signal.SIGKILL)
        await until(lambda: not processes.is_ready)

        with pytest.raises(errors.NotReadyError):
            await processes.spawn(launch(tmp_path / "another.log", SLEEPER))

        await until(lambda: processes.is_ready)

    async def test_during_a_spawn(self, processes: Processes, tmp_path: Path) -> None:
        """A spawn that meets the keeper's death fails, or its process ends; it never hangs."""
        for number in range(10):
            await until(lambda: processes.is_ready)
            task = asyncio.ensure_future(
                processes.spawn(launch(tmp_path / f"{number}.log", DAEMON))
            )
            await asyncio.sleep(0.001 * number)
            os.kill(processes.keeper_pid, signal.SIGKILL)
            try:
                process = await task
            except errors.NotReadyError:
                continue
            await process.exited
            await process.stop()

        await until(lambda: processes.is_ready)
        await until(lambda: processes.trees() == {})

    @pytest.mark.parametrize("order", [1, -1])
    async def test_with_all_wardens(self, processes: Processes, tmp_path: Path, order: int) -> None:
        """When keeper and wardens are killed together, the server itself ends what is left."""
        process, seen = await spawn(processes, tmp_path / "log", DAEMON)

        for pid in [processes.keeper_pid, warden_of(process)][::order]:
            os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        await process.exited
        await process.stop()

        assert time.monotonic() - started < WITHIN_A_SECOND
        assert set() == alive(seen, [process.spawn_id])
        await until(lambda: processes.is_ready)

    async def test_other_children_of_the_server(self, processes: Processes, tmp_path: Path) -> None:
        """Children that other parts of the server started are neither killed nor reaped."""
        backend = await processes.spawn(launch(tmp_path / "log", SLEEPER))
        living = await aio_subprocess.create_subprocess_exec("sleep", "600", start_new_session=True)
        dead = exiting_child()
        await until(lambda: identities([dead.pid]) == set())  # a zombie, which nobody has reaped

        os.kill(processes.keeper_pid, signal.SIGKILL)
        await until(lambda: backend.is_ended and processes.is_ready)

        assert living.returncode is None
        assert {living.pid} == alive(identities([living.pid]))
        assert 5 == dead.wait()
        living.kill()
        assert -signal.SIGKILL == await living.wait()

    async def test_again_and_again(self, processes: Processes, tmp_path: Path) -> None:
        """Each keeper in a row is replaced, and no zombie of one stays."""
        for _ in range(3):
            await processes.spawn(launch(tmp_path / "log", SLEEPER))
            old = processes.keeper_pid
            os.kill(old, signal.SIGKILL)
            await replaced(processes, old)

            assert process_table.read(old) is None

    async def test_keeper_that_does_not_start(self, records: MemoryRecords) -> None:
        """A keeper that dies before it is ready is an error, not a hang."""
        handle = start_keeper()
        handle.process.kill()
        handle.process.wait()

        with pytest.raises(errors.StartupError):
            async with Processes(handle, records):
                pass


class TestClose:
    async def test_ends_everything(self, records: MemoryRecords, tmp_path: Path) -> None:
        """After a close neither backend, warden nor keeper is left."""
        async with Processes(start_keeper(), records, close_term_seconds=0.2) as processes:
            spawned, seen = await spawn_all(processes, tmp_path, [DAEMON, STUBBORN, CROWD])
            seen |= identities([processes.keeper_pid, *map(warden_of, spawned)])

        assert set() == alive(seen, [process.spawn_id for process in spawned])
        assert {} == records.rows

    async def test_without_a_keeper(self, records: MemoryRecords, tmp_path: Path) -> None:
        """A close right after the keeper's death leaves nothing, and starts no other keeper."""
        async with Processes(start_keeper(), records, close_term_seconds=0.2) as processes:
            process, seen = await spawn(processes, tmp_path / "log", DAEMON)
            keeper = processes.keeper_pid
            os.kill(keeper, signal.SIGKILL)

        assert set() == alive(seen, [process.spawn_id])
        assert {} == records.rows
        assert [] == wardens_below(os.getpid())


class TestOnUvloop:
    def test_every_death(self, tmp_path: Path) -> None:
        """Stops and deaths are noticed on the server's own event loop too."""

        async def scenario() -> None:
            async with Processes(start_keeper(), MemoryRecords()) as processes:
                spawned, seen = await spawn_all(processes, tmp_path, [DAEMON] * 4)
                stopped, killed, orphaned, last = spawned
                await stopped.stop()
                os.kill(killed.pid, signal.SIGKILL)
                os.kill(warden_of(orphaned), signal.SIGKILL)
                assert Exit(None, signal.SIGKILL) == await killed.exited
                assert Exit(None, signal.SIGKILL) == await orphaned.exited
                await asyncio.gather(killed.stop(), orphaned.stop())
                assert len(last.tree()) == len(alive(seen))
                os.kill(processes.keeper_pid, signal.SIGKILL)
                await last.exited
                await until(lambda: processes.is_ready)
                assert set() == alive(seen)
                await processes.spawn(launch(tmp_path / "log", DAEMON))

        uvloop.run(scenario())

        assert [] == wardens_below(os.getpid())


class Server:
    """A server in a process of its own."""

    def __init__(self, data_dir: Path, *programs: Program) -> None:
        self.data_dir = data_dir
        self.programs = programs
        self.process = subprocess.Popen(
            [*STAND_IN, str(data_dir), *[json.dumps(program.argv) for program in programs]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=STAND_IN_ENVIRONMENT,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, trouble = self.process.communicate()
            pytest.fail(trouble.decode())
        self.report: dict[str, Any] = json.loads(line)
        self.wardens = wardens_below(self.process.pid)

    @property
    def spawn_ids(self) -> list[str]:
        spawn_ids: list[str] = self.report["spawn_ids"]
        return spawn_ids

    async def grown(self) -> set[Identity]:
        """Wait until all its trees are complete; return all processes below it."""

        def below() -> list[int]:
            table = process_table.snapshot()
            entries = process_table.descendants(table, [self.process.pid])
            return [entry.pid for entry in entries if not entry.is_dead]

        for number, program in enumerate(self.programs):
            await written(self.data_dir / f"{number}.log", program.word)
        size = sum(program.size for program in self.programs)
        await until(lambda: len(below()) >= 1 + len(self.programs) + size)
        return identities(below())

    def end(self) -> str:
        """Have it end by itself; return what it logged."""
        _, log = self.process.communicate()
        assert 0 == self.process.returncode, log.decode()
        return log.decode()

    def wait_killed(self) -> None:
        """Reap it, with everything that holds its standard error."""
        self.process.communicate()
        assert -signal.SIGKILL == self.process.returncode


def refused(data_dir: Path) -> str:
    """Start a server that must not start; return what it says."""
    done = subprocess.run(
        [*STAND_IN, str(data_dir)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=STAND_IN_ENVIRONMENT,
    )
    assert 1 == done.returncode
    return done.stderr.decode()


class TestDeathOfTheServer:
    async def test_everything_goes(self, tmp_path: Path) -> None:
        """Within two seconds of the server's death nothing is left, keeper and wardens included."""
        server = Server(tmp_path, *TREES)
        seen = await server.grown()

        server.process.kill()
        started = time.monotonic()
        await until(lambda: not alive(seen, server.spawn_ids))

        assert time.monotonic() - started < WITHIN_TWO_SECONDS
        server.wait_killed()

    async def test_suspended_wardens(self, tmp_path: Path) -> None:
        """Wardens that do nothing are no obstacle: the keeper kills them and ends their trees."""
        server = Server(tmp_path, DAEMON, STUBBORN)
        seen = await server.grown()
        for pid in server.wardens:
            os.kill(pid, signal.SIGSTOP)

        server.process.kill()
        started = time.monotonic()
        await until(lambda: not alive(seen, server.spawn_ids))

        assert time.monotonic() - started < WITHIN_TWO_SECONDS
        server.wait_killed()

    @pytest.mark.parametrize("order", [1, -1])
    async def test_with_the_keeper(self, tmp_path: Path, order: int) -> None:
        """When server and keeper are killed together, the wardens end everything by themselves."""
        server = Server(tmp_path, *TREES)
        seen = await server.grown()

        for pid in [server.process.pid, server.report["keeper"]][::order]:
            os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        await until(lambda: not alive(seen, server.spawn_ids))

        assert time.monotonic() - started < WITHIN_TWO_SECONDS
        server.wait_killed()

    async def test_with_keeper_and_wardens(self, tmp_path: Path) -> None:
        """When all that watched are killed together, the next server ends the rest and names it."""
        server = Server(tmp_path, *TREES)
        seen = await server.grown()

        watchers = [server.report["keeper"], *server.wardens]
        for pid in watchers:
            # Together: none of them is to end its tree for want of the one that was killed before it.
            os.kill(pid, signal.SIGSTOP)
        for pid in [server.process.pid, *watchers]:
            os.kill(pid, signal.SIGKILL)
        server.wait_killed()
        # The kernel ends the backends themselves; daemons have nobody left.
        await until(lambda: not alive(seen) & set(server.report["pids"]))
        left = alive(seen, server.spawn_ids)
        next_server = Server(tmp_path)
        log = next_server.end()

        assert set() == alive(seen - identities(self._nameless(seen)), server.spawn_ids)
        named = {pid for pid, _, _ in next_server.report["leftovers"]}
        assert named <= left
        assert named
        for pid, model, _ in next_server.report["leftovers"]:
            assert f"an earlier server left behind: model {model}, pid {pid}, " in log
        for pid in self._nameless(seen):
            os.kill(pid, signal.SIGKILL)

    def _nameless(self, seen: Iterable[Identity]) -> list[int]:
        # What wiped its environment and left its parent while everybody who knew it was being
        # killed cannot be recognised by anybody: a limit that the decision record states.
        return [
            pid
            for pid in alive(seen)
            if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00600\x00"
        ]

    async def test_restart_while_the_old_one_dies(self, tmp_path: Path) -> None:
        """A server that starts while the backends of the last one still end ends them first."""
        server = Server(tmp_path, STUBBORN, DAEMON)
        await server.grown()
        server.process.kill()
        server.process.wait()

        next_server = Server(tmp_path)

        assert set() == alive([], server.spawn_ids)
        next_server.end()
        server.wait_killed()

    async def test_second_server(self, tmp_path: Path) -> None:
        """A second server on the same data is refused, and the first one's backends live on."""
        server = Server(tmp_path, SLEEPER)

        log = refused(tmp_path)

        assert f"process {server.process.pid} is using it" in log
        assert set(server.report["pids"]) == alive([], server.spawn_ids)
        assert "left behind" not in server.end()
        assert set() == alive([], server.spawn_ids)
