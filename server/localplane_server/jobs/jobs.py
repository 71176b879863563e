"""The jobs of a service: asked for, run, followed, stopped and taken up again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

import orjson

from localplane_server import events
from localplane_server.errors import (
    DrainingError,
    JobFinishedError,
    JobNotFoundError,
    LocalplaneError,
)
from localplane_server.jobs.job import Job, JobError, JobEvent, JobState, new_job_id
from localplane_server.jobs.journal import JobJournal, JobRecords
from localplane_server.jobs.progress import JobProgress, RateMeter
from localplane_server.jobs.queue import JobQueue
from localplane_server.jobs.request_ids import RequestIds, RequestKey
from localplane_server.jobs.work import Work

log = logging.getLogger(__name__)

PARALLEL_JOBS = 2
"""Jobs of one kind that run at a time, unless somebody says otherwise."""
KEPT_DAYS = 30
"""How long a job is kept after its end."""
MOST_KEPT = 10_000
"""Finished jobs that are kept, whatever their age."""
WRITE_SECONDS = 1.0
"""How long progress may wait to be written."""
PRUNE_SECONDS = 3600.0
"""How often old jobs are looked for."""


@dataclass(slots=True)
class _Live:
    """What goes on with a job that is not finished."""

    activity: asyncio.Task[None] | None = None
    """Moves the job from one state to the next. Nobody cancels it."""
    work: asyncio.Task[Mapping[str, Any]] | None = None
    """Does its work."""
    stop: JobEvent | None = None
    """Why its work was cancelled. None if it was not."""
    meter: RateMeter = field(default_factory=RateMeter)
    """How fast it goes."""


class Jobs:
    """Runs jobs, whoever asked for them: none ends because its caller goes away.

    An async context manager: entering reads the state file and goes on with what was not finished; leaving interrupts
    what runs. While the context is open, `run` must run; it writes progress. It belongs to one event loop.
    """

    def __init__(
        self,
        records: JobRecords,
        works: Mapping[str, Work],
        bus: events.Events,
        *,
        parallel: int = PARALLEL_JOBS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Know no job yet.

        Args:
            records: Where jobs are kept.
            works: What jobs do, by their kind.
            bus: Hears what happens.
            parallel: How many jobs of one kind may run at a time.
            clock: Seconds that only go forward, for rates.
            now: The time of day.
        """
        self._works = works
        self._bus = bus
        self._clock = clock
        self._now = now
        self._queue = JobQueue(parallel)
        self._journal = JobJournal(records)
        self._request_ids = RequestIds()
        self._live: dict[str, _Live] = {}
        self._entries: dict[str, asyncio.Task[None]] = {}
        self._key_writes: set[asyncio.Task[None]] = set()
        self._next_number = 1
        self._is_open = False

    async def __aenter__(self) -> Self:
        """Read what there is, and go on with what was running or waiting."""
        jobs, keys = await self._journal.read()
        for job in jobs:
            self._queue.put(job)
        self._request_ids.restore(keys)
        self._next_number = self._queue.next_number
        for job in self._queue.unfinished():
            self._take_up(job)
        await self._prune()
        self._is_open = True
        self._start_what_can()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Interrupt what runs and write everything down."""
        self._is_open = False
        for live in self._live.values():
            self._stop(live, JobEvent.INTERRUPT)
        while busy := [one.activity for one in self._live.values() if one.activity is not None]:
            await asyncio.wait(busy)
        if entering := {*self._entries.values(), *self._key_writes}:
            await asyncio.wait(entering)
        await self._journal.write_rest(is_durable=True)

    async def run(self) -> None:
        """Write progress down every second, and forget old jobs, for ever."""
        prune_at = self._clock() + PRUNE_SECONDS
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self._journal.write_rest()
            for job_id, live in list(self._live.items()):
                if live.work is not None:
                    # Its rate changes with the time, most of all when nothing comes in.
                    self._bus.emit(events.JobChanged(job=job_id, progress_only=True))
            if self._clock() >= prune_at:
                await self._prune()
                prune_at = self._clock() + PRUNE_SECONDS

    def all(self) -> list[Job]:
        """Return all jobs, in the order in which they were asked for."""
        found = (self.find(job.id) for job in self._queue)
        return sorted((job for job in found if job is not None), key=lambda job: job.number)

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            JobNotFoundError: If there is none of that identifier.
        """
        job = self.find(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        return job

    def find(self, job_id: str) -> Job | None:
        """Return a job, or None when there is none of that identifier."""
        job = self._queue.get(job_id.lower())
        if job is None or job.id in self._entries:
            # It is none before it is written down.
            return None
        live = self._live.get(job.id)
        if live is None or live.work is None:
            return job
        return replace(job, rate=live.meter.rate(self._clock()))

    def unfinished(self) -> list[Job]:
        """Return the jobs that are not finished."""
        return [job for job in self._queue.unfinished() if job.id not in self._entries]

    async def submit(
        self, kind: str, target: str, request: Mapping[str, Any], *, request_id: str = ""
    ) -> Job:
        """Have something done, and return the job that does it once that will survive whatever happens.

        What is asked for again while it is not finished is not done twice: the answer is the same job. What works on
        the same target is done in the order in which it was asked for.

        Args:
            kind: Which work it is.
            target: What it works on.
            request: What is asked for, as JSON has it.
            request_id: The caller's identifier of this request, a UUID. Within a day, the same request with the same
                identifier returns the job that it returned the first time, finished or not. Empty: none.

        Raises:
            InvalidArgumentError: If the identifier is none.
            RequestIdReusedError: If it was another request's within a day.
            DrainingError: If the service is stopping.
        """
        if not self._is_open:
            raise DrainingError("the service is stopping")
        request = orjson.loads(orjson.dumps(dict(request)))
        now = self._now()
        key = RequestKey.of(request_id, (kind, target, request)) if request_id else None
        job = None
        if key is not None and (known := self._request_ids.job_of(key, now)):
            job, key = self._queue.get(known), None
        job = job or self._queue.twin(kind, target, request)
        is_new = job is None
        if job is None:
            job = Job(
                id=new_job_id(),
                number=self._next_number,
                kind=kind,
                target=target,
                request=request,
                created_at=now,
            )
            self._next_number += 1
            self._queue.put(job)
            self._queue.set_busy(job.id, is_busy=True)
        if key is not None:
            self._request_ids.add(key, job.id, now)
        if is_new:
            self._entries[job.id] = asyncio.create_task(self._enter(job, key))
        elif key is not None:
            entry = self._entries.get(job.id)
            # Of its own, so that it is written even though the caller goes away.
            writing = asyncio.create_task(self._enter_key(key, job, entry))
            self._key_writes.add(writing)
            writing.add_done_callback(self._key_writes.discard)
            await asyncio.shield(writing)
        if (entry := self._entries.get(job.id)) is not None:
            await asyncio.shield(entry)
        return self.find(job.id) or job

    async def cancel(self, job_id: str) -> Job:
        """End a job, throw away what it has fetched, and return it once that is done.

        Raises:
            JobNotFoundError: If there is none of that identifier.
            JobFinishedError: If it is finished, or could not be turned back any more.
        """
        job = self.get(job_id)
        self._check_unfinished(job, "cancel")
        while not (job := self.get(job.id)).state.is_finished:
            await self._bring(job, JobEvent.CANCEL)
        if job.state is not JobState.CANCELLED:
            raise JobFinishedError("cancel", job.id, job.state.value)
        return job

    async def pause(self, job_id: str) -> Job:
        """Stop a job for as long as nobody resumes it, also over a restart, and return it once it stands.

        What it has fetched is kept. One that is paused stays so.

        Raises:
            JobNotFoundError: If there is none of that identifier.
            JobFinishedError: If it is finished, or could not be stopped any more.
        """
        job = self.get(job_id)
        while job.state is not JobState.PAUSED:
            self._check_unfinished(job, "pause")
            await self._bring(job, JobEvent.PAUSE)
            job = self.get(job.id)
        return job

    async def resume(self, job_id: str) -> Job:
        """Let a paused job go on when its turn comes. One that waits or runs already goes on as it is.

        Raises:
            JobNotFoundError: If there is none of that identifier.
            JobFinishedError: If it is finished.
        """
        job = self.get(job_id)
        while True:
            self._check_unfinished(job, "resume")
            live = self._live_of(job)
            if live.activity is not None and (live.work is None or live.stop is not None):
                await asyncio.wait({live.activity})
            elif job.state is JobState.PAUSED:
                await self._bring(job, JobEvent.RESUME)
            else:
                return job
            job = self.get(job.id)

    # How a job moves: one activity at a time, in a task of its own. A state is written down before anybody sees it.

    async def _bring(self, job: Job, event: JobEvent) -> None:
        """Have an event happen to a job, or wait for what is happening to it already."""
        live = self._live_of(job)
        if live.activity is None:
            self._begin(job, live, self._settle(job.id, event))
        else:
            self._stop(live, event)
        if live.activity is not None:
            await asyncio.wait({live.activity})

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
        self._start_what_can()

    def _stop(self, live: _Live, event: JobEvent) -> None:
        """Cancel the work of a job, once: a second time would disturb it while it puts things in order."""
        if live.work is None:
            return
        if live.stop is None:
            live.work.cancel()
        if live.stop is None or event is JobEvent.CANCEL:
            live.stop = event

    def _start_what_can(self) -> None:
        if not self._is_open:
            return
        for queued in self._queue.startable():
            job = queued.after(JobEvent.START, self._now())
            live = self._live_of(job)
            live.work = asyncio.create_task(self._do(job))
            self._journal.note(job)
            self._publish(job, before=queued)
            self._begin(job, live, self._follow(job.id, live, live.work))

    async def _do(self, job: Job) -> Mapping[str, Any]:
        work = self._works.get(job.kind)
        if work is None:
            raise LocalplaneError(f"cannot do a job of the kind {job.kind}", kind=job.kind)
        return await work.run(job.request, partial(self._report, job.id))

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
        else:
            if not isinstance(error, LocalplaneError):
                log.error(
                    "a job failed in an unforeseen way", exc_info=error, extra={"job": job_id}
                )
            await self._settle(job_id, JobEvent.FAIL, error=JobError.of(error))

    async def _settle(
        self,
        job_id: str,
        event: JobEvent,
        *,
        result: Mapping[str, Any] | None = None,
        error: JobError | None = None,
    ) -> None:
        if event is JobEvent.CANCEL:
            await self._discard(self.get(job_id))
        before = self.get(job_id)
        job = before.after(event, self._now())
        if result is not None:
            job = replace(job, result=dict(result))
        job = replace(job, error=error)
        await self._journal.write(job)
        self._publish(job, before=before)

    async def _discard(self, job: Job) -> None:
        try:
            if (work := self._works.get(job.kind)) is not None:
                await work.discard(job.request)
        except Exception:
            # It is cancelled all the same; what is left is removed when it is old.
            log.exception("cannot throw away what a job fetched", extra={"job": job.id})

    async def _enter(self, job: Job, key: RequestKey | None) -> None:
        try:
            await self._journal.write_new(job, key)
        except BaseException:
            self._queue.remove(job.id)
            self._request_ids.forget_job(job.id)
            raise
        finally:
            del self._entries[job.id]
        self._queue.set_busy(job.id, is_busy=False)
        self._publish(job, before=None)
        self._start_what_can()

    async def _enter_key(self, key: RequestKey, job: Job, entry: asyncio.Task[None] | None) -> None:
        try:
            if entry is not None:
                await asyncio.shield(entry)
            await self._journal.write_key(key, job.id, self._now())
        except BaseException:
            self._request_ids.forget(key)
            raise

    def _take_up(self, job: Job) -> None:
        """Queue a job again that an earlier service left behind."""
        if job.state is JobState.RUNNING:
            job = job.after(JobEvent.INTERRUPT, self._now())
        if job.state is JobState.INTERRUPTED:
            job = job.after(JobEvent.REQUEUE, self._now())
            self._queue.put(job)
            self._journal.note(job)

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

    def _publish(self, job: Job, *, before: Job | None) -> None:
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

    async def _prune(self) -> None:
        now = self._now()
        oldest = now - timedelta(days=KEPT_DAYS)
        finished = [job for job in self.all() if job.finished_at is not None]
        old = [job.id for job in finished if (job.finished_at or now) < oldest]
        extra = len(finished) - len(old) - MOST_KEPT
        if extra > 0:
            kept = [job for job in finished if (job.finished_at or now) >= oldest]
            old += [job.id for job in kept[:extra]]
        for job_id in old:
            self._queue.remove(job_id)
            self._bus.emit(events.JobChanged(job=job_id))
        await self._journal.remove(old, keys_before=self._request_ids.forget_old(now))

    def _live_of(self, job: Job) -> _Live:
        return self._live.setdefault(job.id, _Live())

    def _check_unfinished(self, job: Job, verb: str) -> None:
        if job.state.is_finished:
            raise JobFinishedError(verb, job.id, job.state.value)
