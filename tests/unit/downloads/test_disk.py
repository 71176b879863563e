"""Work for the disk is over when its caller goes on, also when that was cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from localplane_server.downloads.disk import Disk


async def test_cancelled() -> None:
    """A caller who is cancelled, even twice, waits for the thread that works for it."""
    disk = Disk()
    has_begun, may_end, has_ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        has_begun.set()
        may_end.wait()
        has_ended.set()

    task = asyncio.create_task(disk.run(work))
    await asyncio.to_thread(has_begun.wait)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert has_ended.is_set()
    disk.close()


async def test_result() -> None:
    """What it returns or raises comes to the caller."""
    disk = Disk()
    assert 3 == await disk.run(len, "abc")
    with pytest.raises(ValueError, match="invalid literal"):
        await disk.run(int, "x")
    disk.close()
