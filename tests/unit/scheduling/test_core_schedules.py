"""The core of the scheduler under any schedule that there may be."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.core import Core, Decisions
from localplane_server.scheduling.decisions import (
    Admit,
    Cooldown,
    GiveUpLoad,
    Refusal,
    Refuse,
    StartLoad,
    StopBackend,
    Ticket,
)
from localplane_server.scheduling.limits import Limits
from localplane_server.scheduling.records import Phase

EXAMPLES = int(os.environ.get("LOCALPLANE_FUZZ_EXAMPLES", "0"))
"""How many schedules are tried. 0: as many as are quick, the same ones each time."""
STEPS = 60
SCHEDULES = settings(
    max_examples=EXAMPLES * 10 or 300,
    stateful_step_count=STEPS,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

MODELS = "abcde"
NEEDS = {"a": 2, "b": 3, "c": 5, "d": 8, "e": 13}

DEVICES = {"g": 10, "h": 6}
"""What may be taken on each device."""

LIMITS = st.builds(
    Limits,
    most_backends=st.sampled_from([1, 2, 3, math.inf]),
    memory_bytes=st.sampled_from([8, 12, 20, math.inf]),
    queue_seconds=st.sampled_from([3.0, 60.0]),
    residency_seconds=st.sampled_from([0.0, 1.0, 7.0]),
    turn_seconds=st.sampled_from([1.0, 5.0]),
    idle_seconds=st.sampled_from([math.inf, 4.0]),
    busy_seconds=st.sampled_from([math.inf, 9.0]),
    load_seconds=st.just(10.0),
    longest_load_seconds=st.just(30.0),
    start_seconds=st.just(20.0),
    overdue_seconds=st.just(5.0),
)

ON_DEVICES = st.none() | st.dictionaries(
    st.sampled_from(sorted(DEVICES)), st.integers(0, 12), max_size=2
)
"""What a backend is seen to take on devices; more than there is, sometimes."""


class World:
    """What the core decides about: it does as it is told, and knows by itself what must never be."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.core = Core(limits)
        self.now = 100.0
        self.phases: dict[str, Phase] = dict.fromkeys(MODELS, Phase.ABSENT)
        self.causes: dict[str, StopCause] = {}
        self.held: dict[str, float] = {}
        self.on_devices: dict[str, dict[str, float]] = {}
        self.thought: dict[str, dict[str, float]] = {model: {} for model in MODELS}
        self.most: dict[str, dict[str, float]] = {}
        self.pinned: set[str] = set()
        self.ready_at: dict[str, float] = {}
        self.waiting: list[Ticket] = []
        self.in_flight: list[tuple[Ticket, int]] = []
        self.loads: dict[str, int] = dict.fromkeys(MODELS, 0)
        self.given_up: set[str] = set()
        self.seen: set[Phase] = set()
        self.answers: list[tuple[Ticket, Any, float]] = []
        self.starts: list[tuple[float, str]] = []
        for model in MODELS:
            self.core.describe(model, needed=NEEDS[model], is_pinned=False)
        self.core.equip(DEVICES)

    # What happens

    def ask(self, kind: str, model: str, **options: Any) -> Ticket:
        ask: Callable[..., tuple[Ticket, Decisions]] = getattr(self.core, kind)
        ticket, decided = ask(model, self.now, **options)
        self.waiting.append(ticket)
        self.obey(decided)
        return ticket

    def advance(self, seconds: float) -> None:
        """Let time pass, and tick whenever the core wants it."""
        end = self.now + seconds
        for _ in range(1000):
            wake = self.core.next_wake(self.now)
            if wake > end:
                break
            self.now = max(self.now, wake)
            self.obey(self.core.tick(self.now))
        else:
            raise AssertionError("it wants to be woken again and again")
        self.now = end

    def end_call(self, index: int, *, is_well: bool) -> None:
        ticket, _ = self.in_flight.pop(index)
        self.obey(self.core.call_ended(ticket, self.now, is_well=is_well))

    def ready(self, model: str) -> None:
        self.phases[model] = Phase.READY
        self.ready_at[model] = self.now
        self.obey(self.core.ready(model, self.now))

    def load_fails(self, model: str, *, is_failure: bool) -> None:
        self.vacate(model)
        # Every failure may be one for want of memory, so that what follows then is tried most.
        self.obey(
            self.core.load_ended(model, self.now, is_failure=is_failure, is_shortage=is_failure)
        )

    def die(self, model: str) -> None:
        self.phases[model] = Phase.SWEEPING
        self.obey(self.core.died(model, self.now))

    def go(self, model: str) -> None:
        self.vacate(model)
        self.obey(self.core.gone(model, self.now))

    def stop(self, model: str) -> None:
        if self.phases[model] in (Phase.STARTING, Phase.LOADING, Phase.READY, Phase.STOPPING):
            self.phases[model] = Phase.STOPPING
        self.obey(self.core.stop(model, self.now))

    def measure(self, model: str, held: float, devices: dict[str, float] | None = None) -> None:
        if self.phases[model] is Phase.READY:
            self.held[model] = held
            if devices is not None:
                self.on_devices[model] = devices
                most = self.most.get(model, {})
                self.most[model] = {
                    one: max(devices.get(one, 0), most.get(one, 0)) for one in {*devices, *most}
                }
        self.obey(self.core.measured(model, held, self.now, devices=devices))

    def vacate(self, model: str) -> None:
        self.phases[model] = Phase.ABSENT
        self.held.pop(model, None)
        self.on_devices.pop(model, None)
        if (most := self.most.pop(model, None)) is not None:
            self.thought[model] = {one: min(most[one], DEVICES[one]) for one in most}
        self.given_up.discard(model)

    # What is decided

    def obey(self, decided: Decisions) -> None:
        for one in decided:
            handler: Callable[[Any], None] = getattr(self, f"_{type(one).__name__}")
            handler(one)
        self.seen |= set(self.phases.values())

    def _Admit(self, one: Admit) -> None:  # noqa: N802 - after the class
        self._answered(one.ticket, one)
        assert self.phases[one.ticket.model] is Phase.READY
        if one.ticket.is_call:
            self.in_flight.append((one.ticket, self.loads[one.ticket.model]))

    def _Refuse(self, one: Refuse) -> None:  # noqa: N802
        self._answered(one.ticket, one)
        phase = self.phases[one.ticket.model]
        if one.why is Refusal.CAPACITY and self.now > one.ticket.arrived:
            assert self.now >= one.ticket.queue_until
            assert phase not in (Phase.STARTING, Phase.LOADING)
        if one.why is Refusal.TOO_LARGE:
            assert NEEDS[one.ticket.model] > self.limits.memory_bytes
        if one.why is Refusal.COOLDOWN:
            assert 0 < one.retry_seconds <= 300

    def _StartLoad(self, one: StartLoad) -> None:  # noqa: N802
        assert self.phases[one.model] is Phase.ABSENT
        self.phases[one.model] = Phase.STARTING
        self.held[one.model] = NEEDS[one.model]
        self.on_devices[one.model] = self.thought[one.model]
        self.loads[one.model] += 1
        self.starts.append((self.now, one.model))
        assert len(self.held) <= self.limits.most_backends
        assert sum(self.held.values()) <= self.limits.memory_bytes
        for device, needed in self.thought[one.model].items():
            assert not needed or self.taken(device) <= DEVICES[device]

    def _GiveUpLoad(self, one: GiveUpLoad) -> None:  # noqa: N802
        assert self.phases[one.model] is Phase.LOADING
        assert one.model not in self.given_up
        self.given_up.add(one.model)

    def _StopBackend(self, one: StopBackend) -> None:  # noqa: N802
        assert self.phases[one.model] is Phase.READY
        calls = [t for t, load in self.in_flight if self._is_now(t, load, one.model)]
        if one.cause is StopCause.BUSY:
            assert calls
        else:
            assert [] == calls
            assert one.model not in self.pinned
        if one.cause in (StopCause.CAPACITY, StopCause.MEMORY):
            assert self.now >= self.ready_at[one.model] + self.limits.residency_seconds
        if one.cause is StopCause.MEMORY and not self.waiting:
            assert self.is_overgrown()
        self.phases[one.model] = Phase.STOPPING
        self.causes[one.model] = one.cause

    def _Cooldown(self, one: Cooldown) -> None:  # noqa: N802
        assert 1 <= one.seconds <= 300
        assert one.failures >= 2

    def taken(self, device: str) -> float:
        """Return what is taken on a device."""
        return sum(one.get(device, 0) for one in self.on_devices.values())

    def is_overgrown(self) -> bool:
        """Whether those that stay take too much of anything together."""
        left = [
            model
            for model in self.held
            if self.phases[model] not in (Phase.STOPPING, Phase.SWEEPING)
        ]
        if sum(self.held[model] for model in left) > self.limits.memory_bytes and len(left) > 1:
            return True
        for device, budget in DEVICES.items():
            taken = [self.on_devices[model].get(device, 0) for model in left]
            if sum(taken) > budget and sum(1 for one in taken if one) > 1:
                return True
        return False

    def _answered(self, ticket: Ticket, answer: Any) -> None:
        # Each is answered once, and no later than its deadline.
        assert any(one is ticket for one in self.waiting)
        self.waiting = [one for one in self.waiting if one is not ticket]
        assert self.now <= ticket.deadline
        self.answers.append((ticket, answer, self.now))

    def _is_now(self, ticket: Ticket, load: int, model: str) -> bool:
        return ticket.model == model and load == self.loads[model]

    # What must be so at any time

    def check(self) -> None:
        """Compare what the core believes with what is so."""
        for model, phase in self.phases.items():
            record = self.core.record(model)
            assert phase is record.phase, model
            calls = [1 for ticket, load in self.in_flight if self._is_now(ticket, load, model)]
            if phase is Phase.READY:
                assert len(calls) == record.in_flight
        for ticket in self.waiting:
            phase = self.phases[ticket.model]
            is_loading = phase in (Phase.STARTING, Phase.LOADING)
            assert self.now <= (ticket.deadline if is_loading else ticket.queue_until)
        recorded = [ticket for one in self.core.records() for ticket in one.waiting]
        assert sorted(map(id, recorded)) == sorted(map(id, self.waiting))

    def finish(self, *, rounds: int = 200) -> None:
        """Let everything come to its end, with a world that works and nobody who asks for more."""
        for _ in range(rounds):
            for model, phase in list(self.phases.items()):
                if phase is Phase.STARTING:
                    self.phases[model] = Phase.LOADING
                    self.obey(self.core.answers(model, self.now))
                elif phase is Phase.LOADING:
                    self.ready(model)
                elif phase in (Phase.STOPPING, Phase.SWEEPING):
                    self.go(model)
            while self.in_flight:
                self.end_call(0, is_well=True)
            self.check()
            if not self.waiting and {Phase.ABSENT, Phase.READY} >= set(self.phases.values()):
                return
            self.advance(0.5)
        raise AssertionError(f"{self.waiting} wait for ever: {self.phases}")


