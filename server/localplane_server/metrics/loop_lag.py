"""How late the event loop is: what every call waits for when something holds the loop up."""

from __future__ import annotations

import asyncio
import time

from localplane_server.metrics.registry import MetricsRegistry

LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for the lag."""

INTERVAL_SECONDS = 0.5
"""Time between two measurements."""


class LoopLag:
    """Sleeps for a known time and observes by how much it woke too late."""

    def __init__(self, registry: MetricsRegistry) -> None:
        family = registry.histograms(
            "localplane_event_loop_lag_seconds",
            "By how much a timer of the service's event loop came too late, measured twice a second.",
            bounds=LAG_SECONDS,
        )
        self._lag = family.series()

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            # Not the loop's own clock: uvloop's stands still while a callback runs, and counts milliseconds.
            began = time.perf_counter()
            await asyncio.sleep(INTERVAL_SECONDS)
            self._lag.observe(max(0.0, time.perf_counter() - began - INTERVAL_SECONDS))
