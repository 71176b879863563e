"""How many processes the kernel has killed for want of memory. Standard library only."""

from __future__ import annotations

ROOT = ""
"""What stands before the paths below. Empty, but for tests."""

_COUNT = b"oom_kill"


class MemoryKills:
    """Counts from its construction on: in the control group of this process, else on the machine."""

    def __init__(self, root: str = ROOT) -> None:
        self._file = ""
        self._before = 0
        for file in (*_group_files(root), f"{root}/proc/vmstat"):
            count = _read(file)
            if count is not None:
                self._file, self._before = file, count
                break

    def since(self) -> int:
        """Return how many have been killed meanwhile; 0 when nobody says."""
        count = _read(self._file) if self._file else None
        return 0 if count is None else max(0, count - self._before)


def _group_files(root: str) -> list[str]:
    """Return where the control group may say it: version 2 before version 1, as seen from outside or inside."""
    two: list[str] = []
    one: list[str] = []
    try:
        with open(f"{root}/proc/self/cgroup", encoding="utf-8") as file:  # noqa: PTH123 - see log_files
            lines = file.read().splitlines()
    except OSError:
        return []  # a kernel without control groups
    for line in lines:
        _, controllers, group = line.split(":", 2)
        groups = dict.fromkeys((group.rstrip("/"), ""))
        if not controllers:
            two += [f"{root}/sys/fs/cgroup{each}/memory.events" for each in groups]
        elif "memory" in controllers.split(","):
            one += [f"{root}/sys/fs/cgroup/memory{each}/memory.oom_control" for each in groups]
    return two + one


def _read(file: str) -> int | None:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - see log_files
            for line in opened:
                name, _, count = line.partition(b" ")
                if name == _COUNT and count.strip().isdigit():
                    return int(count)
    except OSError:
        return None
    return None
