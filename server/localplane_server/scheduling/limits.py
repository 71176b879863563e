"""How many backends may be loaded, how much memory they may take, and for how long anything may last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

PROGRAM_BYTES = 128 * 1024 * 1024
"""Memory that a backend is thought to take besides its model."""
WORK_SHARE = 1 / 8
"""What a model is thought to need to work, such as its key-value cache, as a share of its file."""


def needed_bytes(file_bytes: int) -> int:
    """Return the memory that a model is thought to take, by the size of its file.

    It only has to do until the model is loaded and can be measured.
    """
    return file_bytes + int(file_bytes * WORK_SHARE) + PROGRAM_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that the scheduler keeps. Times are in seconds; infinity means none."""

    most_backends: float = math.inf
    """Backends that there may be at a time."""
    memory_bytes: float = math.inf
    """Memory that they may take together."""
    devices: Mapping[str, float] = field(default_factory=dict)
    """Memory that they may take together on each device. No other device is counted."""
    queue_seconds: float = 60.0
    """How long one who asks for a model waits for a place."""
    residency_seconds: float = 1.0
    """How long a model stays once it is loaded, even if nobody uses it and another waits."""
    turn_seconds: float = 5.0
    """How long a model that is used goes on to be lent while another one waits for its place."""
    idle_seconds: float = math.inf
    """How long a model stays that nobody uses."""
    busy_seconds: float = math.inf
    """How long a backend may work without any call coming to its end."""
    load_seconds: float = 120.0
    """How long a load may go on without being seen to move."""
    longest_load_seconds: float = 1200.0
    """How long it may take, however it moves."""
    start_seconds: float = 180.0
    """How long a program may take until it answers; whoever starts it gives up earlier."""
    overdue_seconds: float = 30.0
    """How long the end of a load that was given up may take before something must be wrong with the service."""

    @property
    def shortest_turn_seconds(self) -> float:
        """How long the turn of a model that is used lasts at least."""
        return max(self.turn_seconds, self.residency_seconds)
