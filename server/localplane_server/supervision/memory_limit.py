"""How much memory backends may use: the machine's, or less in a control group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from localplane_server.supervision.control_groups import PROC_SELF, ControlGroup, control_groups

LIMIT_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}
"""Where a group of each version has its limit of memory."""


def memory_limit_bytes(proc_self: Path = PROC_SELF, *, root: Path = Path("/")) -> int:
    """Return the machine's memory, or the limit of its control group where that is lower.

    Both versions of control groups count, and every group on the way up.

    Args:
        proc_self: Folder with the `cgroup` and `mountinfo` of the process.
        root: What the paths in `mountinfo` start from.
    """
    limits = (limit for _, limit in memory_limits(proc_self, root=root))
    return min([psutil.virtual_memory().total, *limits])


def memory_limits(
    proc_self: Path = PROC_SELF, *, root: Path = Path("/")
) -> Iterator[tuple[ControlGroup, int]]:
    """Yield the groups around the process that limit memory, each with its limit in bytes."""
    for group in control_groups("memory", proc_self, root=root):
        limit = group.read_int(LIMIT_FILES[group.version])
        if limit is not None:
            yield group, limit
