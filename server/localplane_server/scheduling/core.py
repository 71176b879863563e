"""The core of the scheduler: what happens comes in, what is to be done comes out.

It starts nothing, waits for nothing and has no clock: every input tells the time. So every rule can be tried out in
any order of events, in no time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import count

from localplane_server.scheduling import due, places
from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.decisions import (
    Admit,
    Cooldown,
    Decision,
    GiveUpLoad,
    Refusal,
    Refuse,
    StartLoad,
    StopBackend,
    Ticket,
    TicketState,
)
from localplane_server.scheduling.limits import Limits
from localplane_server.scheduling.records import WANTING, ModelRecord, Phase

RETRY_SECONDS = 1.0
"""When one who was sent away because of a stop may come again."""
SETTLED_SECONDS = 300.0
"""How long a backend must have been ready for its earlier failures to be forgotten, even if nobody called it."""
ANSWER_SECONDS, ANSWER_SHARE = 0.25, 0.1
"""How much of a deadline is kept for the answer to reach the caller, at most: seconds, and a share of it."""

Decisions = list[Decision]


class Core:
    """Decides which models are loaded and whose calls may use them.

    Args:
        limits: The limits that it keeps.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        """The limits that it keeps."""
        self.is_closed = False
        """Whether nobody is admitted any more."""
        self._records: dict[str, ModelRecord] = {}
        self._numbers = count(1)
        self._yields: dict[ModelRecord, float] = {}
        self._plan_wake = math.inf
        self._waiting = 0

    # What others see

    def record(self, model: str) -> ModelRecord:
        """Return what is remembered of a model; only to look at."""
        found = self._records.get(model)
        if found is None:
            found = self._records[model] = ModelRecord(model)
        return found

    def records(self) -> Iterable[ModelRecord]:
        """Return what is remembered of all models; only to look at."""
        return self._records.values()

    def is_too_large(self, model: str) -> bool:
        """Whether a model would not fit if it were alone."""
        return self.record(model).needs.memory > self.limits.memory_bytes

    def overdue(self, now: float) -> list[str]:
        """Return the models whose loads should have ended by now, one way or the other."""
        return [
            one.name for one in self._records.values() if now >= due.overdue_at(one, self.limits)
        ]

    def next_wake(self, now: float) -> float:
        """Return when `tick` has something to do, if nothing else happens before. Infinite: never."""
        return min(
            (
                self._plan_wake,
                *(due.wake_of(one, self.limits, now) for one in self._records.values()),
            )
        )

    # What is known of models

    def describe(
        self,
        model: str,
        *,
        needed: float | None = None,
        is_pinned: bool = False,
        is_elsewhere: bool = False,
    ) -> None:
        """Tell what a model is thought to take, and whether it is pinned.

        Args:
            model: Name of the model.
            needed: Bytes that it takes. None: what was told before. While the model is loaded, it changes nothing.
            is_pinned: Whether it never has to go for another, nor for want of calls.
            is_elsewhere: Whether its backend runs where it takes no place and no memory of what is shared here. While
                the model is loaded, it changes nothing.
        """
        one = self.record(model)
        one.is_pinned = is_pinned
        if one.phase is Phase.ABSENT:
            one.needed = one.needed if needed is None else needed
            one.is_elsewhere = is_elsewhere

    def equip(self, budgets: Mapping[str, float]) -> None:
        """Tell what backends may take together on devices; of devices that are not named, what was told before."""
        if any(self.limits.devices.get(device) != budget for device, budget in budgets.items()):
            self.limits = replace(self.limits, devices={**self.limits.devices, **budgets})
            for one in self._records.values():
                one.devices.bound(self.limits.devices)

    def measured(
        self,
        model: str,
        held: float,
        now: float,
        *,
        devices: Mapping[str, float | None] | None = None,
        told: Collection[str] | None = None,
    ) -> Decisions:
        """Take note of the memory that a backend was seen to take.

        Args:
            model: Name of the model.
            held: Memory of the machine.
            now: The time.
            devices: Memory of devices. Those without a budget do not count. None, for all or for one of them: it was
                not seen this time.
            told: Devices of which it was seen, whether it takes any or not. None: all.
        """
        one = self.record(model)
        if one.phase in (Phase.STARTING, Phase.LOADING, Phase.READY):
            one.measured = held
            if devices is not None:
                is_loaded = one.phase is Phase.READY
                one.devices.see(devices, told, self.limits.devices, is_loaded=is_loaded)
        return self._next(now)

    # Who asks

    def call(
        self, model: str, now: float, *, deadline: float = math.inf, may_load: bool = True
    ) -> tuple[Ticket, Decisions]:
        """Take a call that wants to use a model.

        Args:
            model: Name of the model.
            now: The time.
            deadline: How long the call waits at all.
            may_load: Whether the model may be loaded because of it.
        """
        one = self.record(model)
        ticket = self._ticket(one, now, deadline, is_call=True, may_load=may_load)
        if one.phase is Phase.READY and one not in self._yields:
            return ticket, [self._admit(one, ticket, now)]
        if self.is_closed:
            return ticket, [self._refuse(ticket, Refusal.CLOSED)]
        if one.phase is Phase.STOPPING and one.cause is not None and one.cause.is_wanted:
            return ticket, [self._refuse(ticket, Refusal.DRAINING)]
        is_coming = one.phase in (Phase.STARTING, Phase.LOADING, Phase.READY)
        if not is_coming and not may_load:
            return ticket, [self._refuse(ticket, Refusal.AUTOLOAD_DISABLED)]
        if not is_coming and (left := one.breaker.remaining(now)):
            return ticket, [self._refuse(ticket, Refusal.COOLDOWN, left)]
        return ticket, self._wait(one, ticket, now)

    def load(
        self, model: str, now: float, *, deadline: float = math.inf, is_patient: bool = True
    ) -> tuple[Ticket, Decisions]:
        """Take somebody who wants a model to be loaded. That it failed before does not matter: they may know better.

        Args:
            model: Name of the model.
            now: The time.
            deadline: How long they wait.
            is_patient: Whether they wait for a place, and others may go for it. Otherwise it is now or never.
        """
        one = self.record(model)
        ticket = self._ticket(one, now, deadline, is_call=False)
        if self.is_closed:
            return ticket, [self._refuse(ticket, Refusal.CLOSED)]
        if one.phase is Phase.READY:
            return ticket, [self._admit(one, ticket, now)]
        if not is_patient and one.phase in WANTING and not self._has_place_for(one):
            why = Refusal.TOO_LARGE if self.is_too_large(model) else Refusal.CAPACITY
            return ticket, [self._refuse(ticket, why, detail=self._taken_by())]
        return ticket, self._wait(one, ticket, now)

    def withdraw(self, ticket: Ticket, now: float) -> Decisions:
        """Take note that somebody who waits went away. What was begun for them goes on."""
        if ticket.state is not TicketState.WAITING:
            return []
        self._leave(ticket)
        return self._next(now)

    def call_ended(self, ticket: Ticket, now: float, *, is_well: bool) -> Decisions:
        """Take note that an admitted call ended.

        Args:
            ticket: The call.
            now: The time.
            is_well: Whether it showed that the backend works.
        """
        one = self.record(ticket.model)
        if ticket.state is not TicketState.ADMITTED:
            return []
        ticket.state = TicketState.ENDED
        if ticket.generation != one.generation or not one.in_flight:
            # It was cut, and the backend it used is gone.
            return []
        one.in_flight -= 1
        one.last_used = one.busy_since = now
        if is_well:
            one.breaker.succeed()
        return self._next(now) if self._waiting and not one.in_flight else []

    # What becomes of backends

    def answers(self, model: str, now: float) -> Decisions:
        """Take note that a program answers and begins to load its model."""
        one = self.record(model)
        if one.phase is Phase.STARTING:
            one.phase = Phase.LOADING
            one.began = one.moved = now
        return []

    def moved(self, model: str, now: float) -> Decisions:
        """Take note that a load was seen to move: it may take longer."""
        self.record(model).moved = now
        return []

    def ready(self, model: str, now: float) -> Decisions:
        """Take note that a model was loaded."""
        one = self.record(model)
        one.phase = Phase.READY
        one.ready_at = one.last_used = now
        # What was seen during the load is less than what it has come to.
        one.measured = None
        one.devices.loaded(self.limits.devices)
        decided: Decisions = [self._admit(one, ticket, now) for ticket in list(one.waiting)]
        return decided + self._next(now)

    def load_ended(
        self, model: str, now: float, *, is_failure: bool, is_shortage: bool = False
    ) -> Decisions:
        """Take note that a load ended badly and nothing of it is left.

        Args:
            model: Name of the model.
            now: The time.
            is_failure: Whether the model or its backend failed. Otherwise the service could not even start it.
            is_shortage: Whether it said that there was too little memory.
        """
        one = self.record(model)
        if is_failure:
            one.devices.failed(is_for_memory=is_shortage and self._has_neighbours(one))
        decided = self._failed(one, now) if is_failure else []
        self._vacate(one)
        decided += [self._refuse(ticket, Refusal.LOAD_ENDED) for ticket in list(one.waiting)]
        return decided + self._next(now)

    def died(self, model: str, now: float) -> Decisions:
        """Take note that the process of a loaded model ended by itself. `gone` follows."""
        one = self.record(model)
        if now - one.ready_at >= SETTLED_SECONDS:
            one.breaker.succeed()
        decided = self._failed(one, now)
        one.phase = Phase.SWEEPING
        one.in_flight = 0
        return decided + self._next(now)

    def gone(self, model: str, now: float) -> Decisions:
        """Take note that nothing is left of a backend that was stopped, or that died."""
        one = self.record(model)
        self._vacate(one)
        stranded = [ticket for ticket in one.waiting if not ticket.may_load]
        decided: Decisions = [
            self._refuse(ticket, Refusal.AUTOLOAD_DISABLED) for ticket in stranded
        ]
        return decided + self._next(now)

    def stop(self, model: str, now: float) -> Decisions:
        """Take note that somebody has a backend stopped: whoever waits for it is sent away."""
        one = self.record(model)
        decided: Decisions = [
            self._refuse(ticket, Refusal.DRAINING) for ticket in list(one.waiting)
        ]
        if one.phase in (Phase.STARTING, Phase.LOADING, Phase.READY, Phase.STOPPING):
            one.phase, one.cause = Phase.STOPPING, StopCause.REQUEST
        return decided + self._next(now)

    def forget(self, model: str) -> None:
        """Forget how a model failed and what it took: its files are others now."""
        one = self.record(model)
        one.breaker.succeed()
        if one.holds:
            one.devices.may_try_again()
        else:
            one.measured = None
            one.devices.forget()

    def forget_devices(self, model: str) -> None:
        """Forget what a model that is not loaded took on devices: it is set up in another way now."""
        self.record(model).devices.forget()

    def close(self, now: float) -> Decisions:
        """Admit nobody any more."""
        self.is_closed = True
        decided: Decisions = []
        for one in self._records.values():
            decided += [self._refuse(ticket, Refusal.CLOSED) for ticket in list(one.waiting)]
            if one.holds and one.phase is not Phase.SWEEPING:
                one.phase, one.cause = Phase.STOPPING, StopCause.SHUTDOWN
        return decided

    def tick(self, now: float) -> Decisions:
        """Do what has become due."""
        return self._next(now)

    # Decisions

    def _next(self, now: float) -> Decisions:
        """Decide what follows from what happened: in an order in which nothing is decided twice."""
        decided: Decisions = []
        if self.is_closed:
            return decided
        for one in self._records.values():
            self._expire(one, now, decided)
            self._limit(one, now, decided)
        self._place(now, decided)
        for one in self._records.values():
            self._expire(one, now, decided, is_new=True)
        for one in self._records.values():
            if one.phase is Phase.READY and one.waiting:
                last = self._yields.get(one, math.inf)
                while one.waiting and one.first < last:
                    decided.append(self._admit(one, one.waiting[0], now))
        return decided

    def _expire(
        self, one: ModelRecord, now: float, decided: Decisions, *, is_new: bool = False
    ) -> None:
        """Send those away who waited long enough; those who have only just come, once there was no place for them."""
        is_loading = one.phase in (Phase.STARTING, Phase.LOADING)
        for ticket in list(one.waiting):
            if ticket.arrived >= now and not is_new:
                continue
            if is_loading and now >= ticket.deadline:
                decided.append(self._refuse(ticket, Refusal.OVERDUE))
            elif one.phase is Phase.ABSENT and self.is_too_large(one.name):
                decided.append(self._refuse(ticket, Refusal.TOO_LARGE))
            elif not is_loading and now >= ticket.queue_until:
                retry = self.limits.turn_seconds
                decided.append(self._refuse(ticket, Refusal.CAPACITY, retry, self._taken_by()))

    def _limit(self, one: ModelRecord, now: float, decided: Decisions) -> None:
        if (
            one.phase is Phase.LOADING
            and not one.is_given_up
            and now >= due.load_until(one, self.limits)
        ):
            one.is_given_up = True
            seconds = self.limits.load_seconds
            if now - one.moved < seconds:
                seconds = self.limits.longest_load_seconds
            decided.append(GiveUpLoad(one.name, seconds))
        elif one.phase is Phase.READY and now >= due.busy_until(one, self.limits):
            decided.append(self._stop(one, StopCause.BUSY))
        elif one.phase is Phase.READY and now >= due.idle_until(one, self.limits):
            decided.append(self._stop(one, StopCause.IDLE))

    def _place(self, now: float, decided: Decisions) -> None:
        self._plan_wake = math.inf
        self._yields = {}
        if self._waiting:
            self._follow(places.plan(list(self._records.values()), self.limits, now), now, decided)
        self._follow(places.shrink(list(self._records.values()), self.limits, now), now, decided)

    def _follow(self, plan: places.Plan, now: float, decided: Decisions) -> None:
        self._plan_wake = min(self._plan_wake, plan.wake)
        self._yields |= plan.yields
        decided += [self._stop(one, cause) for one, cause in plan.stops]
        decided += [self._start(one, now) for one in plan.starts]

    def _start(self, one: ModelRecord, now: float) -> StartLoad:
        one.devices.begin(places.needed_space(one, self.records(), self.limits).devices)
        one.phase = Phase.STARTING
        one.generation += 1
        one.began = one.moved = now
        one.is_given_up = False
        return StartLoad(one.name)

    def _stop(self, one: ModelRecord, cause: StopCause) -> StopBackend:
        one.phase, one.cause = Phase.STOPPING, cause
        return StopBackend(one.name, cause)

    def _vacate(self, one: ModelRecord) -> None:
        one.phase, one.cause = Phase.ABSENT, None
        one.measured = None
        one.devices.left(self.limits.devices)
        one.in_flight = 0

    def _has_neighbours(self, one: ModelRecord) -> bool:
        """Whether others have memory of devices that they would have to give up."""
        return any(
            bytes_ > 0
            for other in self._records.values()
            if other is not one and not other.is_pinned
            for bytes_ in other.takes.devices.values()
        )

    def _failed(self, one: ModelRecord, now: float) -> Decisions:
        seconds = one.breaker.fail(now)
        return [Cooldown(one.name, seconds, one.breaker.failures)] if seconds else []

    def _has_place_for(self, one: ModelRecord) -> bool:
        """Whether a model could be loaded at once, and nobody waits who came earlier."""
        if one.holds or any(other.waiting and other.phase in WANTING for other in self.records()):
            return False
        need = places.needed_space(one, self.records(), self.limits)
        return places.free_space(self.records(), self.limits).covers(need)

    # Those who wait

    def _ticket(
        self,
        one: ModelRecord,
        now: float,
        deadline: float,
        *,
        is_call: bool,
        may_load: bool = True,
    ) -> Ticket:
        # The answer has to reach the caller while there is still somebody to read it.
        on_the_way = min(ANSWER_SECONDS, (deadline - now) * ANSWER_SHARE)
        return Ticket(
            one.name,
            is_call,
            next(self._numbers),
            now,
            min(now + self.limits.queue_seconds, deadline - on_the_way),
            deadline,
            may_load,
        )

    def _wait(self, one: ModelRecord, ticket: Ticket, now: float) -> Decisions:
        one.waiting.append(ticket)
        self._waiting += 1
        return self._next(now)

    def _leave(self, ticket: Ticket) -> None:
        ticket.state = TicketState.ENDED
        waiting = self.record(ticket.model).waiting
        if waiting and waiting[0] is ticket:
            waiting.popleft()
            self._waiting -= 1
        elif ticket in waiting:
            waiting.remove(ticket)
            self._waiting -= 1

    def _admit(self, one: ModelRecord, ticket: Ticket, now: float) -> Admit:
        self._leave(ticket)
        if ticket.is_call:
            ticket.state = TicketState.ADMITTED
            ticket.generation = one.generation
            if not one.in_flight:
                one.busy_since = now
            one.in_flight += 1
        return Admit(ticket)

    def _refuse(
        self, ticket: Ticket, why: Refusal, retry: float = RETRY_SECONDS, detail: str = ""
    ) -> Refuse:
        self._leave(ticket)
        return Refuse(ticket, why, retry, detail)

    def _taken_by(self) -> str:
        holders = [one for one in self._records.values() if one.takes.places]
        busy = sum(1 for one in holders if one.in_flight)
        pinned = sum(1 for one in holders if one.is_pinned)
        return f"{len(holders)} loaded, {busy} of them in use, {pinned} pinned"
