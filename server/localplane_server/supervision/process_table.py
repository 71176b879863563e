"""The processes of this machine and who their parents are, from /proc. Standard library only.

One pass over /proc/PID/stat serves any number of trees. The shorter way,
/proc/PID/task/TID/children, does not exist in every kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_STAT_BYTES = 4096


class Entry(NamedTuple):
    """One process, as /proc shows it."""

    pid: int
    """Its number, which another process may get once this one has been reaped."""
    parent: int
    """Process that reaps it: the one that forked it, or the subreaper that adopted it."""
    group: int
    """Process group."""
    session: int
    """Session."""
    state: str
    """`R`, `S`, `D`, `T`, `Z` and so on."""
    start_ticks: int
    """When it started, in clock ticks since boot. With `pid`, it names one process of a boot."""

    @property
    def is_dead(self) -> bool:
        """Whether nothing of it is left but the entry."""
        return self.state in "ZX"


def snapshot() -> dict[int, Entry]:
    """Return every process that can be seen, by number."""
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is not worth its import in a keeper
        if name[0] in "123456789":
            entry = read(int(name))
            if entry is not None:
                table[entry.pid] = entry
    return table


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot.

    Raises:
        ProcessLookupError: If there is no such process.
    """
    entry = read(pid)
    if entry is None:
        raise ProcessLookupError(pid)
    return entry.start_ticks


def read(pid: int) -> Entry | None:
    """Return one process, or None when there is no such process."""
    stat = _read(f"/proc/{pid}/stat", _STAT_BYTES)
    if not stat:
        return None
    # The name of the program stands in parentheses and may hold spaces and parentheses of its own.
    fields = stat[stat.rindex(b")") + 2 :].split(None, 20)
    return Entry(
        pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[0].decode(), int(fields[19])
    )


def descendants(table: Mapping[int, Entry], roots: Iterable[int]) -> list[Entry]:
    """Return all below the roots, parents before children, without the roots themselves."""
    children: dict[int, list[Entry]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry)
    found: list[Entry] = []
    seen = set(roots)
    level = list(seen)
    while level:
        below = [
            entry
            for parent in level
            for entry in children.get(parent, ())
            # A table is read over milliseconds: what is adopted meanwhile may appear to be in a
            # circle.
            if entry.pid not in seen
        ]
        found.extend(below)
        level = [entry.pid for entry in below]
        seen.update(level)
    return found


def environment_value(pid: int, name: str) -> str | None:
    """Return a variable of the environment that a process was started with.

    None when it is not set, when the process is gone or only a zombie, and when it belongs to
    somebody else.
    """
    environment = _read(f"/proc/{pid}/environ")
    prefix = f"{name}=".encode()
    for item in environment.split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode(errors="replace")
    return None


def _read(path: str, size: int = -1) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib is not worth its import in a keeper
            return file.read(size) or b""
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""  # it ended meanwhile, or is not ours to see
