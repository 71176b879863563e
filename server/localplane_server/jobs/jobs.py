"""The jobs of a service: asked for, run, followed, stopped and taken up again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import orjson

from localplane_server import events
from localplane_server.errors import (
    DrainingError,
    JobFinishedError,
    JobNotFoundError,
)
from localplane_server.jobs.job import Job, JobEvent, JobState, new_job_id
from localplane_server.jobs.journal import JobJournal, JobRecords
from localplane_server.jobs.queue import JobQueue
from localplane_server.jobs.request_ids import RequestIds, RequestKey
from localplane_server.jobs.runner import JobRunner
from localplane_server.jobs.work import Work

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
        self._bus = bus
        self._clock = clock
        self._now = now
        self._works = works
        self._queue = JobQueue(parallel)
        self._journal = JobJournal(records)
        self._runner = JobRunner(self._queue, self._journal, works, bus, clock=clock, now=now)
        self._request_ids = RequestIds()
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
        self._runner.open(self._next_number)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Interrupt what runs and write everything down."""
        self._is_open = False
        await self._runner.close()
        if entering := {*self._entries.values(), *self._key_writes}:
            await asyncio.wait(entering)
        await self._journal.write_rest(is_durable=True)

    async def run(self) -> None:
        """Write progress down every second, and forget old jobs, for ever."""
        prune_at = self._clock() + PRUNE_SECONDS
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self._journal.write_rest()
            for job_id in self._runner.running():
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
        rate = self._runner.rate(job)
        return job if rate is None else replace(job, rate=rate)

    def unfinished(self) -> list[Job]:
        """Return the jobs that are not finished."""
        return [job for job in self._queue.unfinished() if job.id not in self._entries]

    async def submit(
        self, kind: str, target: str, request: Mapping[str, Any], *, request_id: str = ""
    ) -> Job:
        """Have something done, and return the job that does it once that will survive whatever happens.

        What is asked for again while it is not finished, in whichever words, is not done twice: the answer is the same
        job, which goes on if it was paused or interrupted. What works on the same target is done in the order in which
        it was asked for.

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
        job = self._twin(kind, target, request)
        if job is not None and self._runner.is_being_cancelled(job):
            job = None
        # One that is about to be paused is in time only to be let go on again.
        is_resumed = job is not None and self._is_to_be_resumed(job)
        if key is not None:
            known = self._queue.get(self._request_ids.job_of(key, now))
            if known is not None:
                job, key, is_resumed = known, None, False
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
        if is_resumed:
            with contextlib.suppress(JobFinishedError):
                await self.resume(job.id)
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
            await self._runner.bring(job, JobEvent.CANCEL)
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
            await self._runner.bring(job, JobEvent.PAUSE)
            job = self.get(job.id)
        return job

    async def resume(self, job_id: str) -> Job:
        """Let a job that is paused or interrupted go on when its turn comes. One that waits or runs goes on as it is.

        Raises:
            JobNotFoundError: If there is none of that identifier.
            JobFinishedError: If it is finished.
        """
        job = self.get(job_id)
        self._check_unfinished(job, "resume")
        while self._is_to_be_resumed(job):
            await self._runner.bring(job, JobEvent.RESUME)
            job = self.get(job.id)
            self._check_unfinished(job, "resume")
        return job

    def _twin(self, kind: str, target: str, request: Mapping[str, Any]) -> Job | None:
        """Return the unfinished job that does just this, unless something else happens to the target behind it."""
        job = self._queue.last_on(target)
        if job is None or job.kind != kind:
            return None
        if job.request == request:
            return job
        work = self._works.get(kind)
        is_same = work is not None and work.identity(job.request) == work.identity(request)
        return job if is_same else None

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
        self._runner.publish(job, before=None)
        self._runner.start_what_can()

    async def _enter_key(self, key: RequestKey, job: Job, entry: asyncio.Task[None] | None) -> None:
        try:
            if entry is not None:
                await asyncio.shield(entry)
            await self._journal.write_key(key, job.id, self._now())
        except BaseException:
            self._request_ids.forget(key)
            raise

    def _is_to_be_resumed(self, job: Job) -> bool:
        is_stopped = job.state in (JobState.PAUSED, JobState.INTERRUPTED)
        return is_stopped or self._runner.is_leaving(job)

    def _take_up(self, job: Job) -> None:
        """Queue a job again that an earlier service left behind."""
        if job.state is JobState.RUNNING:
            job = job.after(JobEvent.INTERRUPT, self._now())
        if job.state is JobState.INTERRUPTED:
            job = job.after(JobEvent.REQUEUE, self._now())
            self._queue.put(job)
            self._journal.note(job)

    async def _prune(self) -> None:
        now = self._now()
        oldest = now - timedelta(days=KEPT_DAYS)
        latest = reversed(self.all())
        finished = [(job.id, job.finished_at) for job in latest if job.finished_at is not None]
        old = [
            job_id
            for place, (job_id, at) in enumerate(finished)
            if place >= MOST_KEPT or at < oldest
        ]
        for job_id in old:
            self._queue.remove(job_id)
            self._bus.emit(events.JobChanged(job=job_id))
        await self._journal.remove(old, keys_before=self._request_ids.forget_old(now))

    def _check_unfinished(self, job: Job, verb: str) -> None:
        if job.state.is_finished:
            raise JobFinishedError(verb, job.id, job.state.value)
