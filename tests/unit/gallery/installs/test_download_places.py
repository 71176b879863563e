"""Places for downloads are shared fairly, and none is lost."""

from __future__ import annotations

import asyncio

import pytest

from localplane_server.gallery.installs.download_places import DownloadPlaces


class Crowd:
    """Downloads that wait for a place, and hold it until they are told to end."""

    def __init__(self, limit: int) -> None:
        self.places = DownloadPlaces(limit)
        self.holds: list[str] = []
        """Who has a place, in the order in which they got it."""
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def come(self, owner: str, *names: str) -> None:
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(owner, name))

    async def _hold(self, owner: str, name: str) -> None:
        async with self.places.place(owner):
            self.holds.append(name)
            try:
                await self.ends[name].wait()
            finally:
                self.holds.remove(name)

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await self.settle()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name] for name in names])
        await self.settle()

    async def settle(self) -> None:
        """Let whoever got a place take note of it."""
        for _ in range(5):
            await asyncio.sleep(0)


async def test_limit() -> None:
    """No more than the limit have a place; the others follow in their order."""
    crowd = Crowd(2)
    crowd.come("a", "1", "2", "3", "4")
    await crowd.settle()
    assert ["1", "2"] == crowd.holds

    await crowd.end("1")
    assert ["2", "3"] == crowd.holds
    for name in ("2", "3", "4"):
        await crowd.end(name)
    assert [] == crowd.holds


async def test_fair() -> None:
    """Who has fewer is served first, however many others wait before."""
    crowd = Crowd(2)
    crowd.come("large", "1", "2", "3", "4")
    await crowd.settle()
    crowd.come("small", "x", "y")
    await crowd.settle()

    await crowd.end("1")
    assert ["2", "x"] == crowd.holds
    await crowd.end("x")
    assert ["2", "y"] == crowd.holds
    await crowd.end("2")
    assert ["y", "3"] == crowd.holds
    await crowd.cancel("3", "4", "y")


@pytest.mark.parametrize(
    "cancelled", [["1"], ["2"], ["3"], ["1", "2"], ["2", "3"], ["1", "2", "3"]]
)
async def test_cancelled(cancelled: list[str]) -> None:
    """Whoever is cancelled, waiting or not, leaves the place to others."""
    crowd = Crowd(1)
    crowd.come("a", "1", "2", "3", "last")
    await crowd.settle()

    await crowd.cancel(*cancelled)
    for name in sorted({"1", "2", "3"} - set(cancelled)):
        await crowd.end(name)

    assert ["last"] == crowd.holds
    await crowd.end("last")


async def test_cancelled_as_it_is_given() -> None:
    """So does one who is cancelled at the very moment in which it is given one."""
    crowd = Crowd(1)
    crowd.come("a", "1", "2", "3")
    await crowd.settle()

    crowd.ends["1"].set()
    await crowd.tasks["1"]
    await crowd.cancel("2")

    assert ["3"] == crowd.holds
    await crowd.end("3")
