"""The jobs as they can be followed."""

from __future__ import annotations

from localplane_server import events
from localplane_server.jobs.job import Job
from localplane_server.jobs.jobs import Jobs
from localplane_server.watching.feed import Feed
from localplane_server.watching.gathering import Gathering

PROGRESS_SECONDS = 0.25
"""How long progress is gathered before it is told."""


class JobFeed(Feed[str, Job]):
    """Follows the jobs, by their identifiers. A change of state is told at once, progress a moment later."""

    def __init__(self, jobs: Jobs, bus: events.Events) -> None:
        """Follow the jobs there are and those to come."""
        super().__init__()
        self._jobs = jobs
        self._advanced = Gathering(PROGRESS_SECONDS, self._look_at)
        bus.listen(events.JobChanged, self._changed)
        for job in jobs.all():
            self.put(job.id, job)

    def is_at_end(self, job_id: str) -> bool:
        """Return whether nothing is to be told of a job any more."""
        job = self.get(job_id)
        return job is None or job.state.is_finished

    def close(self) -> None:
        """End all watching."""
        self._advanced.close()
        super().close()

    def _changed(self, event: events.JobChanged) -> None:
        if event.progress_only:
            self._advanced.add(event.job)
        else:
            self._look_at(event.job)

    def _look_at(self, job_id: str) -> None:
        job = self._jobs.find(job_id)
        if job is None:
            self.remove(job_id)
        else:
            self.put(job_id, job)
