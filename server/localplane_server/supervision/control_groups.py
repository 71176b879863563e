"""The control groups around a process, of either version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC_SELF = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """One control group."""

    version: int
    """1 or 2."""
    folder: Path
    """Where its files are."""

    def read(self, file: str) -> str:
        """Return what a file of the group says; empty when it is not there or may not be read.

        The top of a hierarchy has no limits, and files of the groups above may not be readable.
        """
        try:
            return (self.folder / file).read_text().strip()
        except OSError:
            return ""

    def read_int(self, file: str) -> int | None:
        """Return the number in a file; None when there is none, as in `max`."""
        text = self.read(file)
        return int(text) if text.isdigit() else None

    def read_table(self, file: str) -> dict[str, int]:
        """Return a file of names and numbers, such as `memory.stat`."""
        pairs = (line.split() for line in self.read(file).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class _Mount:
    kind: str
    root: str
    path: Path
    options: frozenset[str]


def control_groups(
    controller: str, proc_self: Path = PROC_SELF, *, root: Path = Path("/")
) -> Iterator[ControlGroup]:
    """Yield the group that the process is in and every group above it.

    Args:
        controller: Controller of version 1, such as `memory`. Groups of version 2 have all of them.
        proc_self: Folder with the `cgroup` and `mountinfo` of the process.
        root: What the paths in `mountinfo` start from.
    """
    try:
        groups = (proc_self / "cgroup").read_text().splitlines()
    except FileNotFoundError:
        return  # a kernel without control groups
    mounts = list(_mounts(proc_self, root))
    for line in groups:
        _, controllers, group = line.split(":", 2)
        for mount in mounts:
            if not controllers and mount.kind == "cgroup2":
                yield from _upwards(2, mount, group)
            elif (
                controller in controllers.split(",")
                and mount.kind == "cgroup"
                and controller in mount.options
            ):
                yield from _upwards(1, mount, group)


def _mounts(proc_self: Path, root: Path) -> Iterator[_Mount]:
    for line in (proc_self / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[0] in ("cgroup", "cgroup2"):
            path = root / fields[4].lstrip("/")
            yield _Mount(kind[0], fields[3], path, frozenset(kind[2].split(",")))


def _upwards(version: int, mount: _Mount, group: str) -> Iterator[ControlGroup]:
    # In a container the mount may show a part of the hierarchy, and the group may lie outside.
    below = group.removeprefix(mount.root) if mount.root != "/" else group
    folder = mount.path / below.lstrip("/")
    if ".." in folder.parts or not folder.is_dir():
        folder = mount.path
    for ancestor in [folder, *folder.parents]:
        yield ControlGroup(version, ancestor)
        if ancestor == mount.path:
            break
