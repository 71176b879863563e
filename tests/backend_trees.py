"""Programs that behave as badly as backends can, and a look at what is left of them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from localplane_server.supervision import process_table
from localplane_server.supervision.backend_process import BackendProcess, Launch
from localplane_server.supervision.processes import Processes
from localplane_server.supervision.records import SPAWN_ID_VARIABLE, SpawnRecord, SpawnRow

PYTHON = (sys.executable, "-I", "-S", "-c")
"""What comes before the text of a program."""


class Program(NamedTuple):
    """A backend that behaves in a way of its own."""

    argv: tuple[str, ...]
    """How to start it."""
    size: int = 1
    """Processes of its tree, once it is complete."""
    word: str = ""
    """What it prints when it is complete."""


def _python(text: str, size: int = 1, word: str = "") -> Program:
    return Program((*PYTHON, text), size, word)


SLEEPER = Program(("sleep", "600"))
"""Does nothing."""

STUBBORN = _python(
    """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
""",
    word="deaf",
)
"""Ignores SIGTERM."""

SHELL = Program(
    (
        "/bin/sh",
        "-c",
        """ "$0" -I -S -c "import subprocess; subprocess.run(['sleep', '600'])"; true""",
        sys.executable,
    ),
    size=3,
)
"""A shell that waits for a Python that waits for a worker."""

_DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {daemon}
    os._exit(0)
os.wait()
print("up", flush=True)
{parent}
"""
DAEMON = _python(_DAEMON.format(daemon="time.sleep(600)", parent="time.sleep(600)"), 2, "up")
"""Has a grandchild that left its parent, session and group."""

NAMELESS_DAEMON = _python(
    _DAEMON.format(
        daemon="os.execve('/bin/sleep', ['sleep', '600'], {})", parent="time.sleep(600)"
    ),
    2,
    "up",
)
"""The same, and the grandchild has an empty environment."""

DYING_DAEMON = _python(_DAEMON.format(daemon="time.sleep(600)", parent="sys.exit(3)"))
"""Dies by itself and leaves such a grandchild."""

CROWD = _python(
    """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(50):
    if os.fork() == 0:
        os.setsid()
        break
time.sleep(600)
""",
    size=51,
)
"""Has fifty children in sessions of their own, none of which obeys SIGTERM."""

COMET = _python(
    """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("flying", flush=True)
while True:
    if os.fork():
        os._exit(0)
""",
    size=0,
    word="flying",
)
"""Forks and exits all the time, so that no process of it lives for long."""

FLOOD = _python(
    """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    os.write(1, b"flood" * 10000 + b"\\n")
""",
    word="flood",
)
"""Writes as much as it can and ignores SIGTERM."""


Identity = tuple[int, int]
"""Number and start time, which tell a process from later ones."""


class MemoryRecords:
    """Spawn records that are gone with the process."""

    def __init__(self) -> None:
        self.rows: dict[str, SpawnRow] = {}

    async def add(self, record: SpawnRecord) -> None:
        self.rows[record.spawn_id] = record

    async def remove(self, spawn_id: str) -> None:
        self.rows.pop(spawn_id, None)

    async def all(self) -> list[SpawnRow]:
        return list(self.rows.values())


def launch(log_path: Path, program: Program, *, model: str = "m") -> Launch:
    """Return how to start a program."""
    environment = {"PATH": os.environ["PATH"]}
    return Launch(model=model, argv=program.argv, env=environment, cwd=None, log_path=log_path)


def identities(pids: Iterable[int]) -> set[Identity]:
    """Return processes by number and start time, so that they can be told from later ones."""
    entries = [process_table.read(pid) for pid in pids]
    return {(entry.pid, entry.start_ticks) for entry in entries if entry and not entry.is_dead}


def alive(seen: Iterable[Identity], spawn_ids: Iterable[str] = ()) -> set[int]:
    """Return which processes that were seen, or that carry a spawn id, are alive."""
    seen, spawn_ids = set(seen), set(spawn_ids)
    return {
        entry.pid
        for entry in process_table.snapshot().values()
        if not entry.is_dead
        and (
            (entry.pid, entry.start_ticks) in seen
            or process_table.environment_value(entry.pid, SPAWN_ID_VARIABLE) in spawn_ids
        )
    }


def wardens_below(root: int) -> list[int]:
    """Return the children of the keeper that is a child of a process."""
    table = process_table.snapshot()
    below = process_table.descendants(table, [root])
    keepers = [entry.pid for entry in below if entry.parent == root]
    return [entry.pid for entry in below if entry.parent in keepers]


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait for a condition."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the condition did not come true in time"
        await asyncio.sleep(0.005)


async def written(log_path: Path, text: str) -> None:
    """Wait until a text is in a log."""
    await until(lambda: text in log_path.read_text(errors="replace"))


async def spawn(
    processes: Processes, log_path: Path, program: Program
) -> tuple[BackendProcess, set[Identity]]:
    """Start a program, wait until its tree is complete, and return it with its processes."""
    process = await processes.spawn(launch(log_path, program))
    await written(log_path, program.word)
    await until(lambda: len(process.tree()) >= program.size)
    return process, identities(process.tree())
