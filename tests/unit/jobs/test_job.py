"""Jobs and the ways of their states."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from localplane_server.errors import ModelNotFoundError
from localplane_server.jobs.job import (
    TRANSITIONS,
    Job,
    JobError,
    JobEvent,
    JobState,
    new_job_id,
)

AT = datetime(2030, 1, 1, tzinfo=UTC)


def make_job(state: JobState = JobState.QUEUED) -> Job:
    return Job(id="a", number=1, kind="install", target="m", request={}, created_at=AT, state=state)


def test_finished_stays() -> None:
    """Nothing leads out of a finished state, and something out of every other."""
    leaves = {state for state, _ in TRANSITIONS}

    assert {state for state in JobState if not state.is_finished} == leaves


def test_every_state_is_reached() -> None:
    """Every state but the first is led to by something, and can be left towards an end."""
    assert set(JobState) == {*TRANSITIONS.values(), JobState.QUEUED}
    assert all(
        TRANSITIONS[state, JobEvent.CANCEL] is JobState.CANCELLED
        for state in JobState
        if not state.is_finished
    )


@pytest.mark.parametrize(("state", "event"), [*itertools.product(JobState, JobEvent)])
def test_moves(state: JobState, event: JobEvent) -> None:
    """An event leads where the table says, and else is refused; the end is noted with its time."""
    job = make_job(state)
    later = AT + timedelta(seconds=1)
    if (state, event) not in TRANSITIONS:
        with pytest.raises(ValueError, match=f"{state.value} cannot {event.value}"):
            job.after(event, later)
        return

    moved = job.after(event, later)

    assert TRANSITIONS[state, event] is moved.state
    assert (later if moved.state.is_finished else None) == moved.finished_at


def test_runs() -> None:
    """The begin is the first one; every one is counted."""
    times = [AT + timedelta(seconds=n) for n in range(5)]
    job = make_job()
    for event, at in zip(
        [JobEvent.START, JobEvent.PAUSE, JobEvent.RESUME, JobEvent.START], times, strict=False
    ):
        job = job.after(event, at)

    assert (2, AT, JobState.RUNNING) == (job.runs, job.started_at, job.state)


def test_ids() -> None:
    """Identifiers are UUIDs of the first version, each another, and tell no address of a network card."""
    ids = {uuid.UUID(new_job_id()) for _ in range(100)}

    assert 100 == len(ids)
    assert {1} == {one.version for one in ids}
    assert all(one.node >> 40 & 1 for one in ids)


def test_errors() -> None:
    """What the service says of errors is kept; what nobody foresaw tells nothing of the inside."""
    known = JobError.of(ModelNotFoundError("x"))

    assert ("MODEL_NOT_FOUND", {"model": "x"}) == (known.reason, known.metadata)
    assert JobError("internal error", "INTERNAL") == JobError.of(RuntimeError("secret"))


def test_errors_with_what_cannot_be_written() -> None:
    """An error that repeats half a character can be written down and told all the same."""
    error = JobError.of(ModelNotFoundError("x\ud800"))

    assert "x?" == error.metadata["model"]
    assert error.message.encode()
