"""What others see of a backend: where it is in its life, and what a stop did."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class BackendState(enum.Enum):
    """Where a backend is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSnapshot:
    """A backend, as last observed."""

    model: str
    """Name of the model."""
    backend: str
    """Name of the backend."""
    state: BackendState
    """Where it is in its life."""
    pid: int | None
    """Its process. None when it has none."""
    in_flight: int
    """Calls in flight."""
    last_error: str | None
    """Why it last failed. None when it has not."""
    restarts: int
    """How often it was started again after a failure."""
    loaded_at: datetime | None
    """When the model became ready. None when it is not loaded."""
    last_used: datetime | None
    """When the last call ended."""
    waiting: int = 0
    """Calls and loads that wait for it to be ready."""
    cooldown_until: datetime | None = None
    """Until when calls do not load it, since it failed again and again. None when it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """What a stop did."""

    seconds: float
    """How long it took."""
    freed_bytes: int | None
    """Memory that came back. None when it could not be read."""
    cut_calls: int
    """Calls in flight that were cut."""
