"""Jobs, and which way their states may go."""

from __future__ import annotations

import enum
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from localplane_server.errors import LocalplaneError
from localplane_server.jobs.progress import JobProgress

_MULTICAST = 1 << 40


def new_job_id() -> str:
    """Return an identifier that nothing else has.

    It is a UUID of the first version, as LocalAI's are, without the address of the machine.
    """
    return str(uuid.uuid1(node=secrets.randbits(48) | _MULTICAST))


class JobState(enum.Enum):
    """Where a job is in its life."""

    QUEUED = "queued"
    """It waits for its turn."""
    RUNNING = "running"
    """Its work is being done."""
    PAUSED = "paused"
    """Somebody stopped it; what was fetched is kept. It goes on when somebody says so."""
    INTERRUPTED = "interrupted"
    """The service ended while it ran, or may not do now what it needs. It is queued again when the service starts."""
    CANCELLED = "cancelled"
    """Somebody ended it; what was fetched is thrown away."""
    FAILED = "failed"
    """Its work could not be done."""
    COMPLETED = "completed"
    """Its work is done."""

    @property
    def is_finished(self) -> bool:
        """Whether it stays as it is for ever."""
        return self in _FINISHED


_FINISHED = frozenset({JobState.CANCELLED, JobState.FAILED, JobState.COMPLETED})


class JobEvent(enum.Enum):
    """What can happen to a job."""

    START = "start"
    """Its turn comes."""
    PAUSE = "pause"
    """Somebody stops it for a while."""
    RESUME = "resume"
    """Somebody lets it go on."""
    CANCEL = "cancel"
    """Somebody ends it."""
    INTERRUPT = "interrupt"
    """The service ends, or has ended, under it, or may not do now what it needs."""
    REQUEUE = "requeue"
    """The service is there again."""
    FAIL = "fail"
    """Its work ends with an error."""
    COMPLETE = "complete"
    """Its work ends well."""


TRANSITIONS: Mapping[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.START): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.PAUSE): JobState.PAUSED,
    (JobState.QUEUED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.PAUSE): JobState.PAUSED,
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.INTERRUPT): JobState.INTERRUPTED,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobEvent.COMPLETE): JobState.COMPLETED,
    (JobState.PAUSED, JobEvent.RESUME): JobState.QUEUED,
    (JobState.PAUSED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.INTERRUPTED, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.INTERRUPTED, JobEvent.RESUME): JobState.QUEUED,
    (JobState.INTERRUPTED, JobEvent.PAUSE): JobState.PAUSED,
    (JobState.INTERRUPTED, JobEvent.CANCEL): JobState.CANCELLED,
}
"""Where each event leads from each state. What is not here cannot happen."""


def _writable(text: str) -> str:
    """Return a text without what UTF-8 has no word for: whoever failed may repeat what strangers said."""
    return text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed."""

    message: str
    """For people."""
    reason: str
    """For programs, as of errors of calls."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The variable parts of the message."""

    @classmethod
    def of(cls, error: BaseException) -> JobError:
        """Return what can be told of an error. Of one that nobody foresaw, that is nothing."""
        if isinstance(error, LocalplaneError):
            metadata = {key: _writable(value) for key, value in error.metadata.items()}
            return cls(_writable(error.message), error.reason, metadata)
        return cls("internal error", LocalplaneError.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of work, as it is known at a moment."""

    id: str
    """Its identifier, a UUID."""
    number: int
    """How many jobs there ever were before it, and one: jobs run in the order of their numbers."""
    kind: str
    """Which work it is, such as `install`."""
    target: str
    """What it works on. Two jobs never run on the same target at a time."""
    request: Mapping[str, Any]
    """What was asked for, as JSON has it."""
    state: JobState = JobState.QUEUED
    """Where it is in its life."""
    created_at: datetime
    """When it was asked for."""
    started_at: datetime | None = None
    """When its work first began. None before that."""
    finished_at: datetime | None = None
    """When it came to its end. None before that."""
    runs: int = 0
    """How often its work began: more than once after a pause or a restart of the service."""
    progress: JobProgress = JobProgress()
    """How far it has come."""
    rate: float | None = None
    """Bytes per second of late. None while that is not known, and when it does not run."""
    result: Mapping[str, Any] | None = None
    """What its work came to, as JSON has it. None if it did not complete."""
    error: JobError | None = None
    """Why it failed, or what keeps it from going on. None if neither is so."""

    def after(self, event: JobEvent, at: datetime) -> Job:
        """Return the job after an event, without an error.

        Raises:
            ValueError: If that cannot happen to it in its state.
        """
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            message = f"a job that is {self.state.value} cannot {event.value}"
            raise ValueError(message)
        is_start = event is JobEvent.START
        return replace(
            self,
            state=state,
            started_at=at if is_start and self.started_at is None else self.started_at,
            finished_at=at if state.is_finished else None,
            runs=self.runs + is_start,
            rate=None,
            error=None,
        )