def in_phase(*phases: Phase) -> Callable[[Any], bool]:
    """Whether there is a model in one of the phases."""
    return lambda machine: any(one in phases for one in machine.world.phases.values())


class Schedules(RuleBasedStateMachine):
    """Anything that may happen, in any order."""

    world: World

    @initialize(limits=LIMITS)
    def begin(self, limits: Limits) -> None:
        self.world = World(limits)

    @rule(
        model=st.sampled_from(MODELS),
        patience=st.sampled_from([math.inf, 2.0, 20.0]),
        may_load=st.sampled_from([True, True, True, False]),
    )
    def call(self, model: str, patience: float, may_load: bool) -> None:  # noqa: FBT001
        deadline = self.world.now + patience
        self.world.ask("call", model, deadline=deadline, may_load=may_load)

    @rule(model=st.sampled_from(MODELS), is_patient=st.booleans())
    def load(self, model: str, is_patient: bool) -> None:  # noqa: FBT001
        self.world.ask("load", model, is_patient=is_patient)

    @precondition(lambda self: self.world.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.world.waiting))
        self.world.waiting = [one for one in self.world.waiting if one is not ticket]
        self.world.obey(self.world.core.withdraw(ticket, self.world.now))

    @precondition(lambda self: self.world.in_flight)
    @rule(data=st.data(), is_well=st.booleans())
    def end_call(self, data: st.DataObject, is_well: bool) -> None:  # noqa: FBT001
        index = data.draw(st.integers(0, len(self.world.in_flight) - 1))
        self.world.end_call(index, is_well=is_well)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 4.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    def _one_in(self, data: st.DataObject, *phases: Phase) -> str:
        models = [model for model, phase in self.world.phases.items() if phase in phases]
        return data.draw(st.sampled_from(models))

    @precondition(in_phase(Phase.STARTING))
    @rule(data=st.data())
    def answers(self, data: st.DataObject) -> None:
        model = self._one_in(data, Phase.STARTING)
        self.world.phases[model] = Phase.LOADING
        self.world.obey(self.world.core.answers(model, self.world.now))

    @precondition(in_phase(Phase.LOADING))
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        self.world.ready(self._one_in(data, Phase.LOADING))

    @precondition(in_phase(Phase.LOADING))
    @rule(data=st.data())
    def moves(self, data: st.DataObject) -> None:
        model = self._one_in(data, Phase.LOADING)
        self.world.obey(self.world.core.moved(model, self.world.now))

    @precondition(in_phase(Phase.STARTING, Phase.LOADING))
    @rule(data=st.data(), is_failure=st.booleans())
    def load_fails(self, data: st.DataObject, is_failure: bool) -> None:  # noqa: FBT001
        model = self._one_in(data, Phase.STARTING, Phase.LOADING)
        self.world.load_fails(model, is_failure=is_failure)

    @precondition(in_phase(Phase.READY))
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        self.world.die(self._one_in(data, Phase.READY))

    @precondition(in_phase(Phase.STOPPING, Phase.SWEEPING))
    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        self.world.go(self._one_in(data, Phase.STOPPING, Phase.SWEEPING))

    @rule(model=st.sampled_from(MODELS))
    def stop(self, model: str) -> None:
        self.world.stop(model)

    @rule(model=st.sampled_from(MODELS), is_pinned=st.booleans())
    def pin(self, model: str, is_pinned: bool) -> None:  # noqa: FBT001
        self.world.core.describe(model, is_pinned=is_pinned)
        (self.world.pinned.add if is_pinned else self.world.pinned.discard)(model)

    @precondition(in_phase(Phase.READY))
    @rule(data=st.data(), held=st.integers(1, 15), devices=ON_DEVICES)
    def grows(self, data: st.DataObject, held: int, devices: dict[str, float] | None) -> None:
        self.world.measure(self._one_in(data, Phase.READY), held, devices)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.obey(self.world.core.tick(self.world.now))
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.finish()
        for model in MODELS:
            self.pin(model, False)  # noqa: FBT003 - as the rule has it
        # No state is final: whatever happened, each model that fits can be called once more.
        world.advance(301.0)
        for model in MODELS:
            if NEEDS[model] <= world.limits.memory_bytes:
                ticket = world.ask("call", model)
                world.finish()
                # The next one waits no longer than the queue lets it.
                world.advance(world.limits.shortest_turn_seconds)
                (answer,) = [answer for one, answer, _ in world.answers if one is ticket]
                assert isinstance(answer, Admit), answer
        PHASES.update(world.seen)


