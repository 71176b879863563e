"""What the core of the scheduler remembers of one model."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from localplane_server.scheduling.breaker import Breaker
from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.decisions import Ticket
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
    needed_on_devices: Mapping[str, float] = field(default_factory=dict)
    """Memory of devices that it is thought to take: the most that it was seen to take when it was last loaded."""
    on_devices: Mapping[str, float] | None = None
    """Memory of devices that its backend was seen to take. None: it was not seen yet."""
    most_on_devices: Mapping[str, float] = field(default_factory=dict)
    """The most of that since its load began."""
    is_seen_loaded: bool = False
    """Whether it was seen to take that while the model was loaded."""
    is_next_alone: bool = False
    """Whether its next load is given the devices for itself: the last one failed for want of memory beside others."""
    alone: Mapping[str, float] | None = None
    """What it was given so, until it is seen what it takes. None: it was not."""
    has_failed_alone: bool = False
    """Whether that did not help, so that nobody has to go for it in vain again."""
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
        return NOTHING if self.is_elsewhere else Space(1, self.needed, self.needed_on_devices)

    @property
    def takes(self) -> Space:
        """What it takes."""
        if not self.holds or self.is_elsewhere:
            return NOTHING
        memory = self.needed if self.measured is None else self.measured
        on_devices = self.needed_on_devices if self.on_devices is None else self.on_devices
        if self.alone is not None and not self.is_seen_loaded:
            on_devices = larger(on_devices, self.alone)
        if self.phase in (Phase.STARTING, Phase.LOADING):
            # What loads is not yet as large as it is going to be.
            memory = max(memory, self.needed)
            on_devices = larger(on_devices, self.needed_on_devices)
        return Space(1, memory, on_devices)

    @property
    def first(self) -> float:
        """Number of the first one who waits. Infinite when nobody does."""
        return self.waiting[0].number if self.waiting else math.inf


def larger(one: Mapping[str, float], other: Mapping[str, float]) -> Mapping[str, float]:
    """Return what is larger of each device."""
    if one is other or not other:
        return one
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in {**one, **other}}
