"""Reading the process table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localplane_server.supervision import process_table
from localplane_server.supervision.process_table import Entry, descendants


def entry(pid: int, parent: int) -> Entry:
    return Entry(pid, parent, pid, pid, "S", 0)


class TestRead:
    def test_own_process(self) -> None:
        """The fields are those that the system tells the process itself."""
        found = process_table.read(os.getpid())

        assert found is not None
        expected = (os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0))
        assert expected == (found.pid, found.parent, found.group, found.session)
        assert not found.is_dead
        assert found == process_table.snapshot()[os.getpid()]._replace(state=found.state)

    def test_start_time(self) -> None:
        """A process that starts later has a later start time, or the same within one tick."""
        with subprocess.Popen(["sleep", "600"]) as child:
            assert process_table.start_ticks(child.pid) >= process_table.start_ticks(os.getpid())
            child.kill()

    def test_odd_name(self, tmp_path: Path) -> None:
        """A program whose name looks like more fields confuses nobody."""
        program = tmp_path / "x) R 1 ("
        program.symlink_to("/bin/sleep")
        with subprocess.Popen([program, "600"]) as child:
            found = process_table.read(child.pid)
            child.kill()

        assert found is not None
        assert os.getpid() == found.parent

    def test_zombie(self) -> None:
        """A process that nobody has reaped is dead, has no environment, but is still there."""
        child = subprocess.Popen([sys.executable, "-c", ""], env={"NAME": "value"})
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        found = process_table.read(child.pid)
        assert found is not None
        assert found.is_dead
        assert process_table.environment_value(child.pid, "NAME") is None
        child.wait()
        assert process_table.read(child.pid) is None
        with pytest.raises(ProcessLookupError):
            process_table.start_ticks(child.pid)


class TestEnvironmentValue:
    def test_value(self) -> None:
        """A variable is found by its whole name."""
        environment = {"NAME": "a=b", "LONG_NAME": "no"}
        with subprocess.Popen(["/bin/sh", "-c", "kill -STOP $$"], env=environment) as child:
            os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
            values = [
                process_table.environment_value(child.pid, name) for name in ("NAME", "ONG_NAME")
            ]
            child.send_signal(signal.SIGKILL)

        assert ["a=b", None] == values


class TestDescendants:
    def test_all_below(self) -> None:
        """All levels below the roots are found, parents first, and nobody else."""
        table = {
            e.pid: e for e in [entry(2, 1), entry(5, 4), entry(4, 2), entry(3, 9), entry(6, 2)]
        }

        found = [e.pid for e in descendants(table, [2])]

        assert [4, 6, 5] == found

    def test_circle(self) -> None:
        """Processes that seem to be in a circle, as one was adopted meanwhile, end the search."""
        table = {e.pid: e for e in [entry(2, 3), entry(3, 2)]}

        assert [3] == [e.pid for e in descendants(table, [2])]
