"""All families of one service, and how they are written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from localplane_server.metrics.families import (
    Count,
    CounterFamily,
    Family,
    HistogramFamily,
    ReadFamily,
    Readings,
)

PLAIN = "text/plain"
OPENMETRICS = "application/openmetrics-text"

PLAIN_TYPE = f"{PLAIN}; version=0.0.4; charset=utf-8"
"""Media type of Prometheus' own text format."""
OPENMETRICS_TYPE = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
"""Media type of OpenMetrics."""


class MetricsRegistry:
    """The families of one service. Two services in one process do not share any."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._families: list[Family] = []
        self._dropped = CounterFamily(
            "localplane_metrics_dropped_total",
            "Updates that were not counted because their family was full.",
            ("family",),
            Count(),
        )
        self._add(self._dropped)
        ProcessCollector(registry=self._registry)

    @property
    def families(self) -> Sequence[Family]:
        """Our families; those of the process collector are the library's."""
        return self._families

    def counters(self, name: str, text: str, labels: Sequence[str] = ()) -> CounterFamily:
        """Add a family of counters."""
        family = CounterFamily(name, text, labels, self._dropped.series(name))
        self._add(family)
        return family

    def histograms(
        self, name: str, text: str, labels: Sequence[str] = (), *, bounds: Sequence[float]
    ) -> HistogramFamily:
        """Add a family of histograms; the last bucket, for all above the bounds, is added."""
        family = HistogramFamily(name, text, labels, self._dropped.series(name), bounds=bounds)
        self._add(family)
        return family

    def readings(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        kind: Literal["counter", "gauge"] = "gauge",
        read: Callable[[], Readings],
    ) -> None:
        """Add a family that is read when it is asked for, from memory."""
        dropped = self._dropped.series(name)
        self._add(ReadFamily(name, text, labels, dropped, kind=kind, read=read))

    async def written(self, accept: str) -> tuple[bytes, str]:
        """Return all families as text, and its media type.

        The figures are taken at once. They become text in a thread: with some thousands of lines that takes longer than
        calls should wait.

        Args:
            accept: What the caller prefers, as in the header of HTTP. Empty: no preference.
        """
        taken = _Taken(list(self._registry.collect()))
        if prefers_openmetrics(accept):
            return await asyncio.to_thread(openmetrics.generate_latest, taken), OPENMETRICS_TYPE
        return await asyncio.to_thread(generate_latest, taken), PLAIN_TYPE

    def _add(self, family: Family) -> None:
        self._registry.register(family)
        self._families.append(family)


class _Taken:
    """Families as they were at one moment."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """Return them."""
        return self._families


def prefers_openmetrics(accept: str) -> bool:
    """Return whether OpenMetrics is asked for, and nothing that is also possible is liked better.

    The library's own choice fails at a version that is no number, and answers with whatever version it was asked for.
    """
    wishes = {OPENMETRICS: 0.0, PLAIN: 0.0}
    for part in accept.lower().split(","):
        media_type, *parameters = (word.strip() for word in part.split(";"))
        if media_type in wishes:
            wishes[media_type] = max(wishes[media_type], _quality(parameters))
    return wishes[OPENMETRICS] > 0 and wishes[OPENMETRICS] >= wishes[PLAIN]


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
