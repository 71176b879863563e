"""Ending what a keeper, or a server with its keeper, left behind when it was killed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localplane_server.supervision import process_table
from localplane_server.supervision.process_table import Entry
from localplane_server.supervision.records import (
    SPAWN_ID_VARIABLE,
    SpawnRecord,
    SpawnRecords,
    boot_id,
)

_logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.01
_LAST_RETRY_SECONDS = 0.5
_GIVE_UP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """One process of an earlier server."""

    pid: int
    """Its number."""
    model: str
    """Model that its backend served."""
    command: str
    """Its command line."""


async def reap_leftovers(records: SpawnRecords) -> list[Leftover]:
    """End what recorded spawns left behind, name each process in the log, and clear the records.

    Call it before the first spawn, with the data directory locked. Found are processes with a
    recorded number and start time, processes of this user with a recorded spawn id in their
    environment, and all below either. A record whose processes do not end within five seconds
    (stuck in the kernel) is kept for the next start.

    Returns:
        What was found.
    """
    recorded = {row[0]: SpawnRecord(*row) for row in await records.all()}
    if not recorded:
        return []
    found, remaining = await asyncio.to_thread(_end_recorded, recorded)
    for leftover in found:
        _logger.warning(
            "ended a process that an earlier server left behind: model %s, pid %d, %s",
            leftover.model,
            leftover.pid,
            leftover.command,
        )
    for spawn_id, record in recorded.items():
        if spawn_id in remaining:
            _logger.error(
                "cannot end what an earlier server left behind: model %s, pid %s, %s",
                record.model,
                record.pid,
                record.program,
            )
        else:
            await records.remove(spawn_id)
    return found


def end_adopted(
    keeper: int, backends: Collection[int], spawn_ids: Collection[str], *, grace_seconds: float
) -> None:
    """End everything that a dead keeper started, and return when nothing of it is left.

    The calling process must be the subreaper that the keeper's children went to. Blocks; reaps only
    what was the keeper's. Wardens end their trees by themselves once their keeper is dead, so they
    get some time to.

    Args:
        keeper: Number of the keeper, which is the session of its wardens too.
        backends: Numbers of backends that lived when the keeper died. They are sessions too.
        spawn_ids: Spawns that were not ended when the keeper died.
        grace_seconds: How long to wait before killing.
    """
    kill_at = time.monotonic() + grace_seconds
    known: set[tuple[int, int]] = set()
    sessions = {keeper, *backends}
    retry_seconds = _RETRY_SECONDS
    while True:
        table = process_table.snapshot()
        roots = [
            entry
            for entry in table.values()
            if entry.parent == os.getpid()
            and entry.pid != keeper
            and (
                entry.session in sessions
                or _identity(entry) in known
                or process_table.environment_value(entry.pid, SPAWN_ID_VARIABLE) in spawn_ids
            )
        ]
        below = process_table.descendants(table, [entry.pid for entry in roots])
        tree = [*roots, *below]
        # Something of the tree may come to be our child later without any other sign of whose it
        # was.
        known.update(_identity(entry) for entry in tree)
        sessions.update(entry.session for entry in tree)
        sessions.discard(os.getsid(0))
        if not tree:
            return
        if time.monotonic() >= kill_at:
            _kill(tree)
            retry_seconds = min(retry_seconds * 1.5, _LAST_RETRY_SECONDS)
        for entry in roots:
            # By number, one by one: children of other parts of this process are theirs to reap.
            with suppress(ChildProcessError):
                os.waitpid(entry.pid, os.WNOHANG)
        time.sleep(retry_seconds)


def _end_recorded(recorded: Mapping[str, SpawnRecord]) -> tuple[list[Leftover], set[str]]:
    found: dict[tuple[int, int], Leftover] = {}
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    while True:
        victims = _recorded_processes(recorded)
        for entry, spawn_id in victims:
            leftover = Leftover(entry.pid, recorded[spawn_id].model, _command(entry.pid))
            found.setdefault(_identity(entry), leftover)
        remaining = {spawn_id for _, spawn_id in victims}
        if not victims or time.monotonic() >= give_up_at:
            return list(found.values()), remaining
        _kill(entry for entry, _ in victims)
        time.sleep(_RETRY_SECONDS)


def _recorded_processes(recorded: Mapping[str, SpawnRecord]) -> list[tuple[Entry, str]]:
    table = {pid: entry for pid, entry in process_table.snapshot().items() if not entry.is_dead}
    by_identity = {
        (record.pid, record.start_ticks): record.spawn_id
        for record in recorded.values()
        if record.boot_id == boot_id()
    }
    ourselves = _ancestors(table, os.getpid())
    owners: dict[int, str] = {}
    for pid, entry in table.items():
        if pid in ourselves:
            continue  # this server may itself be the backend of another
        # The start time is proof enough: some programs write their title over their environment.
        spawn_id = by_identity.get(_identity(entry))
        if spawn_id is None and _is_ours(pid):
            spawn_id = process_table.environment_value(pid, SPAWN_ID_VARIABLE)
        if spawn_id is not None and spawn_id in recorded:
            owners[pid] = spawn_id
    for root, spawn_id in list(owners.items()):
        for entry in process_table.descendants(table, [root]):
            if entry.pid not in ourselves:
                owners.setdefault(entry.pid, spawn_id)
    return [(table[pid], spawn_id) for pid, spawn_id in owners.items()]


def _ancestors(table: Mapping[int, Entry], pid: int) -> set[int]:
    found: set[int] = set()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid].parent
    return found


def _is_ours(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}").stat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _identity(entry: Entry) -> tuple[int, int]:
    return entry.pid, entry.start_ticks


def _kill(entries: Iterable[Entry]) -> None:
    for entry in entries:
        if not entry.is_dead:
            # Gone meanwhile, or of another user by now (a set-user-id program).
            with suppress(ProcessLookupError, PermissionError):
                os.kill(entry.pid, signal.SIGKILL)


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    return b" ".join(words).decode(errors="replace").strip()
