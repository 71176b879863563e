"""What the core of the scheduler decides, and who waits for it. Others carry it out."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from localplane_server.scheduling.causes import StopCause


class TicketState(enum.Enum):
    """What became of somebody who asked."""

    WAITING = "waiting"
    ADMITTED = "admitted"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Ticket:
    """Somebody who asks for a model: a call that wants to use it, or a load that wants it to be ready."""

    model: str
    """Name of the model."""
    is_call: bool
    """Whether it is a call. A load is done once the model is ready, and then holds nothing."""
    number: int
    """Position in the order in which all came."""
    arrived: float
    """When it came."""
    queue_until: float
    """How long it waits for a place."""
    deadline: float
    """How long it waits at all."""
    may_load: bool = True
    """Whether the model may be loaded because of it."""
    state: TicketState = TicketState.WAITING
    """What became of it."""
    generation: int = 0
    """Which load of the model it was admitted to."""


class Refusal(enum.Enum):
    """Why somebody who asked is sent away."""

    AUTOLOAD_DISABLED = "autoload_disabled"
    """The model is not loaded, and calls may not load it."""
    CAPACITY = "capacity"
    """There was no place in time."""
    CLOSED = "closed"
    """The service stops."""
    COOLDOWN = "cooldown"
    """The model failed again and again, and is left alone for a while."""
    DRAINING = "draining"
    """The backend is being stopped because somebody asked for that."""
    LOAD_ENDED = "load_ended"
    """The load that was waited for did not end well."""
    OVERDUE = "overdue"
    """The deadline of the call passed while the model was loading."""
    TOO_LARGE = "too_large"
    """The model would not fit if it were alone."""


@dataclass(frozen=True, slots=True)
class Admit:
    """Lets a call use its model, or tells a load that the model is ready."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Refuse:
    """Sends somebody away."""

    ticket: Ticket
    why: Refusal
    retry_seconds: float
    """When it may be worth to come again."""
    detail: str
    """More of the cause, for people."""


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Starts a backend and loads a model. There is a place for it."""

    model: str


@dataclass(frozen=True, slots=True)
class GiveUpLoad:
    """Ends a load that takes too long."""

    model: str
    seconds: float
    """How long nothing was seen to move, or how long it took altogether."""


@dataclass(frozen=True, slots=True)
class StopBackend:
    """Stops a backend without waiting for calls: there are none, or they are the cause."""

    model: str
    cause: StopCause


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Tells that a model is left alone for a while."""

    model: str
    seconds: float
    failures: int
    """How often it failed in a row."""


Decision = Admit | Refuse | StartLoad | GiveUpLoad | StopBackend | Cooldown
