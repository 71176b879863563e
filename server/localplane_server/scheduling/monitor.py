"""What is known of each backend: its own word, and what the operating system says of its process tree."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from localplane_server import events
from localplane_server.errors import (
    BackendFailedError,
    BackendStatusFailedError,
    LocalplaneError,
    ModelNotLoadedError,
    OverdueError,
)
from localplane_server.scheduling.actor import ModelActor
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.self_reports import OwnWord, SelfReports
from localplane_server.scheduling.snapshots import BackendSnapshot, BackendState
from localplane_server.supervision import process_table
from localplane_server.supervision.calls import Memory
from localplane_server.supervision.devices import (
    DeviceMemory,
    DeviceReading,
    ReadDevices,
    memory_of,
)
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

FIGURES = ("memory_info", "memory_percent", "cpu_percent")
"""What the operating system says of a process tree."""
NO_DEVICE = "no device lists a process of this backend"

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
    reported_at: datetime | None = None
    """When it reported. None when it did not."""
    devices: tuple[DeviceMemory, ...] = ()
    """Memory of devices that its process tree uses."""
    devices_at: datetime | None = None
    """When the devices were read. None when they were not."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Why a figure is not known, by its name."""


class Monitor:
    """Samples the process trees in the background, and reports without ever waiting for a model.

    Args:
        scheduler: Holds the backends.
        sampler: Reads the figures of process trees.
        bus: Is told when there are new figures.
        devices: Reads the memory of devices. None when nobody can.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        sampler: Sampler,
        bus: events.Events,
        *,
        devices: ReadDevices | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._events = bus
        self._sampler = sampler
        self._devices = devices
        self._samples: dict[int, TreeSample] = {}
        self._trees: dict[int, list[int]] = {}
        self._failed_probes: dict[RunningBackend, int] = {}
        self._reports = SelfReports(STATUS_SECONDS)

    async def run(self) -> None:
        """Sample and probe for ever."""
        # Apart: a backend that does not answer must not make the figures of the others old.
        async with asyncio.TaskGroup() as loops:
            loops.create_task(_repeat(self.sample))
            loops.create_task(_repeat(self.probe))

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
            unknown = dict.fromkeys(("memory", *FIGURES, "devices"), "no process yet")
            return _report(actor, unknown=unknown)
        unknown = {}
        try:
            own, sample, devices = await asyncio.gather(
                self._own_word(backend, snapshot, unknown),
                self._sampled(backend, snapshot, unknown),
                self._read_devices(),
            )
        except BackendStatusFailedError:
            _seen(actor)
            raise
        used: tuple[DeviceMemory, ...] = ()
        if devices is not None and backend.pid is not None:
            used = memory_of(devices, self._trees.get(backend.pid, (backend.pid,)))
            if not used:
                unknown["devices"] = "; ".join(devices.problems) or NO_DEVICE
        # It may have stopped or failed while it was asked.
        _seen(actor)
        monitor_state = None
        broken = self._failed_probes.get(backend, 0) >= FAILED_PROBES
        if broken and actor.state is BackendState.READY:
            unknown["state"] = f"it did not answer {FAILED_PROBES} probes"
            monitor_state = ERROR
        return _report(
            actor,
            sample=sample,
            own=own,
            devices=used,
            devices_at=devices.sampled_at if devices else None,
            unknown=unknown,
            monitor_state=monitor_state,
        )

    async def sample(self) -> None:
        """Sample all process trees."""
        backends = self._running()
        if backends:
            await self._sample(backends)
        # Those of now: one that came meanwhile may have been sampled for whoever asked for it.
        pids = {backend.pid for backend in self._running()}
        self._samples = {pid: one for pid, one in self._samples.items() if pid in pids}
        self._trees = {pid: one for pid, one in self._trees.items() if pid in pids}
        if backends:
            self._events.emit(events.BackendsSampled())

    async def probe(self) -> None:
        """Ask all idle backends whether they are well."""
        backends = self._running()
        self._failed_probes = {one: n for one, n in self._failed_probes.items() if one in backends}
        await asyncio.gather(
            *(
                self._probe(actor, actor.backend)
                for actor in self._scheduler.actors()
                # A backend that serves one call at a time answers a probe only after the call.
                if actor.backend is not None and actor.state is BackendState.READY
            )
        )

    def _running(self) -> list[RunningBackend]:
        return [actor.backend for actor in self._scheduler.actors() if actor.backend is not None]

    async def _own_word(
        self, backend: RunningBackend, snapshot: BackendSnapshot, unknown: dict[str, str]
    ) -> OwnWord | None:
        """Ask a backend for its own figures, and take note of those that it does not tell."""
        try:
            own = await self._reports.of(backend)
        except LocalplaneError as error:
            # One that serves one call at a time reports after the call.
            is_busy = isinstance(error, OverdueError) and snapshot.in_flight > 0
            if backend.unseen is not None and not is_busy:
                raise BackendStatusFailedError(snapshot.model, error.message) from error
            unknown["memory"] = unknown["reported_state"] = error.message
            return None
        if own.report.memory is None:
            unknown["memory"] = "the backend does not report it"
        if own.report.reported_state is None:
            unknown["reported_state"] = "the backend does not report it"
        return own

    async def _sampled(
        self, backend: RunningBackend, snapshot: BackendSnapshot, unknown: dict[str, str]
    ) -> TreeSample | None:
        """Return the last sample, or take the first, and note what it lacks."""
        if backend.unseen is not None:
            unknown.update(
                dict.fromkeys((*FIGURES, "sampled_at", "pid", "devices"), backend.unseen)
            )
            return None
        why = "the process could not be read"
        if snapshot.pid not in self._samples:
            try:
                async with asyncio.timeout(STATUS_SECONDS):
                    await self._sample([backend])
            except TimeoutError:
                why = "the process could not be read in time"
        sample = self.last_sample(snapshot)
        if sample is None:
            unknown.update(dict.fromkeys(FIGURES, why))
        elif sample.cpu_percent is None:
            unknown["cpu_percent"] = "two samples are needed"
        return sample

    async def _read_devices(self) -> DeviceReading | None:
        return None if self._devices is None else await self._devices()

    async def _sample(self, backends: list[RunningBackend]) -> None:
        table = await asyncio.to_thread(process_table.snapshot)
        trees = {one.pid: one.tree_in(table) for one in backends if one.pid is not None}
        self._trees.update(trees)
        samples, devices = await asyncio.gather(self._sampler.sample(trees), self._read_devices())
        self._samples.update(samples)
        for backend in backends:
            if backend.pid in samples:
                rss_bytes = samples[backend.pid].rss_bytes
                if devices is None or (devices.problems and not devices.told):
                    self._scheduler.note_memory(backend.model, rss_bytes)
                    continue
                self._scheduler.note_memory(
                    backend.model,
                    rss_bytes,
                    memory_of(devices, trees[backend.pid]),
                    # What a driver does not tell just now may be there as before.
                    devices.told if devices.problems else None,
                )

    async def _probe(self, actor: ModelActor, backend: RunningBackend) -> None:
        is_well = await backend.client.health(PROBE_SECONDS)
        if is_well:
            self._failed_probes[backend] = 0
        elif actor.backend is backend and actor.state is BackendState.READY:
            # Else a call came meanwhile, behind which the probe may have waited.
            self._failed_probes[backend] = self._failed_probes.get(backend, 0) + 1


async def _repeat(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await work()
        await asyncio.sleep(SAMPLE_SECONDS)


def _seen(actor: ModelActor) -> BackendSnapshot:
    """Return the snapshot of an actor that has something to see."""
    snapshot = actor.snapshot()
    if snapshot.state is BackendState.FAILED:
        message = f"backend {snapshot.model} has failed: {snapshot.last_error}"
        raise BackendFailedError(message, model=snapshot.model)
    if snapshot.state is BackendState.STOPPED:
        raise ModelNotLoadedError(snapshot.model)
    return snapshot


def _report(
    actor: ModelActor,
    *,
    sample: TreeSample | None = None,
    own: OwnWord | None = None,
    devices: tuple[DeviceMemory, ...] = (),
    devices_at: datetime | None = None,
    unknown: dict[str, str],
    monitor_state: int | None = None,
) -> BackendReport:
    snapshot = actor.snapshot()
    return BackendReport(
        snapshot=snapshot,
        monitor_state=_NUMBERS[snapshot.state] if monitor_state is None else monitor_state,
        sample=sample,
        memory=own.report.memory if own else None,
        reported_state=own.report.reported_state if own else None,
        reported_at=own.at if own else None,
        devices=devices,
        devices_at=devices_at,
        unknown=unknown,
    )
