"""The backends as they can be followed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from localplane_server import events
from localplane_server.scheduling.backend_feed import BackendFeed
from localplane_server.scheduling.snapshots import BackendSnapshot, BackendState


class Backends:
    """Stands for the scheduler and for the monitor."""

    def __init__(self) -> None:
        self.known: dict[str, BackendSnapshot] = {}
        self.samples: dict[str, Any] = {}

    def set(self, model: str, state: BackendState, in_flight: int = 0) -> None:
        self.known[model] = BackendSnapshot(
            model=model,
            backend="fake",
            state=state,
            pid=1,
            in_flight=in_flight,
            last_error=None,
            restarts=0,
            loaded_at=None,
            last_used=None,
        )

    def snapshot(self, name: str) -> BackendSnapshot | None:
        return self.known.get(name)

    def snapshots(self) -> list[BackendSnapshot]:
        return list(self.known.values())

    def last_sample(self, snapshot: BackendSnapshot) -> Any:
        return self.samples.get(snapshot.model)


@pytest.fixture
def backends() -> Backends:
    return Backends()


@pytest.fixture
def bus() -> events.Events:
    return events.Events()


@pytest.fixture
def feed(backends: Backends, bus: events.Events) -> BackendFeed:
    """A feed of the backends that there are."""
    stand_in: Any = backends
    return BackendFeed(stand_in, stand_in, bus)


async def test_states_at_once(feed: BackendFeed, backends: Backends, bus: events.Events) -> None:
    """A change of state is told before anything else happens, and that a backend is gone too."""
    backends.set("a", BackendState.STARTING)
    bus.emit(events.BackendChanged(model="a"))
    starting = feed.get("a")
    backends.known.clear()
    bus.emit(events.BackendChanged(model="a"))

    assert starting is not None
    assert BackendState.STARTING is starting.snapshot.state
    assert feed.get("a") is None


async def test_calls_together(
    feed: BackendFeed,
    backends: Backends,
    bus: events.Events,
) -> None:
    """A thousand calls within a moment are one change."""
    async with aclosing(feed.watch()) as watch:
        await anext(watch)
        for number in range(1000):
            backends.set("a", BackendState.BUSY, number)
            bus.emit(events.BackendChanged(model="a", calls_only=True))
        before = feed.revision.number
        batch = await anext(watch)
        await asyncio.sleep(0.03)  # nothing more comes of it

    assert (0, 1) == (before, feed.revision.number)
    assert 999 == batch.changed["a"].snapshot.in_flight


async def test_samples(feed: BackendFeed, backends: Backends, bus: events.Events) -> None:
    """Figures are told when they were sampled, and only if they are others."""
    backends.set("a", BackendState.READY)
    bus.emit(events.BackendChanged(model="a"))
    backends.samples["a"] = "figures"
    bus.emit(events.BackendsSampled())
    bus.emit(events.BackendsSampled())
    seen: Any = feed.get("a")

    assert seen is not None
    assert "figures" == seen.sample
    assert 2 == feed.revision.number


async def test_close(feed: BackendFeed, backends: Backends, bus: events.Events) -> None:
    """A closed feed sets no timer that would outlive it."""
    backends.set("a", BackendState.BUSY, 1)
    bus.emit(events.BackendChanged(model="a", calls_only=True))
    feed.close()
    bus.emit(events.BackendChanged(model="a", calls_only=True))

    timer = feed._called._timer
    assert timer is not None
    assert timer.cancelled()
    assert feed.get("a") is None