TURNS_SECONDS = 60.0
"""How long clients ask in turn."""
PHASES: set[Phase] = set()
"""All that were seen in any schedule."""


@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_any_schedule() -> None:
    """Whatever happens in whatever order: nobody waits beyond a deadline, limits hold, every state can be left."""
    PHASES.clear()
    run_state_machine_as_test(Schedules, settings=SCHEDULES)

    assert set(Phase) == PHASES


@pytest.mark.timeout(0 if EXAMPLES else 600)
@settings(SCHEDULES, max_examples=EXAMPLES or 40)
@given(
    limits=LIMITS.map(
        lambda one: replace(
            one, queue_seconds=math.inf, busy_seconds=math.inf, idle_seconds=math.inf
        )
    ),
    clients=st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=2, max_size=16
    ),
    call_seconds=st.sampled_from([0.1, 1.0, 3.0]),
    load_seconds=st.sampled_from([0.1, 2.0]),
)
def test_nobody_starves(
    limits: Limits, clients: list[list[str]], call_seconds: float, load_seconds: float
) -> None:
    """Clients that ask for models in turn, each at once again, all get them, within a time that can be told."""
    world = World(limits)
    stop_seconds = 0.1
    due: list[tuple[float, Callable[[], None]]] = []
    served = [0] * len(clients)

    def ask(number: int) -> None:
        models = clients[number]
        ticket = world.ask("call", models[served[number] % len(models)])
        numbers[id(ticket)] = number, ticket

    numbers: dict[int, tuple[int, Ticket]] = {}
    handled = 0
    phases: dict[str, Phase] = {}

    def end(ticket: Ticket) -> None:
        index = next(i for i, (one, _) in enumerate(world.in_flight) if one is ticket)
        world.end_call(index, is_well=True)
        number, _ = numbers.pop(id(ticket))
        served[number] += 1
        ask(number)

    for number in range(len(clients)):
        ask(number)
    longest = 0.0
    start = world.now
    while world.now < start + TURNS_SECONDS:
        for model, phase in world.phases.items():
            if phases.get(model) is not phase:
                phases[model] = phase
                if phase is Phase.STARTING:
                    due.append((world.now + load_seconds, partial(_load, world, model)))
                elif phase is Phase.STOPPING:
                    due.append((world.now + stop_seconds, partial(world.go, model)))
        for ticket, answer, moment in world.answers[handled:]:
            assert isinstance(answer, Admit), answer
            longest = max(longest, moment - ticket.arrived)
            due.append((world.now + call_seconds, partial(end, ticket)))
        handled = len(world.answers)
        wake = min([world.core.next_wake(world.now), *(moment for moment, _ in due)])
        world.advance(max(0.0, wake - world.now))
        ready = [one for one in due if one[0] <= world.now]
        due = [one for one in due if one[0] > world.now]
        for _, action in ready:
            action()
        world.check()

    turn = limits.shortest_turn_seconds + limits.turn_seconds + call_seconds
    swap = stop_seconds + load_seconds
    assert longest <= (len("abc") + 1) * (turn + swap) + 0.1
    # Swaps are bounded: a place is taken anew no more often than models stay and loads last.
    places = min(limits.most_backends, len("abc"))
    once = limits.residency_seconds + swap
    assert len(world.starts) <= places * (TURNS_SECONDS / once + 1)
    assert all(served)


def _load(world: World, model: str) -> None:
    world.phases[model] = Phase.LOADING
    world.obey(world.core.answers(model, world.now))
    world.ready(model)
