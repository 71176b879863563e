"""How much memory may be used."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from localplane_server.supervision.memory_limit import memory_limit_bytes

TOTAL = psutil.virtual_memory().total
V2 = "29 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


class Machine:
    """Control groups as a process sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "self").mkdir()

    def see(self, cgroup: str, mount: str, *, root: str = "/") -> None:
        (self.folder / "self/cgroup").write_text(cgroup + "\n")
        other = "22 1 8:1 / / rw - ext4 /dev/root rw\n"
        (self.folder / "self/mountinfo").write_text(other + mount.format(root=root) + "\n")

    def limit(self, group: str, name: str, value: str) -> None:
        folder = self.folder / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value + "\n")

    def memory(self) -> int:
        return memory_limit_bytes(self.folder / "self", root=self.folder)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_real_machine() -> None:
    """On this machine there is a limit, and it is no more than the memory."""
    assert 0 < memory_limit_bytes() <= TOTAL


def test_no_limit(machine: Machine) -> None:
    """Without a limit it is the machine's memory."""
    machine.see("0::/user/session", V2)
    machine.limit("user/session", "memory.max", "max")

    assert TOTAL == machine.memory()


def test_version_2(machine: Machine) -> None:
    """The lowest limit on the way up counts."""
    machine.see("0::/pod/container", V2)
    machine.limit("pod/container", "memory.max", "2000000")
    machine.limit("pod", "memory.max", "1000000")
    machine.limit("other", "memory.max", "1000")

    assert 1_000_000 == machine.memory()


def test_version_1(machine: Machine) -> None:
    """The limit of the memory controller counts, of several controllers."""
    machine.see("5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/", V1)
    machine.limit("memory/a/b", "memory.limit_in_bytes", "3000000")
    machine.limit("memory/a", "memory.limit_in_bytes", "9223372036854771712")

    assert 3_000_000 == machine.memory()


def test_limit_above_the_memory(machine: Machine) -> None:
    """A limit that cannot be reached changes nothing."""
    machine.see("4:memory:/", V1)
    machine.limit("memory", "memory.limit_in_bytes", str(TOTAL * 2))

    assert TOTAL == machine.memory()


@pytest.mark.parametrize("group", ["/docker/abc", "/../sibling", "/"])
def test_container_that_sees_its_own_group_only(machine: Machine, group: str) -> None:
    """In a container the group's folder is the mount itself, whatever the group is called."""
    machine.see(f"0::{group}", V2, root="/docker/abc")
    machine.limit("", "memory.max", "4000000")

    assert 4_000_000 == machine.memory()
