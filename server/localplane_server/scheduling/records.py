"""What the core of the scheduler remembers of one model."""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass, field

from localplane_server.scheduling.breaker import Breaker
from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.decisions import Ticket
from localplane_server.scheduling.device_share import DeviceShare
from localplane_server.scheduling.space import NOTHING, Space


class Phase(enum.Enum):
    """Whether a model has a backend, and for how long it will."""

    ABSENT = "absent"
    """There is no process."""
    STARTING = "starting"
    """A program was started and does not answer yet."""
    LOADING = "loading"
    """It answers and loads the model."""
    READY = "ready"
    """The model can be used."""
    STOPPING = "stopping"
    """It is being stopped."""
    SWEEPING = "sweeping"
    """It died, and what it left is being ended."""


WANTING = (Phase.ABSENT, Phase.STOPPING, Phase.SWEEPING)
"""Phases in which those who wait need the model to be loaded anew."""


@dataclass(slots=True, eq=False)
class ModelRecord:
    """One model that was ever asked for."""

    name: str
    """Name of the model."""
    breaker: Breaker = field(default_factory=Breaker)
    """Its circuit breaker."""
    phase: Phase = Phase.ABSENT
    """Whether it has a backend."""
    cause: StopCause | None = None
    """Why it is being stopped."""
    is_elsewhere: bool = False
    """Whether its backend runs where it takes nothing of what is shared here."""
    is_pinned: bool = False
    """Whether it never has to go for another, nor for want of calls."""
    needed: float = 0
    """Memory that it is thought to take, in bytes."""
    measured: float | None = None
    """Memory that its backend was seen to take."""
    devices: DeviceShare = field(default_factory=DeviceShare)
    """What it takes of devices."""
    waiting: deque[Ticket] = field(default_factory=deque)
    """Those who wait for it, in the order in which they came."""
    in_flight: int = 0
    """Calls that use it."""
    generation: int = 0
    """How often a load of it began."""
    began: float = 0.0
    """When the load began; when it began to load the model, once the program answers."""
    moved: float = 0.0
    """When the load was last seen to move."""
    is_given_up: bool = False
    """Whether the load was told to end."""
    ready_at: float = 0.0
    """When it became ready."""
    last_used: float = 0.0
    """When the last call ended, or when it became ready."""
    busy_since: float = 0.0
    """When the first of its calls began, or one ended since."""

    @property
    def holds(self) -> bool:
        """Whether it takes a place."""
        return self.phase is not Phase.ABSENT

    @property
    def needs(self) -> Space:
        """What it is thought to take once it is loaded."""
        return NOTHING if self.is_elsewhere else Space(1, self.needed, self.devices.needed)

    @property
    def takes(self) -> Space:
        """What it takes."""
        if not self.holds or self.is_elsewhere:
            return NOTHING
        is_growing = self.phase in (Phase.STARTING, Phase.LOADING)
        memory = self.needed if self.measured is None else self.measured
        if is_growing:
            # What loads is not yet as large as it is going to be.
            memory = max(memory, self.needed)
        return Space(1, memory, self.devices.taken(is_growing=is_growing))

    @property
    def first(self) -> float:
        """Number of the first one who waits. Infinite when nobody does."""
        return self.waiting[0].number if self.waiting else math.inf
