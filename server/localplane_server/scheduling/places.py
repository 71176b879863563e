"""Who gets the next place, and who has to go for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.device_share import larger
from localplane_server.scheduling.limits import Limits
from localplane_server.scheduling.records import WANTING, ModelRecord, Phase
from localplane_server.scheduling.space import NOTHING, Space


@dataclass(slots=True)
class Plan:
    """What is to be done now, and when to look again."""

    starts: list[ModelRecord] = field(default_factory=list)
    """Models to load; there is space for all of them."""
    stops: list[tuple[ModelRecord, StopCause]] = field(default_factory=list)
    """Backends that nobody uses, to be stopped for others."""
    yields: dict[ModelRecord, float] = field(default_factory=dict)
    """Backends in use that lend no more to those who came after this number, so that they can be stopped."""
    wake: float = math.inf
    """When something may have become possible just by the passing of time."""


def free_space(records: Iterable[ModelRecord], limits: Limits) -> Space:
    """Return what no backend takes."""
    space = Space(limits.most_backends, limits.memory_bytes, limits.devices)
    for one in records:
        space = space.minus(one.takes)
    return space


def needed_space(one: ModelRecord, records: Iterable[ModelRecord], limits: Limits) -> Space:
    """Return what a model needs to be loaded: what it is thought to take, or all of the devices that may be had."""
    if not one.devices.is_next_alone or one.is_elsewhere:
        return one.needs
    pinned = [other for other in records if other.is_pinned and other is not one]
    alone = {
        device: budget - sum(other.takes.devices.get(device, 0) for other in pinned)
        for device, budget in limits.devices.items()
        if not math.isinf(budget)
    }
    return one.needs._replace(devices=larger(one.needs.devices, alone))


def plan(records: Sequence[ModelRecord], limits: Limits, now: float) -> Plan:
    """Decide who is loaded and who goes.

    Whoever came first is served first. One who has to wait for a backend in use may be overtaken by others for whom
    there is space already, but only for as long as a turn lasts: then the space is kept for them.
    """
    return _Planning(records, limits, now).plan()


class _Planning:
    """The making of one plan."""

    def __init__(self, records: Sequence[ModelRecord], limits: Limits, now: float) -> None:
        self._records = records
        self._limits = limits
        self._now = now
        self._made = Plan()
        self._free = free_space(records, limits)
        # What there will be once everything that ends has ended, and those before have what they need.
        self._pool = self._free
        for one in records:
            if one.phase in (Phase.STOPPING, Phase.SWEEPING):
                self._pool = self._pool.plus(one.takes)
        self._taken: set[ModelRecord] = set()

    def plan(self) -> Plan:
        wanting = [one for one in self._records if one.waiting and one.phase in WANTING]
        for one in sorted(wanting, key=lambda one: one.first):
            if not self._serve(one):
                break
        return self._made

    def _serve(self, one: ModelRecord) -> bool:
        """Find a place for one model; return whether those behind it may have one before it."""
        need = needed_space(one, self._records, self._limits)
        if not self._pool.covers(need):
            missing = self._pool.short_of(need)
            chosen = self._chosen(one, missing)
            if chosen is None and not self._is_possible(missing):
                return True
            self._taken.update(chosen or ())
            is_served_soon = chosen is not None and self._let_go(one, chosen, missing)
            patient_until = one.waiting[0].arrived + self._limits.turn_seconds
            if not is_served_soon and self._now < patient_until:
                self._look_at(patient_until)
                return True
            if chosen is None:
                return False
            for victim in chosen:
                self._pool = self._pool.plus(victim.takes)
        elif one.phase is Phase.ABSENT and self._free.covers(need):
            self._made.starts.append(one)
            self._free = self._free.minus(need)
        self._pool = self._pool.minus(need)
        return True

    def _chosen(self, wanting: ModelRecord, missing: Space) -> list[ModelRecord] | None:
        """Return who goes so that the missing space comes about. None when not enough can be made to go yet."""
        idle: list[ModelRecord] = []
        used: list[ModelRecord] = []
        wake = math.inf
        for one in self._records:
            if one.phase is not Phase.READY or one.is_pinned or one in self._taken:
                continue
            is_idle = not _is_used(one, wanting)
            limits = self._limits
            stays = limits.residency_seconds if is_idle else limits.shortest_turn_seconds
            if self._now < one.ready_at + stays:
                wake = min(wake, one.ready_at + stays)
            elif is_idle:
                idle.append(one)
            else:
                used.append(one)
        idle.sort(key=lambda one: one.last_used)
        used.sort(key=lambda one: one.ready_at)
        chosen = _enough([*idle, *used], missing)
        if chosen is None:
            self._look_at(wake)
        return chosen

    def _let_go(self, wanting: ModelRecord, chosen: Sequence[ModelRecord], missing: Space) -> bool:
        """Have those chosen go, and return whether they go at once.

        If one of them is in use, none is stopped yet and all yield: otherwise they could be used in turns for ever.
        """
        if any(_is_used(one, wanting) for one in chosen):
            self._made.yields |= dict.fromkeys(chosen, wanting.first)
            return False
        cause = StopCause.CAPACITY if missing.places > 0 else StopCause.MEMORY
        self._made.stops += [(victim, cause) for victim in chosen]
        return True

    def _is_possible(self, missing: Space) -> bool:
        """Whether the missing space could come about at all, if everybody who may be made to go went."""
        space = NOTHING
        for one in self._records:
            is_there = one.phase in (Phase.STARTING, Phase.LOADING, Phase.READY)
            if is_there and not one.is_pinned and one not in self._taken:
                space = space.plus(one.takes)
        return space.covers(missing)

    def _look_at(self, moment: float) -> None:
        self._made.wake = min(self._made.wake, moment)


def shrink(records: Sequence[ModelRecord], limits: Limits, now: float) -> Plan:
    """Decide who goes because backends grew beyond the memory that they may take together, here or on a device.

    The last one stays, as does the last one on a device: stopped, it would only be loaded again and grow again.
    """
    made = Plan()
    staying = [
        one
        for one in records
        if one.takes.places and one.phase not in (Phase.STOPPING, Phase.SWEEPING)
    ]
    for one in sorted(_idle(records), key=lambda one: one.last_used):
        if not _relieves(one, staying, limits):
            continue
        if now < one.ready_at + limits.residency_seconds:
            made.wake = min(made.wake, one.ready_at + limits.residency_seconds)
            continue
        made.stops.append((one, StopCause.MEMORY))
        staying.remove(one)
    return made


def _relieves(one: ModelRecord, staying: Sequence[ModelRecord], limits: Limits) -> bool:
    """Whether those that stay take too much of something that one of them takes, and not alone."""
    if one not in staying:
        return False
    left = free_space(staying, limits)
    if left.memory < 0 and len(staying) > 1:
        return True
    return any(
        left.devices.get(device, 0) < 0
        and bytes_ > 0
        and sum(1 for other in staying if other.takes.devices.get(device, 0) > 0) > 1
        for device, bytes_ in one.takes.devices.items()
    )


def _enough(candidates: Sequence[ModelRecord], missing: Space) -> list[ModelRecord] | None:
    """Return as few as needed, the first ones rather than the last. None when all are not enough."""
    chosen: list[ModelRecord] = []
    space = NOTHING
    for one in candidates:
        if space.covers(missing):
            break
        chosen.append(one)
        space = space.plus(one.takes)
    if not space.covers(missing):
        return None
    for one in chosen[::-1]:
        less = space.minus(one.takes)
        if less.covers(missing):
            chosen.remove(one)
            space = less
    return chosen


def _is_used(one: ModelRecord, wanting: ModelRecord) -> bool:
    """Whether somebody uses a backend, or came before those who want its place and is about to."""
    return one.in_flight > 0 or one.first < wanting.first


def _idle(records: Iterable[ModelRecord]) -> Iterable[ModelRecord]:
    return (
        one
        for one in records
        if one.phase is Phase.READY and not one.is_pinned and not one.in_flight and not one.waiting
    )
