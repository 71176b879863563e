"""Asking backends for their status."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from localplane_server.errors import BackendFailedError
from localplane_server.scheduling.self_reports import SelfReports
from localplane_server.supervision.calls import Report


class FakeBackend:
    """A backend whose status waits until it may answer."""

    def __init__(self) -> None:
        self.client = self
        self.calls = 0
        self.may_answer = asyncio.Event()
        self.failure: BackendFailedError | None = None

    async def status(self, _seconds: float) -> Report:
        self.calls += 1
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return Report("ready", None)


async def test_one_question() -> None:
    """However many ask at once, the backend is asked once; later it is asked anew."""
    backend: Any = FakeBackend()
    reports = SelfReports(1.0)
    asking = [asyncio.create_task(reports.of(backend)) for _ in range(20)]
    await asyncio.sleep(0)
    backend.may_answer.set()
    answers = await asyncio.gather(*asking)
    assert 1 == backend.calls
    assert all(answer is answers[0] for answer in answers)

    await reports.of(backend)
    assert 2 == backend.calls


async def test_one_who_leaves() -> None:
    """Who asked first and leaves does not take the question along."""
    backend: Any = FakeBackend()
    reports = SelfReports(1.0)
    first = asyncio.create_task(reports.of(backend))
    second = asyncio.create_task(reports.of(backend))
    await asyncio.sleep(0)
    first.cancel()
    backend.may_answer.set()

    assert "ready" == (await second).report.reported_state


async def test_failure() -> None:
    """A failure is everybody's, and nothing is left of it."""
    backend: Any = FakeBackend()
    backend.failure = BackendFailedError("no")
    backend.may_answer.set()
    reports = SelfReports(1.0)
    for _ in range(2):
        with pytest.raises(BackendFailedError):
            await reports.of(backend)

    assert 2 == backend.calls
    assert {} == reports._questions
