"""The core of the scheduler, played with."""

from __future__ import annotations

from typing import Any

from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.core import Core, Decisions
from localplane_server.scheduling.decisions import (
    Admit,
    Refusal,
    Refuse,
    StartLoad,
    StopBackend,
    Ticket,
)
from localplane_server.scheduling.limits import Limits
from localplane_server.scheduling.records import Phase


class Play:
    """A core, the time, and what it decided last."""

    def __init__(self, **limits: Any) -> None:
        self.core = Core(Limits(**limits))
        self.now = 0.0
        self.decided: Decisions = []

    def call(self, model: str, **options: Any) -> Ticket:
        ticket, self.decided = self.core.call(model, self.now, **options)
        return ticket

    def load(self, model: str, **options: Any) -> Ticket:
        ticket, self.decided = self.core.load(model, self.now, **options)
        return ticket

    def tell(self, what: str, *arguments: Any, **options: Any) -> Decisions:
        self.decided = getattr(self.core, what)(*arguments, self.now, **options)
        return self.decided

    def ready(self, model: str) -> Decisions:
        self.tell("answers", model)
        return self.tell("ready", model)

    def used(self, model: str) -> Ticket:
        """Load a model for a call, which goes on."""
        ticket = self.call(model)
        self.ready(model)
        return ticket

    def idle(self, model: str) -> None:
        """Load a model and call it once."""
        self.end(self.used(model))

    def end(self, ticket: Ticket, *, is_well: bool = True) -> Decisions:
        return self.tell("call_ended", ticket, is_well=is_well)

    def at(self, now: float) -> Decisions:
        """Go on to a time, by all that the core wants to be woken for; return the decisions."""
        decided: Decisions = []
        while (wake := self.core.next_wake(self.now)) <= now:
            self.now = max(self.now, wake)
            decided += self.core.tick(self.now)
        self.now = now
        self.decided = decided + self.core.tick(now)
        return self.decided

    def phase(self, model: str) -> Phase:
        return self.core.record(model).phase

    @property
    def stops(self) -> list[tuple[str, StopCause]]:
        return [(one.model, one.cause) for one in self.decided if isinstance(one, StopBackend)]

    @property
    def starts(self) -> list[str]:
        return [one.model for one in self.decided if isinstance(one, StartLoad)]

    @property
    def admitted(self) -> list[Ticket]:
        return [one.ticket for one in self.decided if isinstance(one, Admit)]

    @property
    def refusals(self) -> list[Refusal]:
        return [one.why for one in self.decided if isinstance(one, Refuse)]
