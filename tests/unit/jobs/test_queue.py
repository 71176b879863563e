"""The queue under any order of events, against a model of it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from localplane_server.jobs.job import TRANSITIONS, Job, JobEvent, JobState
from localplane_server.jobs.queue import JobQueue

EXAMPLES = int(os.environ.get("LOCALPLANE_FUZZ_EXAMPLES", "0"))
"""How many schedules are tried. 0: as many as are quick, the same ones each time."""
SCHEDULES = settings(
    max_examples=EXAMPLES * 10 or 80,
    stateful_step_count=50,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
AT = datetime(2030, 1, 1, tzinfo=UTC)
ENDS = [JobEvent.PAUSE, JobEvent.CANCEL, JobEvent.FAIL, JobEvent.COMPLETE, JobEvent.INTERRUPT]


class QueueMachine(RuleBasedStateMachine):
    """Asks for jobs, starts those whose turn it is, and has anything happen to them."""

    queue: JobQueue
    limit: int

    @initialize(limit=st.integers(1, 3))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.queue = JobQueue(limit)
        self.jobs: list[Job] = []
        self.busy: set[str] = set()

    @rule(
        kind=st.sampled_from(["install", "delete"]),
        on=st.sampled_from("abc"),
        request=st.sampled_from([{}, {"x": 1}]),
    )
    def ask(self, kind: str, on: str, request: dict[str, Any]) -> None:
        on_target = [j for j in self.jobs if j.target == on and not j.state.is_finished]
        assert (on_target[-1] if on_target else None) == self.queue.last_on(on)
        if on_target and (on_target[-1].kind, on_target[-1].request) == (kind, request):
            return
        number = self.queue.next_number
        job = Job(
            id=str(number),
            number=number,
            kind=kind,
            target=on,
            request=request,
            created_at=AT,
        )
        self.jobs.append(job)
        self.queue.put(job)

    @rule()
    def start(self) -> None:
        for job in self.queue.startable():
            self._move(job, JobEvent.START)
        # Nothing is left lying that could run.
        assert [] == self.queue.startable()
        running = [job for job in self.jobs if job.state is JobState.RUNNING]
        kinds = Counter(job.kind for job in running)
        for job in self.jobs:
            is_free = kinds[job.kind] < self.limit and job.id not in self.busy
            if job.state is JobState.QUEUED and is_free:
                ahead = [j for j in self.jobs if j.target == job.target and j.id != job.id]
                assert any(
                    j.state is JobState.RUNNING
                    or j.id in self.busy
                    or (j.state is JobState.QUEUED and j.number < job.number)
                    for j in ahead
                )

    @precondition(lambda self: self.queue.unfinished())
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.queue.unfinished()))
        possible = [event for state, event in TRANSITIONS if state is job.state]
        possible = [event for event in possible if event is not JobEvent.START]
        if possible:
            self._move(job, data.draw(st.sampled_from(possible)))

    @precondition(lambda self: self.queue.unfinished())
    @rule(data=st.data(), is_busy=st.booleans())
    def be_busy(self, data: st.DataObject, *, is_busy: bool) -> None:
        job = data.draw(st.sampled_from(self.queue.unfinished()))
        self.queue.set_busy(job.id, is_busy=is_busy)
        (self.busy.add if is_busy else self.busy.discard)(job.id)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        finished = [job for job in self.jobs if job.state.is_finished]
        if finished:
            job = data.draw(st.sampled_from(finished))
            self.jobs.remove(job)
            self.busy.discard(job.id)
            self.queue.remove(job.id)

    @invariant()
    def is_as_known(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert self.jobs == list(self.queue)
        assert [j for j in self.jobs if not j.state.is_finished] == self.queue.unfinished()

    @invariant()
    def is_within_limits(self) -> None:
        if not hasattr(self, "queue"):
            return
        running = [job for job in self.jobs if job.state is JobState.RUNNING]
        assert all(n <= self.limit for n in Counter(job.kind for job in running).values())
        assert all(n == 1 for n in Counter(job.target for job in running).values())

    def _move(self, job: Job, event: JobEvent) -> None:
        moved = job.after(event, AT)
        self.jobs[[j.id for j in self.jobs].index(job.id)] = moved
        self.queue.put(moved)


def test_any_schedule() -> None:
    """Jobs of a target run one at a time in order, jobs of a kind within their limit, and none waits without cause."""
    run_state_machine_as_test(QueueMachine, settings=SCHEDULES)


def test_paused_lets_pass() -> None:
    """A job that is paused does not hold up what comes behind it on the same target."""
    queue = JobQueue(1)
    first = Job(id="1", number=1, kind="install", target="a", request={}, created_at=AT)
    second = replace(first, id="2", number=2, kind="delete")
    queue.put(first)
    queue.put(second)
    waiting = queue.startable()
    queue.put(first.after(JobEvent.PAUSE, AT))

    assert [first] == waiting
    assert [second] == queue.startable()
