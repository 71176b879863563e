"""The deadline of the call that is being served, for those who would otherwise wait longer than it."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def set_deadline(remaining_seconds: float | None) -> None:
    """Tell when the call of the present task is due; None when it has no deadline."""
    due = math.inf if remaining_seconds is None else time.monotonic() + remaining_seconds
    _deadline.set(due)


def deadline() -> float:
    """Return when the call is due, on the monotonic clock. Infinite when it is not, and outside of calls."""
    return _deadline.get()
