"""The jobs there are, and whose turn it is. Pure: it decides, and does nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from localplane_server.jobs.job import Job, JobState


class JobQueue:
    """Jobs in the order in which they were asked for.

    On one target, jobs are done one after the other, in that order; one that is paused lets those behind it pass. Of
    one kind, no more than a limit are done at a time, so that a deletion does not wait for downloads.
    """

    def __init__(self, limit: int) -> None:
        """Begin empty.

        Args:
            limit: How many jobs of one kind may run at a time.
        """
        self._limit = limit
        self._jobs: dict[str, Job] = {}
        self._unfinished: dict[str, Job] = {}
        self._busy: set[str] = set()

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    @property
    def next_number(self) -> int:
        """Number of the next job."""
        return max((job.number for job in self._jobs.values()), default=0) + 1

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None when there is none of that identifier."""
        return self._jobs.get(job_id)

    def known(self, job_id: str) -> Job:
        """Return a job that is there."""
        return self._jobs[job_id]

    def put(self, job: Job) -> None:
        """Add a job behind all others, or put it in place of what was known of it."""
        self._jobs[job.id] = job
        if job.state.is_finished:
            self._unfinished.pop(job.id, None)
        else:
            self._unfinished[job.id] = job

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        self._jobs.pop(job_id, None)
        self._unfinished.pop(job_id, None)
        self._busy.discard(job_id)

    def set_busy(self, job_id: str, *, is_busy: bool) -> None:
        """Say whether something is being done to a job, such as throwing away its files: it holds its target then."""
        if is_busy:
            self._busy.add(job_id)
        else:
            self._busy.discard(job_id)

    def unfinished(self) -> list[Job]:
        """Return the jobs that are not finished."""
        return list(self._unfinished.values())

    def last_on(self, target: str) -> Job | None:
        """Return the unfinished job behind all others on a target, or None when there is none."""
        last = None
        for job in self._unfinished.values():
            if job.target == target:
                last = job
        return last

    def startable(self) -> list[Job]:
        """Return the jobs whose turn it is."""
        running = Counter(
            job.kind for job in self._unfinished.values() if job.state is JobState.RUNNING
        )
        held = {
            job.target
            for job in self._unfinished.values()
            if job.state is JobState.RUNNING or job.id in self._busy
        }
        turn = []
        for job in self._unfinished.values():
            if job.state is not JobState.QUEUED or job.target in held:
                continue
            held.add(job.target)
            if running[job.kind] < self._limit:
                running[job.kind] += 1
                turn.append(job)
        return turn
