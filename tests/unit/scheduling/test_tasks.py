"""Tasks that outlive their callers, and loops that must run."""

from __future__ import annotations

import asyncio
import logging

import pytest

from localplane_server.readiness import Readiness
from localplane_server.scheduling import tasks
from localplane_server.scheduling.tasks import DetachedTasks, keep_running


async def fail() -> None:
    raise ValueError("a fault")


async def test_a_failure_is_logged_even_if_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody awaits does not fail in silence, and harms no other."""
    detached = DetachedTasks()
    with caplog.at_level(logging.ERROR):
        failed = detached(fail())
        other = detached(asyncio.sleep(0, "fine"))
        await asyncio.wait((failed, other))
        await asyncio.sleep(0)

    assert "fine" == other.result()
    assert "a detached task failed" in caplog.text


async def test_close_ends_all() -> None:
    """What still runs is cancelled and waited for."""
    detached = DetachedTasks()
    task = detached(asyncio.Event().wait())
    await detached.close()

    assert task.cancelled()


async def test_a_loop_that_fails_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness is red in between, and the loop is back."""
    monkeypatch.setattr(tasks, "RESTART_SECONDS", 0.0)
    readiness = Readiness()
    ready: list[bool] = []
    readiness.listen(ready.append)
    again = asyncio.Event()
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            await fail()
        again.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(keep_running("sampling", loop, readiness))
    await asyncio.wait_for(again.wait(), 5)
    running.cancel()

    assert [True, False, True] == ready
