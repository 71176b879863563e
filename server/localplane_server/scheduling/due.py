"""When something of a model becomes due, if nothing happens before."""

from __future__ import annotations

import math

from localplane_server.scheduling.limits import Limits
from localplane_server.scheduling.records import ModelRecord, Phase


def wake_of(one: ModelRecord, limits: Limits, now: float) -> float:
    """Return when the first of it becomes due. Infinite: never."""
    overdue = overdue_at(one, limits)
    # What is overdue already stays so until something happens.
    wake = overdue if overdue > now else math.inf
    if one.phase is Phase.LOADING and not one.is_given_up:
        wake = min(wake, load_until(one, limits))
    if one.phase is Phase.READY:
        wake = min(wake, busy_until(one, limits), idle_until(one, limits))
    is_loading = one.phase in (Phase.STARTING, Phase.LOADING)
    for ticket in one.waiting:
        wake = min(wake, ticket.deadline if is_loading else ticket.queue_until)
    return wake


def load_until(one: ModelRecord, limits: Limits) -> float:
    """Return when its load is given up: one that moves may take longer, but not for ever."""
    longest = one.began + limits.longest_load_seconds
    return min(one.moved + limits.load_seconds, longest)


def overdue_at(one: ModelRecord, limits: Limits) -> float:
    """Return when its load should have ended, one way or the other. Infinite: it has no load."""
    if one.phase is Phase.STARTING:
        return one.began + limits.start_seconds + limits.overdue_seconds
    if one.phase is Phase.LOADING:
        return load_until(one, limits) + limits.overdue_seconds
    return math.inf


def busy_until(one: ModelRecord, limits: Limits) -> float:
    """Return when it goes for being busy too long. Infinite: it has no call."""
    return one.busy_since + limits.busy_seconds if one.in_flight else math.inf


def idle_until(one: ModelRecord, limits: Limits) -> float:
    """Return when it goes for want of calls. Infinite: it is in use, pinned or waited for."""
    is_idle = not one.in_flight and not one.is_pinned and not one.waiting
    return one.last_used + limits.idle_seconds if is_idle else math.inf
