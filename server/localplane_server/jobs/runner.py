"""Doing the work of jobs: whose turn it is begins, whatever comes of it is written down and told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from localplane_server import events
from localplane_server.errors import LocalplaneError
from localplane_server.jobs.job import Job, JobError, JobEvent
from localplane_server.jobs.journal import JobJournal
from localplane_server.jobs.progress import JobProgress, RateMeter
from localplane_server.jobs.queue import JobQueue
from localplane_server.jobs.work import Work

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Live:
    """What goes on with a job that is not finished."""

    activity: asyncio.Task[None] | None = None
    """Moves the job from one state to the next. Nobody cancels it."""
    work: asyncio.Task[Mapping[str, Any]] | None = None
    """Does its work."""
    stop: JobEvent | None = None
    """Why it stops or is stopped. None if it does not."""
    meter: RateMeter = field(default_factory=RateMeter)
    """How fast it goes."""


class JobRunner:
    """Moves jobs from one state to the next.

    With one job one thing happens at a time, in a task of its own that nobody cancels. Where it leads is written down
    before anybody sees it. It belongs to one event loop.
    """

    def __init__(
        self,
        queue: JobQueue,
        journal: JobJournal,
        works: Mapping[str, Work],
        bus: events.Events,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Do nothing yet.

        Args:
            queue: Tells whose turn it is.
            journal: Where jobs are written down.
            works: What jobs do, by their kind.
            bus: Hears what happens.
            clock: Seconds that only go forward, for rates.
            now: The time of day.
        """
        self._queue = queue
        self._journal = journal
        self._works = works
        self._bus = bus
        self._clock = clock
        self._now = now
        self._live: dict[str, _Live] = {}
        self._first_own = 0
        self._is_open = False

    def open(self, first_own: int) -> None:
        """Begin with the jobs whose turn it is, now and whenever another comes to its end.

        Args:
            first_own: Number of the first job that is this service's own: those before it were left by an earlier one.
        """
        self._first_own = first_own
        self._is_open = True
        self.start_what_can()

    async def close(self) -> None:
        """Interrupt what runs, begin nothing any more, and return once nothing moves."""
        self._is_open = False
        for live in self._live.values():
            self._stop(live, JobEvent.INTERRUPT)
        while busy := [one.activity for one in self._live.values() if one.activity is not None]:
            await asyncio.wait(busy)

    def start_what_can(self) -> None:
        """Begin with the jobs whose turn it is."""
        if not self._is_open:
            return
        for queued in self._queue.startable():
            job = queued.after(JobEvent.START, self._now())
            live = self._live_of(job)
            live.work = asyncio.create_task(self._do(job))
            self.publish(job, before=queued)
            self._begin(job, live, self._follow(job.id, live, live.work))

    async def bring(self, job: Job, event: JobEvent) -> None:
        """Have an event happen to a job, or wait for what is happening to it already."""
        live = self._live_of(job)
        if live.activity is None:
            live.stop = event
            self._begin(job, live, self._settle(job.id, event))
        elif event is not JobEvent.RESUME:
            self._stop(live, event)
        if live.activity is not None:
            await asyncio.wait({live.activity})

    def publish(self, job: Job, *, before: Job | None) -> None:
        """Have everybody see where a job is now."""
        self._queue.put(job)
        self._bus.emit(
            events.JobMoved(
                job=job.id,
                kind=job.kind,
                target=job.target,
                before=before.state.value if before else "",
                state=job.state.value,
                reason=job.error.reason if job.error else "",
                message=job.error.message if job.error else "",
            )
        )
        self._bus.emit(events.JobChanged(job=job.id))

    def is_leaving(self, job: Job) -> bool:
        """Return whether a job is on its way from one state to another."""
        live = self._live.get(job.id)
        if live is None or live.activity is None:
            return False
        return live.work is None or live.stop is not None

    def is_being_cancelled(self, job: Job) -> bool:
        """Return whether a job is about to be cancelled, unless it comes to its end first."""
        live = self._live.get(job.id)
        return live is not None and live.stop is JobEvent.CANCEL

    def rate(self, job: Job) -> float | None:
        """Return bytes per second of late. None while that is not known, and of what does not run."""
        live = self._live.get(job.id)
        if live is None or live.work is None:
            return None
        return live.meter.rate(self._clock())

    def running(self) -> list[str]:
        """Return the identifiers of the jobs whose work is being done."""
        return [job_id for job_id, live in self._live.items() if live.work is not None]

    def _begin(self, job: Job, live: _Live, activity: Coroutine[Any, Any, None]) -> None:
        self._queue.set_busy(job.id, is_busy=True)
        live.activity = asyncio.create_task(activity)
        live.activity.add_done_callback(partial(self._ended, job.id))

    def _ended(self, job_id: str, activity: asyncio.Task[None]) -> None:
        live = self._live.pop(job_id)
        live.activity = None
        self._queue.set_busy(job_id, is_busy=False)
        if not activity.cancelled() and (error := activity.exception()) is not None:
            log.error("a job could not be moved", exc_info=error, extra={"job": job_id})
        self.start_what_can()

    def _stop(self, live: _Live, event: JobEvent) -> None:
        """Cancel the work of a job, once: a second time would disturb it while it puts things in order."""
        if live.work is None:
            return
        if live.stop is None:
            live.work.cancel()
        if live.stop is None or event is JobEvent.CANCEL:
            live.stop = event

    async def _do(self, job: Job) -> Mapping[str, Any]:
        work = self._works.get(job.kind)
        if work is None:
            raise LocalplaneError(f"cannot do a job of the kind {job.kind}", kind=job.kind)
        # Before it begins, so that a run after this one knows that it is not the first.
        await self._journal.write(job)
        return await work.run(job.request, partial(self._report, job.id), is_again=job.runs > 1)

    async def _follow(
        self, job_id: str, live: _Live, work: asyncio.Task[Mapping[str, Any]]
    ) -> None:
        await asyncio.wait({work})
        live.work = None
        if work.cancelled():
            error: BaseException | None = asyncio.CancelledError()
        else:
            error = work.exception()
        if error is None:
            await self._settle(job_id, JobEvent.COMPLETE, result=work.result())
        elif live.stop is not None:
            # Whatever the work says when it is stopped, that is why it ended.
            await self._settle(job_id, live.stop)
        elif self._is_for_later(job_id, error):
            await self._settle(job_id, JobEvent.INTERRUPT, error=JobError.of(error))
        else:
            if not isinstance(error, LocalplaneError):
                log.error(
                    "a job failed in an unforeseen way", exc_info=error, extra={"job": job_id}
                )
            await self._settle(job_id, JobEvent.FAIL, error=JobError.of(error))

    def _is_for_later(self, job_id: str, error: BaseException) -> bool:
        """Return whether a job cannot be done by this service and could be by the one that took it.

        Somebody began it when it could be done: that this service stays off the network throws nothing away.
        """
        is_own = self._queue.known(job_id).number >= self._first_own
        return isinstance(error, LocalplaneError) and error.is_offline and not is_own

    async def _settle(
        self,
        job_id: str,
        event: JobEvent,
        *,
        result: Mapping[str, Any] | None = None,
        error: JobError | None = None,
    ) -> None:
        if event is JobEvent.CANCEL and self._queue.known(job_id).runs:
            await self._discard(self._queue.known(job_id))
        before = self._queue.known(job_id)
        job = before.after(event, self._now())
        if result is not None:
            job = replace(job, result=dict(result))
        if error is not None:
            job = replace(job, error=error)
        await self._journal.write(job)
        self.publish(job, before=before)

    async def _discard(self, job: Job) -> None:
        try:
            if (work := self._works.get(job.kind)) is not None:
                await work.discard(job.request)
        except Exception:
            # It is cancelled all the same; what is left is removed when it is old.
            log.exception("cannot throw away what a job fetched", extra={"job": job.id})

    def _report(self, job_id: str, told: JobProgress) -> None:
        job = self._queue.get(job_id)
        live = self._live.get(job_id)
        if job is None or live is None or live.work is None:
            # Work that was stopped has a last word; the job has moved on.
            return
        progress = told.after(job.progress)
        at = self._clock()
        live.meter.add(at, progress.done_bytes)
        fetched = progress.done_bytes - job.progress.done_bytes
        job = replace(job, progress=progress)
        self._queue.put(job)
        self._journal.note(job)
        if fetched:
            self._bus.emit(events.JobFetched(kind=job.kind, bytes_count=fetched))
        self._bus.emit(events.JobChanged(job=job_id, progress_only=True))

    def _live_of(self, job: Job) -> _Live:
        return self._live.setdefault(job.id, _Live())
