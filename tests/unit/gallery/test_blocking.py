"""Work off the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from localplane_server.gallery.blocking import Advance, interruptible, uninterrupted


class TestInterruptible:
    async def test_told(self) -> None:
        """How far it gets is told on the event loop, and its result is returned."""
        told: list[int] = []
        loop_thread = threading.get_ident()

        def advance(size: int) -> None:
            assert loop_thread == threading.get_ident()
            told.append(size)

        def work(step: Advance) -> str:
            assert loop_thread != threading.get_ident()
            step(1)
            step(2)
            return "done"

        assert "done" == await interruptible(work, advance)
        assert [1, 2] == told

    async def test_failed(self) -> None:
        """What it raises is raised."""

        def work(_step: Advance) -> None:
            raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await interruptible(work, lambda _size: None)

    async def test_given_up(self) -> None:
        """Cancelled, it ends at its next step, and whoever cancelled is told once it has ended."""
        began, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

        def work(step: Advance) -> None:
            began.set()
            assert goes_on.wait(30)
            try:
                step(1)
            finally:
                ended.set()

        task = asyncio.create_task(interruptible(work, lambda _size: None))
        await asyncio.to_thread(began.wait)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        goes_on.set()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()


class TestUninterrupted:
    async def test_cancelled(self) -> None:
        """It comes to its end and gives its result, however often it is cancelled."""
        goes_on = asyncio.Event()

        async def work() -> str:
            await goes_on.wait()
            return "done"

        task = asyncio.create_task(uninterrupted(work()))
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0)
        goes_on.set()

        assert "done" == await task

    async def test_failed(self) -> None:
        """What it raises is raised."""

        async def work() -> None:
            raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await uninterrupted(work())
