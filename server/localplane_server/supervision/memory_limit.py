"""How much memory backends may use: the machine's, or less in a control group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_PROC_SELF = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class _Mount:
    kind: str
    root: str
    path: Path
    options: frozenset[str]


def memory_limit_bytes(proc_self: Path = _PROC_SELF, *, root: Path = Path("/")) -> int:
    """Return the machine's memory, or the limit of its control group where that is lower.

    Both versions of control groups count, and every group on the way up.

    Args:
        proc_self: Folder with the `cgroup` and `mountinfo` of the process.
        root: What the paths in `mountinfo` start from.
    """
    return min([psutil.virtual_memory().total, *_group_limits(proc_self, root)])


def _group_limits(proc_self: Path, root: Path) -> Iterator[int]:
    groups = (proc_self / "cgroup").read_text().splitlines()
    mounts = list(_mounts(proc_self, root))
    for line in groups:
        _, controllers, group = line.split(":", 2)
        for mount in mounts:
            if not controllers and mount.kind == "cgroup2":
                yield from _limits_upwards(mount, group, "memory.max")
            elif (
                "memory" in controllers.split(",")
                and mount.kind == "cgroup"
                and "memory" in mount.options
            ):
                yield from _limits_upwards(mount, group, "memory.limit_in_bytes")


def _mounts(proc_self: Path, root: Path) -> Iterator[_Mount]:
    for line in (proc_self / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[0] in ("cgroup", "cgroup2"):
            path = root / fields[4].lstrip("/")
            yield _Mount(kind[0], fields[3], path, frozenset(kind[2].split(",")))


def _limits_upwards(mount: _Mount, group: str, name: str) -> Iterator[int]:
    # In a container the mount may show a part of the hierarchy, and the group may lie outside.
    below = group.removeprefix(mount.root) if mount.root != "/" else group
    folder = mount.path / below.lstrip("/")
    if ".." in folder.parts or not folder.is_dir():
        folder = mount.path
    for ancestor in [folder, *folder.parents]:
        try:
            text = (ancestor / name).read_text().strip()
        except OSError:
            text = ""  # the top has no limit, and others may not be readable
        if text.isdigit():  # and not `max`
            yield int(text)
        if ancestor == mount.path:
            break
