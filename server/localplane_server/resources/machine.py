"""Processors, memory and disks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from localplane_server.resources.figures import (
    CGROUP_SOURCES,
    CpuFigures,
    DiskFigures,
    MemoryFigures,
    Source,
)
from localplane_server.supervision.control_groups import PROC_SELF, ControlGroup, control_groups
from localplane_server.supervision.memory_limit import memory_limits

MIN_WINDOW_SECONDS = 1.0
"""The shortest time between two samples of the processors. The clock of the system ticks 100 times a second."""

_USED_FILES = {1: "memory.usage_in_bytes", 2: "memory.current"}
# Cached files that nobody reads any more: the kernel gives them back before it refuses memory.
_RECLAIMABLE = {1: "total_inactive_file", 2: "inactive_file"}

NO_QUOTA = "no control group sets a quota"
NO_LIMIT = "no control group sets a limit below the machine's memory"
NOT_TOLD = "the system does not tell it"


class Processors:
    """Reads the processors, and remembers what a share of their time needs. May be used from several threads."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        proc_self: Path = PROC_SELF,
        root: Path = Path("/"),
    ) -> None:
        self._now = now
        self._proc_self = proc_self
        self._root = root
        self._lock = threading.Lock()
        self._past: tuple[float, float, float] | None = None
        self._percent: float | None = None
        self._seconds: float | None = None

    def sample(self) -> None:
        """Take a sample, unless the last one is too young to tell anything."""
        with self._lock:
            self._sample()

    def read(self) -> CpuFigures:
        """Return the figures, with the share between the last two samples."""
        unknown = {}
        count = psutil.cpu_count() or 1
        physical = psutil.cpu_count(logical=False)
        if physical is None:
            unknown["physical_count"] = NOT_TOLD
        allowed = len(psutil.Process().cpu_affinity())
        source, usable, quota = Source.SYSTEM, float(allowed), None
        for group in control_groups("cpu", self._proc_self, root=self._root):
            its_quota = _quota(group)
            if its_quota is not None and (quota is None or its_quota < quota):
                quota = its_quota
                if quota < usable:
                    source, usable = CGROUP_SOURCES[group.version], quota
        if quota is None:
            unknown["cgroup_quota"] = NO_QUOTA
        try:
            load = psutil.getloadavg()
        except OSError as error:
            load = None
            unknown |= dict.fromkeys(("load_1m", "load_5m", "load_15m"), _words(error))
        if self._percent is None:
            unknown |= dict.fromkeys(
                ("percent", "percent_seconds"), "there are not two samples yet"
            )
        return CpuFigures(
            source=source,
            count=count,
            physical_count=physical,
            allowed=allowed,
            cgroup_quota=quota,
            usable=usable,
            load=load,
            percent=self._percent,
            percent_seconds=self._seconds,
            unknown=unknown,
        )

    def _sample(self) -> None:
        now = self._now()
        if self._past is not None and now - self._past[0] < MIN_WINDOW_SECONDS:
            return
        busy, total = _processor_seconds()
        if self._past is not None:
            at, past_busy, past_total = self._past
            passed = total - past_total
            # Within bounds: the kernel's figures of idle time may step back.
            share = (busy - past_busy) / passed if passed > 0 else 0.0
            self._percent = 100 * min(max(share, 0.0), 1.0)
            self._seconds = now - at
        self._past = (now, busy, total)


def read_memory(proc_self: Path = PROC_SELF, *, root: Path = Path("/")) -> MemoryFigures:
    """Read the memory of the machine and of the control groups around this process.

    Args:
        proc_self: Folder with the `cgroup` and `mountinfo` of the process.
        root: What the paths in `mountinfo` start from.
    """
    machine = psutil.virtual_memory()
    source, total, available = Source.SYSTEM, machine.total, machine.available
    limit: int | None = None
    used: int | None = None
    unknown: dict[str, str] = {}
    for group, its_limit in memory_limits(proc_self, root=root):
        its_use = group.read_int(_USED_FILES[group.version])
        if its_use is not None:
            reclaimable = group.read_table("memory.stat").get(_RECLAIMABLE[group.version], 0)
            left = its_limit - max(its_use - reclaimable, 0)
            available = min(available, max(left, 0))
        if its_limit < total:
            source, total, limit, used = (
                CGROUP_SOURCES[group.version],
                its_limit,
                its_limit,
                its_use,
            )
    if limit is None:
        unknown |= dict.fromkeys(("cgroup_limit", "cgroup_used"), NO_LIMIT)
    elif used is None:
        unknown["cgroup_used"] = "the control group does not tell it"
    return MemoryFigures(
        source=source,
        total=total,
        available=available,
        machine_total=machine.total,
        machine_available=machine.available,
        cgroup_limit=limit,
        cgroup_used=used,
        unknown=unknown,
    )


def read_disks(folders: Mapping[str, Path]) -> tuple[DiskFigures, ...]:
    """Read the disks that hold folders, by what the folders are for."""
    # All of them: a container's folders are often on file systems that no device belongs to.
    types = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    return tuple(_disk(purpose, path, types) for purpose, path in folders.items())


def _disk(purpose: str, path: Path, types: Mapping[Path, str]) -> DiskFigures:
    unknown = {}
    total = free = filesystem = None
    source = Source.SYSTEM
    try:
        usage = psutil.disk_usage(str(path))
        resolved = path.resolve()
    except OSError as error:
        source = Source.NOBODY
        unknown = dict.fromkeys(("total", "free", "filesystem"), _words(error))
    else:
        total, free = usage.total, usage.free
        mount = next((one for one in (resolved, *resolved.parents) if one in types), None)
        filesystem = types[mount] if mount is not None else None
        if not filesystem:
            filesystem, unknown["filesystem"] = None, NOT_TOLD
    return DiskFigures(
        source=source,
        purpose=purpose,
        path=path,
        total=total,
        free=free,
        filesystem=filesystem,
        unknown=unknown,
    )


def _processor_seconds() -> tuple[float, float]:
    """Return the seconds that processors were busy, and all seconds, since the machine started."""
    times = psutil.cpu_times()
    # Time of guests is part of `user` and `nice` already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _quota(group: ControlGroup) -> float | None:
    if group.version == 1:
        quota = group.read_int("cpu.cfs_quota_us")  # -1, which is no number here, means none
        period = group.read_int("cpu.cfs_period_us")
    else:
        parts = group.read("cpu.max").split()
        if len(parts) != 2 or not all(part.isdigit() for part in parts):  # noqa: PLR2004 - quota and period
            return None
        quota, period = int(parts[0]), int(parts[1])
    return quota / period if quota and period else None


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
