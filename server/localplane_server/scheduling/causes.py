"""Why a backend is stopped."""

from __future__ import annotations

import enum


class StopCause(enum.Enum):
    """Why a backend is stopped."""

    REQUEST = "request"
    """Somebody asked for it."""
    CAPACITY = "capacity"
    """Another model needed its place."""
    MEMORY = "memory"
    """Another model needed its memory, or all together took more than there may be."""
    IDLE = "idle"
    """Nobody called it for long."""
    BUSY = "busy"
    """It worked for long and no call ended."""
    SHUTDOWN = "shutdown"
    """The service stops."""

    @property
    def is_wanted(self) -> bool:
        """Whether somebody wants the model not to be loaded: then calls do not wait to load it again."""
        return self in (StopCause.REQUEST, StopCause.SHUTDOWN)
