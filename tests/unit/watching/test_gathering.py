"""Gathering what changes many times in a moment."""

from __future__ import annotations

import asyncio

from localplane_server.watching.gathering import Gathering


class Looks:
    """Notes what is looked at, and tells when it is."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.came = asyncio.Event()

    def __call__(self, key: str) -> None:
        self.keys.append(key)
        self.came.set()


async def test_together() -> None:
    """What is added within a moment is looked at once, in order; what comes later, later."""
    looks = Looks()
    gathering = Gathering(0.01, looks)
    for key in ("b", "a", "b"):
        gathering.add(key)
    before = list(looks.keys)
    await looks.came.wait()
    first = list(looks.keys)
    looks.came.clear()
    gathering.add("c")
    await looks.came.wait()

    assert ([], ["a", "b"], ["a", "b", "c"]) == (before, first, looks.keys)


async def test_close() -> None:
    """A closed one looks at nothing, neither at what was added before nor at what is added then."""
    looks = Looks()
    gathering = Gathering(0.0, looks)
    gathering.add("a")
    gathering.close()
    gathering.add("b")
    await asyncio.sleep(0.01)  # a timer that was left would have fired

    assert [] == looks.keys
