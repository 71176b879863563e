"""Figures of backends: how they are, what they take, and how their loads went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from localplane_server import events
from localplane_server.metrics.families import Readings
from localplane_server.metrics.registry import MetricsRegistry
from localplane_server.scheduling.snapshots import BackendSnapshot, BackendState
from localplane_server.supervision.sampling import TreeSample

LOAD_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds for how long loads take."""
WAIT_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0)
"""Bounds for how long calls wait for their model."""

STATES = tuple(state for state in BackendState if state is not BackendState.STOPPED)
"""States that a backend can be seen in; a stopped one is not there."""


class Snapshots(Protocol):
    """Gives the backends that are there, as `Scheduler.snapshots` does."""

    def __call__(self) -> Sequence[BackendSnapshot]:
        """Return them, from memory."""


class LastSample(Protocol):
    """Gives the last sample of a backend's processes, as `Monitor.last_sample` does."""

    def __call__(self, snapshot: BackendSnapshot) -> TreeSample | None:
        """Return it, from memory."""


class BackendMetrics:
    """Counts loads, and reads the rest from what scheduler and monitor remember."""

    def __init__(
        self,
        registry: MetricsRegistry,
        bus: events.Events,
        snapshots: Snapshots,
        last_sample: LastSample,
    ) -> None:
        self._snapshots = snapshots
        self._last_sample = last_sample
        self.loads = registry.counters(
            "localplane_backend_loads_total",
            "Loads of models that have ended.",
            ("model", "backend", "outcome"),
        )
        self.load_seconds = registry.histograms(
            "localplane_backend_load_seconds",
            "How long successful loads took, from the start of the process.",
            ("model",),
            bounds=LOAD_SECONDS,
        )
        self.stops = registry.counters(
            "localplane_backend_stops_total",
            "Stops of backends that have ended, by what they were for.",
            ("model", "cause"),
        )
        self.cooldowns = registry.counters(
            "localplane_backend_cooldowns_total",
            "How often a model was left alone for a while, since it failed again.",
            ("model",),
        )
        self.waits = registry.counters(
            "localplane_backend_waits_total",
            "Calls and loads that had to wait for their model to be ready, by how that ended.",
            ("model", "outcome"),
        )
        self.wait_seconds = registry.histograms(
            "localplane_backend_wait_seconds",
            "How long calls and loads waited that were admitted in the end.",
            ("model",),
            bounds=WAIT_SECONDS,
        )
        registry.readings(
            "localplane_backend_queue_length",
            "Calls and loads that wait for a model to be ready.",
            ("model",),
            read=self._read_waiting,
        )
        registry.readings(
            "localplane_backends", "Backends by state.", ("state",), read=self._read_counts
        )
        registry.readings(
            "localplane_backend_state",
            "1 for the state that a backend is in.",
            ("model", "backend", "state"),
            read=self._read_states,
        )
        registry.readings(
            "localplane_backend_calls_in_flight",
            "Calls that a backend works on.",
            ("model",),
            read=self._read_in_flight,
        )
        registry.readings(
            "localplane_backend_restarts_total",
            "Starts of a backend after a failure.",
            ("model",),
            kind="counter",
            read=self._read_restarts,
        )
        registry.readings(
            "localplane_backend_resident_memory_bytes",
            "Resident memory of all processes of a backend, when it was last sampled.",
            ("model",),
            read=self._read_memory,
        )
        registry.readings(
            "localplane_backend_cpu_cores",
            "Processor time of all processes of a backend between the last two samples; 1 is one core.",
            ("model",),
            read=self._read_cpu,
        )
        bus.listen(events.BackendReady, self._ready)
        bus.listen(events.BackendFailed, self._failed)
        bus.listen(events.BackendStopped, self._stopped)
        bus.listen(events.BackendCooling, self._cooling)
        bus.listen(events.WaitEnded, self._waited)

    def _ready(self, event: events.BackendReady) -> None:
        self.loads.series(event.model, event.backend, "ok").add()
        self.load_seconds.series(event.model).observe(event.seconds)

    def _failed(self, event: events.BackendFailed) -> None:
        if event.was_loading:
            self.loads.series(event.model, event.backend, "error").add()

    def _stopped(self, event: events.BackendStopped) -> None:
        if event.was_loading:
            self.loads.series(event.model, event.backend, "stopped").add()

        self.stops.series(event.model, event.cause).add()

    def _cooling(self, event: events.BackendCooling) -> None:
        self.cooldowns.series(event.model).add()

    def _waited(self, event: events.WaitEnded) -> None:
        self.waits.series(event.model, event.outcome).add()
        if event.outcome == "admitted":
            self.wait_seconds.series(event.model).observe(event.seconds)

    def _read_waiting(self) -> Readings:
        for one in self._snapshots():
            yield (one.model,), one.waiting

    def _read_counts(self) -> Readings:
        counts = Counter(one.state for one in self._snapshots())
        for state in STATES:
            yield (state.value,), counts[state]

    def _read_states(self) -> Readings:
        for one in self._snapshots():
            if one.state is BackendState.STOPPED:
                # It is only waited for.
                continue
            yield (one.model, one.backend, one.state.value), 1

    def _read_in_flight(self) -> Readings:
        for one in self._snapshots():
            yield (one.model,), one.in_flight

    def _read_restarts(self) -> Readings:
        for one in self._snapshots():
            yield (one.model,), one.restarts

    def _read_memory(self) -> Readings:
        for one in self._snapshots():
            if (sample := self._last_sample(one)) is not None:
                yield (one.model,), sample.rss_bytes

    def _read_cpu(self) -> Readings:
        for one in self._snapshots():
            sample = self._last_sample(one)
            if sample is not None and sample.cpu_percent is not None:
                yield (one.model,), sample.cpu_percent / 100
