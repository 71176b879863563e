"""Figures of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from localplane_server import events
from localplane_server.jobs.job import Job, JobState
from localplane_server.metrics.families import Readings
from localplane_server.metrics.registry import MetricsRegistry

UnfinishedJobs = Callable[[], Iterable[Job]]
"""Gives the jobs that are not finished."""

WAITING = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)
"""States of jobs that are not finished, while the service runs."""


class JobMetrics:
    """Counts jobs and what they fetch."""

    def __init__(
        self, registry: MetricsRegistry, bus: events.Events, unfinished: UnfinishedJobs
    ) -> None:
        self._unfinished = unfinished
        registry.readings(
            "localplane_jobs",
            "Jobs that are not finished, by state.",
            ("state",),
            read=self._read_counts,
        )
        self._finished = registry.counters(
            "localplane_jobs_finished_total", "Jobs that have ended.", ("kind", "state")
        )
        self._fetched = registry.counters(
            "localplane_jobs_fetched_bytes_total",
            "Bytes that jobs fetched and verified to be on the disk.",
            ("kind",),
        )
        bus.listen(events.JobMoved, self._moved)
        bus.listen(events.JobFetched, self._fetch)

    def _moved(self, event: events.JobMoved) -> None:
        if JobState(event.state).is_finished:
            self._finished.series(event.kind, event.state).add()

    def _fetch(self, event: events.JobFetched) -> None:
        self._fetched.series(event.kind).add(event.bytes_count)

    def _read_counts(self) -> Readings:
        counts = Counter(job.state for job in self._unfinished())
        for state in WAITING:
            yield (state.value,), counts[state]
