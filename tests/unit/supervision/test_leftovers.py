"""Recognising what an earlier server left behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from backend_trees import Identity, MemoryRecords, alive, identities
from localplane_server.supervision import process_table
from localplane_server.supervision.leftovers import reap_leftovers
from localplane_server.supervision.records import SPAWN_ID_VARIABLE, SpawnRecord, boot_id

Family = set[Identity]
SPAWN_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process without any mark."""
    with subprocess.Popen(["sleep", "600"], env={}) as child:
        yield child
        child.kill()


@pytest.fixture
def family() -> Iterator[Family]:
    """A process with a spawn id, and a child of it without."""
    program = "env -i sleep 600 & echo; wait"
    with subprocess.Popen(
        ["/bin/sh", "-c", program], env={SPAWN_ID_VARIABLE: SPAWN_ID}, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        below = process_table.descendants(process_table.snapshot(), [shell.pid])
        seen = identities([shell.pid, *[entry.pid for entry in below]])
        assert 2 == len(seen)
        yield seen
        for pid in alive(seen):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


def record(pid: int | None = None, ticks: int | None = None, *, boot: str = "") -> SpawnRecord:
    return SpawnRecord(SPAWN_ID, "a model", "sleep", boot or boot_id(), pid, ticks)


async def test_nothing_recorded(records: MemoryRecords) -> None:
    """Without records nothing is looked for."""
    assert [] == await reap_leftovers(records)


async def test_recorded_process(
    records: MemoryRecords, child: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """A process with the recorded number and start time is ended and named, whatever its marks."""
    await records.add(record(child.pid, process_table.start_ticks(child.pid)))

    with caplog.at_level(logging.WARNING):
        [leftover] = await reap_leftovers(records)

    assert -9 == child.wait()
    assert (child.pid, "a model", "sleep 600") == (
        leftover.pid,
        leftover.model,
        leftover.command,
    )
    assert {} == records.rows
    expected = (
        "ended a process that an earlier server left behind: "
        f"model a model, pid {child.pid}, sleep 600"
    )
    assert [expected] == caplog.messages


async def test_number_was_used_again(
    records: MemoryRecords, child: subprocess.Popen[bytes]
) -> None:
    """A process that has the recorded number but started at another time is left alone."""
    await records.add(record(child.pid, process_table.start_ticks(child.pid) - 1))

    assert [] == await reap_leftovers(records)
    assert {child.pid} == alive(identities([child.pid]))
    assert {} == records.rows


async def test_machine_was_started_again(
    records: MemoryRecords, child: subprocess.Popen[bytes]
) -> None:
    """After a reboot, equal numbers and start times mean nothing."""
    ticks = process_table.start_ticks(child.pid)
    await records.add(record(child.pid, ticks, boot="another boot"))

    assert [] == await reap_leftovers(records)
    assert {child.pid} == alive(identities([child.pid]))


async def test_marked_process_and_its_children(records: MemoryRecords, family: Family) -> None:
    """A recorded spawn id in the environment is enough, and what is below goes too."""
    await records.add(record())

    found = await reap_leftovers(records)

    assert {pid for pid, _ in family} == {leftover.pid for leftover in found}
    assert set() == alive(family)


async def test_other_spawns(records: MemoryRecords, family: Family) -> None:
    """A process of a spawn that is not on record, another service's, is left alone."""
    await records.add(record()._replace(spawn_id="f" * 32))

    assert [] == await reap_leftovers(records)
    assert {pid for pid, _ in family} == alive(family)


async def test_own_process(records: MemoryRecords) -> None:
    """A server never takes itself for a leftover, even when it is somebody's backend."""
    await records.add(record(os.getpid(), process_table.start_ticks(os.getpid())))

    assert [] == await reap_leftovers(records)
