"""Work that does what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from localplane_server.jobs.progress import JobProgress


class ScriptedWork:
    """Waits for each run to be let go; takes note of what happens to it.

    Requests say more: `turns_back: false` ends as if it had not been cancelled.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.is_again: dict[str, bool] = {}
        self.discarded: list[str] = []
        self.at_work: set[str] = set()
        self.most_at_work = 0
        self.outcomes: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self.reports: dict[str, Callable[[JobProgress], None]] = {}
        self.discarding: asyncio.Event | None = None
        self.discard_error: Exception | None = None

    def outcome(self, name: str) -> asyncio.Future[Mapping[str, Any]]:
        """Return what a run is to end with; the next run of that name waits for another."""
        return self.outcomes.setdefault(name, asyncio.get_running_loop().create_future())

    async def run(
        self,
        request: Mapping[str, Any],
        report: Callable[[JobProgress], None],
        *,
        is_again: bool,
    ) -> Mapping[str, Any]:
        name = request["name"]
        assert name not in self.at_work
        self.begun.append(name)
        self.is_again[name] = is_again
        self.reports[name] = report
        self.at_work.add(name)
        self.most_at_work = max(self.most_at_work, len(self.at_work))
        try:
            return await asyncio.shield(self.outcome(name))
        except asyncio.CancelledError:
            if request.get("turns_back", True):
                raise
            return await self.outcome(name)
        finally:
            self.at_work.discard(name)
            if self.outcome(name).done():
                del self.outcomes[name]

    def identity(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**request, "name": request["name"].lower()}

    async def discard(self, request: Mapping[str, Any]) -> None:
        assert request["name"] not in self.at_work
        if self.discarding is not None:
            await self.discarding.wait()
        if self.discard_error is not None:
            raise self.discard_error
        self.discarded.append(request["name"])
