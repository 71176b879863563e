"""What is written down of each spawn, for the server that starts after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

SPAWN_ID_VARIABLE = "LOCALPLANE_SPAWN_ID"
"""Variable in the environment of every process of a backend, with the spawn's id."""

SpawnRow = tuple[str, str, str, str, int | None, int | None]
"""The fields of a `SpawnRecord`, for a store that need not know the class."""


class SpawnRecord(NamedTuple):
    """One spawn of a backend."""

    spawn_id: str
    """Random; in the environment of the backend as `LOCALPLANE_SPAWN_ID`."""
    model: str
    """Name of the model that the backend serves."""
    program: str
    """Program that was started."""
    boot_id: str
    """The boot of the machine that it was started in."""
    pid: int | None = None
    """Process of the backend. None until it is known."""
    start_ticks: int | None = None
    """When the process started, in clock ticks since boot. None until it is known."""


class SpawnRecords(Protocol):
    """Where spawns are written down. Must survive a kill of the server, not a loss of power."""

    async def add(self, record: SpawnRecord) -> None:
        """Write a spawn down, in place of an earlier record of the same spawn."""

    async def remove(self, spawn_id: str) -> None:
        """Forget a spawn. One that is not known is no error."""

    async def all(self) -> list[SpawnRow]:
        """Return all records."""


def boot_id() -> str:
    """Return a name of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
