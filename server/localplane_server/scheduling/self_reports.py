"""What backends say of themselves, asked once for all who want to know."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from localplane_server.supervision.calls import Report
from localplane_server.supervision.running import RunningBackend


@dataclass(frozen=True, slots=True)
class OwnWord:
    """What a backend said of itself."""

    report: Report
    """It."""
    at: datetime
    """When it was said, in UTC."""


class SelfReports:
    """Asks backends for their status.

    Many who ask at once are one question: a backend that serves one call at a time would have to answer each of them
    before the next prediction.

    Args:
        seconds: How long a backend may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._questions: dict[RunningBackend, asyncio.Task[OwnWord]] = {}

    async def of(self, backend: RunningBackend) -> OwnWord:
        """Return what a backend says of itself.

        Raises:
            LocalplaneError: If it says nothing.
        """
        question = self._questions.get(backend)
        if question is None:
            question = asyncio.get_running_loop().create_task(self._ask(backend))
            self._questions[backend] = question
            question.add_done_callback(lambda _: self._questions.pop(backend))
            # Whoever asked may be gone.
            question.add_done_callback(lambda one: one.cancelled() or one.exception())
        return await asyncio.shield(question)

    async def _ask(self, backend: RunningBackend) -> OwnWord:
        report = await backend.client.status(self._seconds)
        return OwnWord(report, datetime.now(UTC))
