"""What is known of each backend: its own word, and what the operating system says of its process tree."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from localplane_server import events
from localplane_server.errors import (
    BackendFailedError,
    BackendStatusFailedError,
    LocalplaneError,
    ModelNotLoadedError,
    OverdueError,
)
from localplane_server.scheduling.actor import BackendSnapshot, BackendState, ModelActor
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.supervision import process_table
from localplane_server.supervision.calls import Memory
from localplane_server.supervision.running import RunningBackend
from localplane_server.supervision.sampling import Sampler, TreeSample

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 5.0
"""Time between two samples of the process trees."""
STATUS_SECONDS = 1.0
"""How long a backend is given to report its own figures."""
PROBE_SECONDS = 2.0
"""How long an idle backend is given to answer that it is well."""
FAILED_PROBES = 3
"""Probes that must fail one after another before a backend counts as broken."""

UNINITIALIZED, BUSY, READY, ERROR = 0, 1, 2, -1
"""LocalAI's numbers of a backend's state."""

_NUMBERS = {
    BackendState.STARTING: UNINITIALIZED,
    BackendState.LOADING: UNINITIALIZED,
    BackendState.READY: READY,
    BackendState.BUSY: BUSY,
    BackendState.STOPPING: BUSY,
    BackendState.FAILED: ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendReport:
    """What is known of one backend."""

    snapshot: BackendSnapshot
    """Its life."""
    monitor_state: int
    """Its state in LocalAI's numbers."""
    sample: TreeSample | None
    """The figures of the operating system. None when there are none."""
    memory: Memory | None
    """The memory that it reports. None when it reports none."""
    reported_state: str | None
    """The state that it reports, as a lower-case word. None when it reports none."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Why a figure is not known, by its name."""


class Monitor:
    """Samples the process trees in the background, and reports without ever waiting for a model."""

    def __init__(self, scheduler: Scheduler, sampler: Sampler, bus: events.Events) -> None:
        self._scheduler = scheduler
        self._events = bus
        self._sampler = sampler
        self._samples: dict[int, TreeSample] = {}
        self._failed_probes: dict[RunningBackend, int] = {}

    async def run(self) -> None:
        """Sample and probe for ever."""
        while True:
            await self._round()
            await asyncio.sleep(SAMPLE_SECONDS)

    def last_sample(self, snapshot: BackendSnapshot) -> TreeSample | None:
        """Return the last sample of a backend's process tree, or None."""
        return self._samples.get(snapshot.pid) if snapshot.pid is not None else None

    async def report(self, name: str) -> BackendReport:
        """Return what is known of the backend of a model.

        Raises:
            InvalidModelNameError: If the name cannot be one.
            ModelNotLoadedError: If the model is not loaded or there is no such model.
            BackendFailedError: If its backend failed and there is no process.
            BackendStatusFailedError: If nothing is known of it but its own word, and that cannot be had.
        """
        actor = self._scheduler.actor(name)
        backend = actor.backend
        snapshot = _seen(actor)
        if backend is None:
            unknown = dict.fromkeys(("memory", "memory_info", "cpu_percent"), "no process yet")
            return _report(actor, None, None, None, unknown)
        if snapshot.pid not in self._samples:
            await self._sample([backend])
        sample = self.last_sample(snapshot)
        unknown = _unknown_figures(backend, sample)
        memory = reported_state = None
        try:
            own = await backend.client.status(STATUS_SECONDS)
        except LocalplaneError as error:
            # One that serves one call at a time reports after the call.
            is_busy = isinstance(error, OverdueError) and snapshot.in_flight > 0
            if backend.unseen is not None and not is_busy:
                _seen(actor)
                raise BackendStatusFailedError(snapshot.model, error.message) from error
            unknown["memory"] = unknown["reported_state"] = error.message
        else:
            memory, reported_state = own.memory, own.reported_state
            if memory is None:
                unknown["memory"] = "the backend does not report it"
        # It may have stopped or failed while it was asked.
        _seen(actor)
        report = _report(actor, sample, memory, reported_state, unknown)
        broken = self._failed_probes.get(backend, 0) >= FAILED_PROBES
        if broken and report.monitor_state == READY:
            unknown["state"] = f"it did not answer {FAILED_PROBES} probes"
            return _report(actor, sample, memory, reported_state, unknown, monitor_state=ERROR)
        return report

    async def _round(self) -> None:
        backends = [
            actor.backend for actor in self._scheduler.actors() if actor.backend is not None
        ]
        await self._sample(backends)
        pids = {backend.pid for backend in backends}
        self._samples = {pid: one for pid, one in self._samples.items() if pid in pids}
        self._failed_probes = {one: n for one, n in self._failed_probes.items() if one in backends}
        if backends:
            self._events.emit(events.BackendsSampled())
        await asyncio.gather(
            *(
                self._probe(actor.backend)
                for actor in self._scheduler.actors()
                # A backend that serves one call at a time answers a probe only after the call.
                if actor.backend is not None and actor.state is BackendState.READY
            )
        )

    async def _sample(self, backends: list[RunningBackend]) -> None:
        table = await asyncio.to_thread(process_table.snapshot)
        trees = {one.pid: one.tree_in(table) for one in backends if one.pid is not None}
        self._samples.update(await self._sampler.sample(trees))
        for actor in self._scheduler.actors():
            sample = self.last_sample(actor.snapshot())
            if sample is not None:
                self._scheduler.note_memory(actor.model.name, sample.rss_bytes)

    async def _probe(self, backend: RunningBackend) -> None:
        is_well = await backend.client.health(PROBE_SECONDS)
        self._failed_probes[backend] = 0 if is_well else self._failed_probes.get(backend, 0) + 1


def _seen(actor: ModelActor) -> BackendSnapshot:
    """Return the snapshot of an actor that has something to see."""
    snapshot = actor.snapshot()
    if snapshot.state is BackendState.FAILED:
        message = f"backend {snapshot.model} has failed: {snapshot.last_error}"
        raise BackendFailedError(message, model=snapshot.model)
    if snapshot.state is BackendState.STOPPED:
        raise ModelNotLoadedError(snapshot.model)
    return snapshot


def _unknown_figures(backend: RunningBackend, sample: TreeSample | None) -> dict[str, str]:
    """Say why figures of the operating system are missing, by their names."""
    if backend.unseen is not None:
        figures = ("memory_info", "memory_percent", "cpu_percent", "sampled_at", "pid")
        return dict.fromkeys(figures, backend.unseen)
    unknown = {}
    if sample is None:
        unknown["memory_info"] = "the process could not be read"
    if sample is None or sample.cpu_percent is None:
        unknown["cpu_percent"] = "two samples are needed"
    return unknown


def _report(
    actor: ModelActor,
    sample: TreeSample | None,
    memory: Memory | None,
    reported_state: str | None,
    unknown: dict[str, str],
    *,
    monitor_state: int | None = None,
) -> BackendReport:
    snapshot = actor.snapshot()
    return BackendReport(
        snapshot=snapshot,
        monitor_state=_NUMBERS[snapshot.state] if monitor_state is None else monitor_state,
        sample=sample,
        memory=memory,
        reported_state=reported_state,
        unknown=unknown,
    )
