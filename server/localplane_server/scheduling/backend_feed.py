"""The backends as they can be followed."""

from __future__ import annotations

from dataclasses import dataclass

from localplane_server import events
from localplane_server.scheduling.monitor import Monitor
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.snapshots import BackendSnapshot
from localplane_server.supervision.sampling import TreeSample
from localplane_server.watching.feed import Feed
from localplane_server.watching.gathering import Gathering

CALLS_SECONDS = 0.1
"""How long calls that begin and end are gathered before the change is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBackend:
    """A backend, as watchers see it."""

    snapshot: BackendSnapshot
    """Its life."""
    sample: TreeSample | None
    """The figures of the operating system. None when there are none yet."""


class BackendFeed(Feed[str, SeenBackend]):
    """Follows the backends, by the name of their model: those that the list shows, and no others.

    What a backend does is told at once, calls a moment later all together, figures when they were sampled.
    """

    def __init__(self, scheduler: Scheduler, monitor: Monitor, bus: events.Events) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._monitor = monitor
        self._called = Gathering(CALLS_SECONDS, self._look_at)
        bus.listen(events.BackendChanged, self._changed)
        bus.listen(events.BackendsSampled, self._sampled)

    def close(self) -> None:
        """End all watching."""
        self._called.close()
        super().close()

    def _changed(self, event: events.BackendChanged) -> None:
        if event.calls_only:
            self._called.add(event.model)
        else:
            self._look_at(event.model)

    def _sampled(self, _: events.BackendsSampled) -> None:
        for snapshot in self._scheduler.snapshots():
            self._publish(snapshot)

    def _look_at(self, model: str) -> None:
        snapshot = self._scheduler.snapshot(model)
        if snapshot is None:
            self.remove(model)
        else:
            self._publish(snapshot)

    def _publish(self, snapshot: BackendSnapshot) -> None:
        sample = self._monitor.last_sample(snapshot)
        self.put(snapshot.model, SeenBackend(snapshot=snapshot, sample=sample))
