"""Which process uses how much memory of which device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from localplane_server.resources.nvml import Nvml, NvmlUnavailableError
from localplane_server.resources.probe import Probe
from localplane_server.supervision.devices import DeviceReading

PATIENCE_SECONDS = 0.3
"""How long a caller waits; a driver may hang."""
FRESH_SECONDS = 1.0
"""How long a reading is good for."""

NOT_IN_TIME = "the driver has not answered in time"


class DeviceUses:
    """Reads NVIDIA's devices when somebody asks, once for all who ask within a second.

    Args:
        nvml: Reads them.
        patience_seconds: How long a caller waits.
        now: The clock.
    """

    def __init__(
        self,
        nvml: Nvml | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml or Nvml()
        self._probe = Probe("device uses", self._read, patience_seconds=patience_seconds)
        self._now = now
        self._last: tuple[float, DeviceReading] | None = None

    async def __call__(self) -> DeviceReading:
        """Return what was read within the last second; what was read before when the driver does not answer."""
        if self._last is None or self._now() - self._last[0] >= FRESH_SECONDS:
            try:
                return await self._probe()
            except TimeoutError:
                if self._last is None:
                    return DeviceReading(
                        uses=(), sampled_at=datetime.now(UTC), problems=(NOT_IN_TIME,)
                    )
                problems = (*self._last[1].problems, NOT_IN_TIME)
                return replace(self._last[1], problems=problems, told=frozenset())
        return self._last[1]

    def close(self) -> None:
        """Give NVIDIA's library back."""
        self._nvml.close()

    def _read(self) -> DeviceReading:
        sampled_at = datetime.now(UTC)
        try:
            uses, told, problems = self._nvml.uses()
        except NvmlUnavailableError as error:
            uses, told, problems = [], frozenset(), [str(error)]
        reading = DeviceReading(
            uses=tuple(uses), sampled_at=sampled_at, problems=tuple(problems), told=told
        )
        # Here: whoever asked may have lost patience.
        self._last = self._now(), reading
        return reading
