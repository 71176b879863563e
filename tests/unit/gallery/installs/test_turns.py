"""Whose turn it is to change a model."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from localplane_server.gallery.installs.turns import Turns


class Change:
    """A change that goes on until it is let go."""

    def __init__(self, turns: Turns, *names: str) -> None:
        self.has_begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self._turns = turns
        self._names = names
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._turns.of(*self._names):
            self.has_begun.set()
            await self.go_on.wait()


async def settle() -> None:
    """Let everybody do what can be done now."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", ["org/Tiny", "ORG__tiny"])
async def test_one_at_a_time(name: str) -> None:
    """However a model is called, the second change of it begins when the first has ended; another model's does not."""
    turns = Turns()
    first, second, other = Change(turns, "org/tiny"), Change(turns, name), Change(turns, "other")
    await settle()
    begun = [first.has_begun.is_set(), second.has_begun.is_set(), other.has_begun.is_set()]
    first.go_on.set()
    await asyncio.wait_for(second.has_begun.wait(), 10)
    second.go_on.set()
    other.go_on.set()
    await asyncio.gather(first.task, second.task, other.task)

    assert [True, False, True] == begun


async def test_several_names() -> None:
    """Changes that need the same models in any order wait for each other, and never for ever."""
    turns = Turns()
    changes = [Change(turns, *names) for names in (("a", "b"), ("b", "a"), ("A", "a"), ("b",))]
    async with asyncio.timeout(10):
        for one in changes:
            one.go_on.set()
            await one.task

    assert not turns.is_taken("a")


async def test_one_that_gives_up() -> None:
    """Who does not wait any longer holds up nobody, and nothing is remembered once all have gone."""
    turns = Turns()
    first, second, third = (Change(turns, "m") for _ in range(3))
    await settle()
    second.task.cancel()
    first.go_on.set()
    await asyncio.wait_for(third.has_begun.wait(), 10)
    is_taken = turns.is_taken("M")
    third.go_on.set()
    await asyncio.wait([first.task, second.task, third.task])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(turns.of("m"))

    assert is_taken
    assert second.task.cancelled()
    assert not turns.is_taken("m")
    assert ({}, {}) == (turns._locks, turns._wanted)
