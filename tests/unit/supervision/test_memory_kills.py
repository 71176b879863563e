"""Counting what the kernel killed for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.supervision.exits import in_words
from localplane_server.supervision.memory_kills import MemoryKills

TWO = "0::/system.slice/x.service\n"
ONE = "5:memory:/docker/abc\n4:cpu:/\n0::/\n"


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        (TWO, "sys/fs/cgroup/system.slice/x.service/memory.events"),
        (TWO, "sys/fs/cgroup/memory.events"),
        (ONE, "sys/fs/cgroup/memory/docker/abc/memory.oom_control"),
        (ONE, "sys/fs/cgroup/memory/memory.oom_control"),
        ("", "proc/vmstat"),
    ],
    ids=["2", "2 from inside", "1", "1 from inside", "none"],
)
def test_where_it_is_said(tmp_path: Path, groups: str, file: str) -> None:
    """The group says it, wherever it is mounted, else the machine does; what was before does not count."""
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("oom 9\noom_kill 3\noom_group_kill 9\n")
    write(tmp_path, proc__self__cgroup=groups)
    kills = MemoryKills(str(tmp_path))
    assert 0 == kills.since()

    (tmp_path / file).write_text("oom 9\noom_kill 5\n")
    assert 2 == kills.since()


def test_nobody_says_it(tmp_path: Path) -> None:
    """Where nothing can be read, nothing is claimed."""
    assert 0 == MemoryKills(str(tmp_path)).since()


def test_file_goes_away(tmp_path: Path) -> None:
    """A group that is gone says nothing."""
    write(tmp_path, proc__vmstat="oom_kill 3\n")
    kills = MemoryKills(str(tmp_path))
    (tmp_path / "proc/vmstat").unlink()

    assert 0 == kills.since()


@pytest.mark.parametrize(
    ("returncode", "kills", "words"),
    [
        (0, 0, "exit code 0"),
        (3, 1, "exit code 3"),
        (-15, 1, "signal SIGTERM"),
        (-9, 0, "signal SIGKILL"),
        (
            -9,
            1,
            "signal SIGKILL, most likely for want of memory: the kernel has killed for it meanwhile",
        ),
        (-40, 0, "signal 40"),
    ],
)
def test_in_words(returncode: int, kills: int, words: str) -> None:
    """Only who was killed may have been killed for want of memory."""
    assert words == in_words(returncode, memory_kills=kills)
