"""Processors, memory and disks of a machine that a test makes up, and of the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from localplane_server.resources.figures import MemoryFigures, Source
from localplane_server.resources.machine import NO_LIMIT, Processors, read_disks, read_memory

TOTAL = psutil.virtual_memory().total
MEBIBYTE = 1024 * 1024
V2_MOUNT = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
V1_MOUNTS = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct"
)


class Groups:
    """Control groups as a process sees them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.proc_self = folder / "self"
        self.proc_self.mkdir()

    def see(self, cgroup: str, mounts: str) -> None:
        (self.proc_self / "cgroup").write_text(cgroup + "\n")
        (self.proc_self / "mountinfo").write_text(mounts + "\n")

    def say(self, group: str, **files: object) -> None:
        folder = self.root / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (folder / name.replace("__", ".")).write_text(f"{value}\n")

    def memory(self) -> MemoryFigures:
        return read_memory(self.proc_self, root=self.root)

    def processors(self, now: Callable[[], float] = lambda: 0.0) -> Processors:
        return Processors(now=now, proc_self=self.proc_self, root=self.root)


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    made = Groups(tmp_path)
    made.see("0::/", "22 1 8:1 / / rw - ext4 /dev/root rw")
    return made


class TestMemory:
    def test_without_limit(self, groups: Groups) -> None:
        """The machine's memory counts, and what is null says why."""
        memory = groups.memory()

        assert (Source.SYSTEM, TOTAL) == (memory.source, memory.total)
        assert 0 < memory.available == memory.machine_available < TOTAL
        assert (None, None) == (memory.cgroup_limit, memory.cgroup_used)
        assert {"cgroup_limit": NO_LIMIT, "cgroup_used": NO_LIMIT} == memory.unknown

    def test_version_2(self, groups: Groups) -> None:
        """The lowest limit counts; cached files that the kernel would give back are available."""
        groups.see("0::/pod/box", V2_MOUNT)
        groups.say("pod", memory__max=64 * MEBIBYTE, memory__current=50 * MEBIBYTE)
        groups.say("pod/box", memory__max=32 * MEBIBYTE, memory__current=30 * MEBIBYTE)
        groups.say("pod/box", memory__stat=f"anon 1\ninactive_file {10 * MEBIBYTE}\nodd")
        memory = groups.memory()

        assert Source.CGROUP_V2 is memory.source
        assert 32 * MEBIBYTE == memory.total == memory.cgroup_limit
        assert 30 * MEBIBYTE == memory.cgroup_used
        assert 12 * MEBIBYTE == memory.available
        assert TOTAL == memory.machine_total
        assert {} == memory.unknown

    def test_version_1(self, groups: Groups) -> None:
        """The files of version 1 mean the same."""
        groups.see("4:memory:/box\n0::/", V1_MOUNTS)
        groups.say(
            "memory/box",
            memory__limit_in_bytes=32 * MEBIBYTE,
            memory__usage_in_bytes=30 * MEBIBYTE,
            memory__stat=f"inactive_file 5\ntotal_inactive_file {MEBIBYTE}",
        )
        memory = groups.memory()

        assert (Source.CGROUP_V1, 32 * MEBIBYTE) == (memory.source, memory.total)
        assert 3 * MEBIBYTE == memory.available

    def test_the_group_above_has_less_left(self, groups: Groups) -> None:
        """What a group leaves counts, even where another has the lower limit."""
        groups.see("0::/pod/box", V2_MOUNT)
        groups.say("pod", memory__max=64 * MEBIBYTE, memory__current=63 * MEBIBYTE)
        groups.say("pod/box", memory__max=32 * MEBIBYTE, memory__current=2 * MEBIBYTE)
        memory = groups.memory()

        assert (32 * MEBIBYTE, MEBIBYTE) == (memory.total, memory.available)

    def test_overdrawn(self, groups: Groups) -> None:
        """A limit that was lowered below the use leaves nothing, not less than nothing."""
        groups.see("0::/box", V2_MOUNT)
        groups.say("box", memory__max=MEBIBYTE, memory__current=2 * MEBIBYTE)

        assert 0 == groups.memory().available

    def test_limit_above_the_machine(self, groups: Groups) -> None:
        """A limit that cannot be reached is none."""
        groups.see("4:memory:/", V1_MOUNTS)
        groups.say("memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=MEBIBYTE)
        memory = groups.memory()

        assert (Source.SYSTEM, None) == (memory.source, memory.cgroup_limit)

    def test_use_not_told(self, groups: Groups) -> None:
        """A use that cannot be read is null with its reason, not zero."""
        groups.see("0::/box", V2_MOUNT)
        groups.say("box", memory__max=MEBIBYTE)
        memory = groups.memory()

        assert memory.cgroup_used is None
        assert "cgroup_used" in memory.unknown

    def test_kernel_without_groups(self, groups: Groups) -> None:
        """Where there are no control groups, the machine counts."""
        (groups.proc_self / "cgroup").unlink()

        assert Source.SYSTEM is groups.memory().source


class TestProcessors:
    def test_without_quota(self, groups: Groups) -> None:
        """All processors that the process may run on can be used."""
        cpu = groups.processors().read()

        assert psutil.cpu_count() == cpu.count
        assert float(cpu.allowed) == cpu.usable
        assert Source.SYSTEM is cpu.source
        assert cpu.cgroup_quota is None
        assert "cgroup_quota" in cpu.unknown
        assert cpu.load is not None

    def test_quota_of_version_2(self, groups: Groups) -> None:
        """A quota below the number of processors counts."""
        groups.see("0::/box", V2_MOUNT)
        groups.say("box", cpu__max="50000 100000")
        cpu = groups.processors().read()

        assert (Source.CGROUP_V2, 0.5, 0.5) == (cpu.source, cpu.cgroup_quota, cpu.usable)

    def test_quota_of_version_1(self, groups: Groups) -> None:
        """The files of version 1 mean the same; the group above has none."""
        groups.see("1:cpu,cpuacct:/box", V1_MOUNTS)
        groups.say("cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
        groups.say("cpu/box", cpu__cfs_quota_us=50000, cpu__cfs_period_us=100000)
        cpu = groups.processors().read()

        assert (Source.CGROUP_V1, 0.5, 0.5) == (cpu.source, cpu.cgroup_quota, cpu.usable)

    @pytest.mark.parametrize("text", ["max 100000", "", "0 0", "odd"])
    def test_no_quota(self, groups: Groups, text: str) -> None:
        """What is no quota limits nothing."""
        groups.see("0::/box", V2_MOUNT)
        groups.say("box", cpu__max=text)

        assert groups.processors().read().cgroup_quota is None

    def test_large_quota(self, groups: Groups) -> None:
        """A quota above the number of processors is told and changes nothing."""
        groups.see("0::/box", V2_MOUNT)
        groups.say("box", cpu__max="100000000 100000")
        cpu = groups.processors().read()

        assert (1000.0, Source.SYSTEM) == (cpu.cgroup_quota, cpu.source)
        assert float(cpu.allowed) == cpu.usable

    def test_percent(self, groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
        """The share is of the time between the last two samples; a sample too soon changes nothing."""
        now = 0.0
        seconds = {"user": 100.0, "idle": 900.0}

        class Times(tuple[float, float]):
            __slots__ = ()
            idle = property(lambda times: times[1])

        monkeypatch.setattr(psutil, "cpu_times", lambda: Times((seconds["user"], seconds["idle"])))
        processors = groups.processors(lambda: now)
        processors.sample()
        first = processors.read()
        now, seconds = 4.0, {"user": 101.0, "idle": 903.0}
        processors.sample()
        second = processors.read()
        now, seconds = 4.5, {"user": 200.0, "idle": 903.0}
        processors.sample()
        third = processors.read()

        assert first.percent is None
        assert {"percent", "percent_seconds"} <= first.unknown.keys()
        assert (25.0, 4.0) == (second.percent, second.percent_seconds)
        assert (25.0, 4.0) == (third.percent, third.percent_seconds)
        assert "percent" not in second.unknown


class TestDisks:
    def test_real_folder(self, tmp_path: Path) -> None:
        """A folder's disk has a size, something free and a type."""
        (disk,) = read_disks({"data": tmp_path})

        assert ("data", tmp_path, Source.SYSTEM) == (disk.purpose, disk.path, disk.source)
        assert disk.total is not None
        assert disk.free is not None
        assert 0 < disk.free <= disk.total
        assert disk.filesystem
        assert {} == disk.unknown

    def test_type_of_the_nearest_mount(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The type is that of the mount that the folder is on, also through a link."""
        (tmp_path / "inner").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "inner")
        mounts = [("/", "ext4"), (str(tmp_path / "inner"), "xfs"), (str(tmp_path / "inne"), "zfs")]
        made = [
            type("Partition", (), {"mountpoint": point, "fstype": kind}) for point, kind in mounts
        ]
        monkeypatch.setattr(psutil, "disk_partitions", lambda **_: made)
        disks = read_disks({"data": tmp_path / "link", "models": tmp_path})

        assert ["xfs", "ext4"] == [disk.filesystem for disk in disks]

    def test_missing_folder(self, tmp_path: Path) -> None:
        """What cannot be read is null, says why, and does not spoil the rest."""
        missing, there = read_disks({"data": tmp_path / "nowhere", "models": tmp_path})

        assert (None, None, None) == (missing.total, missing.free, missing.filesystem)
        assert Source.NOBODY is missing.source
        assert {"total", "free", "filesystem"} == missing.unknown.keys()
        assert "no such file or directory" == missing.unknown["free"]
        assert there.total is not None
