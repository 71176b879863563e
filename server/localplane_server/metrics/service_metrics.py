"""The figures of one service, put together."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from localplane_server import __version__, events
from localplane_server.errors import MetricsDisabledError
from localplane_server.metrics.backends import BackendMetrics, LastSample, Snapshots
from localplane_server.metrics.calls import CallMetrics
from localplane_server.metrics.families import CountedFamily
from localplane_server.metrics.jobs import JobMetrics, UnfinishedJobs
from localplane_server.metrics.loop_lag import LoopLag
from localplane_server.metrics.predictions import PredictionMetrics
from localplane_server.metrics.registry import MetricsRegistry

KEEP_SECONDS = 600.0
"""How long the counts of a model stay after it was seen to be stopped: several scrapes of any usual interval."""


class ServiceMetrics:
    """Keeps the figures of a service from its construction on.

    Args:
        bus: Tells what happens.
        snapshots: Gives the backends that are there.
        last_sample: Gives the last sample of a backend.
        jobs: Gives the jobs that are not finished.
        now: A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        bus: events.Events,
        *,
        snapshots: Snapshots,
        last_sample: LastSample,
        jobs: UnfinishedJobs,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshots = snapshots
        self._now = now
        self._gone_since: dict[str, float] = {}
        self.registry = MetricsRegistry()
        self.registry.readings(
            "localplane_build_info",
            "1, with what the service is.",
            ("version", "python"),
            read=lambda: [((__version__, platform.python_version()), 1)],
        )
        CallMetrics(self.registry, bus)
        backends = BackendMetrics(self.registry, bus, snapshots, last_sample)
        predictions = PredictionMetrics(self.registry, bus)
        JobMetrics(self.registry, bus, jobs)
        self.loop_lag = LoopLag(self.registry)
        self._by_model: Sequence[CountedFamily[Any]] = (
            backends.loads,
            backends.load_seconds,
            backends.stops,
            backends.cooldowns,
            backends.waits,
            backends.wait_seconds,
            predictions.predictions,
            predictions.tokens,
            predictions.first_token_seconds,
        )

    async def written(self, accept: str) -> tuple[bytes, str]:
        """Return the figures as text, and its media type; reads memory and waits for no backend.

        Args:
            accept: What the caller prefers, as in the header of HTTP. Empty: no preference.
        """
        self._forget_models()
        return await self.registry.written(accept)

    def _forget_models(self) -> None:
        """Remove the counts of models that have been gone for long.

        Time counts from the first scrape that finds a model gone, so the last counts have been read before they go.
        """
        present = {one.model for one in self._snapshots()}
        counted = set().union(*(family.values_of("model") for family in self._by_model))
        now = self._now()
        self._gone_since = {
            model: self._gone_since.get(model, now) for model in counted if model not in present
        }
        for model, since in self._gone_since.items():
            if now - since >= KEEP_SECONDS:
                for family in self._by_model:
                    family.forget("model", model)


async def refuse(_accept: str) -> NoReturn:
    """Stand in for the figures of a service that keeps none.

    Raises:
        MetricsDisabledError: Always.
    """
    raise MetricsDisabledError
