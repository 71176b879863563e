"""The rules of the scheduler's core, one by one. What holds in any order of events is in test_core_schedules."""

from __future__ import annotations

import math
from typing import Any

import pytest

from localplane_server.scheduling.breaker import Breaker
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
from localplane_server.scheduling.limits import Limits, needed_bytes
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


class TestLoads:
    def test_one_load_for_many(self) -> None:
        """Whoever comes while a model loads waits for the same load, and all are admitted in order."""
        play = Play()
        first = play.call("a")
        assert ["a"] == play.starts
        others = [play.call("a"), play.load("a")]
        assert [] == play.decided
        play.ready("a")

        assert [first, *others] == play.admitted
        assert 2 == play.core.record("a").in_flight

    def test_outlives_who_asked(self) -> None:
        """A load goes on without those who left."""
        play = Play()
        play.tell("withdraw", play.call("a"))
        play.ready("a")

        assert (Phase.READY, []) == (play.phase("a"), play.decided)

    def test_failure_sends_all_away(self) -> None:
        """Who waits for a load that fails is told."""
        play = Play()
        play.call("a")
        play.load("a")
        play.tell("load_ended", "a", is_failure=True)

        assert [Refusal.LOAD_ENDED] * 2 == play.refusals
        assert Phase.ABSENT is play.phase("a")

    def test_without_autoload(self) -> None:
        """A call does not load a model, but uses one that an administrator loads."""
        play = Play()
        play.call("a", may_load=False)
        assert [Refusal.AUTOLOAD_DISABLED] == play.refusals
        play.load("a")
        call = play.call("a", may_load=False)

        play.ready("a")
        assert call in play.admitted


class TestDeadlinesOfLoads:
    def test_moves(self) -> None:
        """A load that moves gets its whole time anew."""
        play = Play(load_seconds=10.0, longest_load_seconds=100.0)
        play.call("a")
        play.tell("answers", "a")
        play.at(9.0)
        play.tell("moved", "a")
        assert [] == play.at(18.0)

        assert [GiveUpLoad("a", 10.0)] == play.at(19.0)

    def test_not_for_ever(self) -> None:
        """However much it moves."""
        play = Play(load_seconds=10.0, longest_load_seconds=25.0)
        play.call("a")
        play.tell("answers", "a")
        for now in (8.0, 16.0, 24.0):
            assert [] == play.at(now)
            play.tell("moved", "a")

        assert [GiveUpLoad("a", 25.0)] == play.at(25.0)

    def test_overdue(self) -> None:
        """A load that was given up and does not end is overdue, until it ends."""
        play = Play(load_seconds=10.0, overdue_seconds=5.0)
        play.call("a")
        play.tell("answers", "a")
        play.at(14.9)
        assert [] == play.core.overdue(play.now)
        assert 15.0 == play.core.next_wake(play.now)
        play.at(15.0)

        assert ["a"] == play.core.overdue(play.now)
        assert math.isinf(play.core.next_wake(play.now)) or play.core.next_wake(play.now) > play.now
        play.tell("load_ended", "a", is_failure=True)
        assert [] == play.core.overdue(play.now)

    def test_program_that_never_answers(self) -> None:
        """Is overdue too, should nobody end it."""
        play = Play(start_seconds=20.0, overdue_seconds=5.0)
        play.call("a")
        play.at(25.0)

        assert ["a"] == play.core.overdue(play.now)

    def test_calls_deadline(self) -> None:
        """A call waits for a load no longer than it may, and the load goes on."""
        play = Play(queue_seconds=60.0)
        play.call("a", deadline=100.0)
        assert [] == play.at(99.9)
        play.at(100.0)

        assert ([Refusal.OVERDUE], Phase.STARTING) == (play.refusals, play.phase("a"))


class TestPlaces:
    def test_least_recently_used_goes(self) -> None:
        """Of two that nobody uses, the one whose last call is longer ago."""
        play = Play(most_backends=2)
        play.idle("a")
        play.now = 1.0
        play.idle("b")
        play.now = 2.0
        play.end(play.call("a"))
        play.now = 5.0
        play.call("c")

        assert [("b", StopCause.CAPACITY)] == play.stops
        assert [] == play.starts
        play.tell("gone", "b")
        assert ["c"] == play.starts

    def test_residency(self) -> None:
        """What was loaded just now stays a while, though nobody uses it."""
        play = Play(most_backends=1, residency_seconds=3.0)
        play.idle("a")
        play.call("b")
        assert [] == play.decided
        assert [] == play.at(2.9)
        play.at(3.0)

        assert [("a", StopCause.CAPACITY)] == play.stops

    def test_pinned_stays(self) -> None:
        """What is pinned never goes, and who waits is told how it is."""
        play = Play(most_backends=1, queue_seconds=10.0)
        play.core.describe("a", is_pinned=True)
        play.idle("a")
        play.call("b")
        play.at(10.0)

        (refused,) = play.decided
        assert isinstance(refused, Refuse)
        assert (Refusal.CAPACITY, "1 loaded, 0 of them in use, 1 pinned") == (
            refused.why,
            refused.detail,
        )

    def test_nobody_goes_in_vain(self) -> None:
        """If all that may go were not enough, none goes."""
        play = Play(memory_bytes=10)
        for model, needed, is_pinned in (("a", 6, True), ("b", 2, False)):
            play.core.describe(model, needed=needed, is_pinned=is_pinned)
            play.idle(model)
        play.core.describe("c", needed=5, is_pinned=False)
        play.call("c")

        assert [] == play.at(50.0)

    def test_used_one_ends_its_turn(self) -> None:
        """Once another waits and its turn is over, newcomers queue behind; the call in flight is not cut."""
        play = Play(most_backends=1, turn_seconds=5.0)
        first = play.used("a")
        waiting = play.call("b")
        play.at(4.0)
        second = play.call("a")
        assert [second] == play.admitted
        play.at(5.0)
        third = play.call("a")
        assert [] == play.decided

        play.end(first)
        assert [] == play.decided
        play.end(second)
        assert [("a", StopCause.CAPACITY)] == play.stops
        play.tell("gone", "a")
        play.ready("b")
        assert [waiting] == play.admitted
        play.at(20.0)
        play.end(waiting)
        play.tell("gone", "b")
        play.ready("a")
        assert [third] == play.admitted

    def test_turn_goes_on_when_nobody_waits_any_more(self) -> None:
        """Who left no longer holds up the calls of the model whose place they wanted."""
        play = Play(most_backends=1)
        play.used("a")
        waiting = play.call("b")
        play.at(5.0)
        held_up = play.call("a")
        play.tell("withdraw", waiting)

        assert [held_up] == play.admitted

    def test_two_in_use_yield_together(self) -> None:
        """One that needs the place of two is not put off by their being used in turns."""
        play = Play(memory_bytes=10)
        calls = {}
        for model in "ab":
            play.core.describe(model, needed=5, is_pinned=False)
            calls[model] = play.used(model)
        play.core.describe("c", needed=10, is_pinned=False)
        play.now = 10.0
        play.call("c")
        play.end(calls["a"])
        play.call("a")
        assert [] == play.decided
        play.end(calls["b"])

        assert [("a", StopCause.MEMORY), ("b", StopCause.MEMORY)] == play.stops


class TestMemory:
    def test_estimate_then_measure(self) -> None:
        """What loads counts as it is thought to be, what is loaded as it is."""
        play = Play(memory_bytes=10)
        play.core.describe("a", needed=8, is_pinned=False)
        play.core.describe("b", needed=4, is_pinned=False)
        play.call("a")
        play.tell("measured", "a", 1.0)
        play.call("b")
        assert [] == play.starts
        play.ready("a")
        play.tell("measured", "a", 6.0)

        assert ["b"] == play.starts

    def test_too_large(self) -> None:
        """What can never fit is refused at once."""
        play = Play(memory_bytes=10)
        play.core.describe("a", needed=11, is_pinned=False)
        play.call("a")

        assert [Refusal.TOO_LARGE] == play.refusals

    def test_growth(self) -> None:
        """Those that nobody uses go when all together have grown too large, but not the last one."""
        play = Play(memory_bytes=10, residency_seconds=0.0)
        for model in "ab":
            play.core.describe(model, needed=4, is_pinned=False)
            play.idle(model)
            play.now += 1.0
        play.tell("measured", "b", 9.0)
        assert [("a", StopCause.MEMORY)] == play.stops
        play.tell("gone", "a")
        play.tell("measured", "b", 12.0)

        assert [] == play.decided

    def test_small_one_overtakes_for_a_while(self) -> None:
        """Memory that is there is lent to who fits, until the one who came first has waited for a turn."""
        play = Play(memory_bytes=10, turn_seconds=5.0)
        for model, needed in (("a", 6), ("b", 8), ("c", 2), ("d", 2)):
            play.core.describe(model, needed=needed, is_pinned=False)
        play.used("a")
        play.now = 10.0
        play.call("b")
        play.call("c")
        assert ["c"] == play.starts
        play.at(15.0)
        play.call("d")

        assert [] == play.starts

    def test_memory_is_kept_for_who_waited_for_a_turn(self) -> None:
        """Also while the one in its way may stay yet."""
        play = Play(memory_bytes=10, turn_seconds=5.0, residency_seconds=20.0)
        for model, needed in (("a", 6), ("b", 8), ("c", 2), ("d", 2)):
            play.core.describe(model, needed=needed, is_pinned=False)
        play.used("a")
        play.call("b")
        play.at(4.0)
        play.call("c")
        assert ["c"] == play.starts
        play.at(6.0)
        play.call("d")

        assert [] == play.starts

    def test_estimate(self) -> None:
        """A model without a file takes what a program takes; one with a file, more than the file."""
        assert 128 * 2**20 == needed_bytes(0)
        assert 9 * 2**30 + 128 * 2**20 == needed_bytes(8 * 2**30)


class TestQueue:
    def test_order(self) -> None:
        """Whoever came first is served first, whatever the model."""
        play = Play(most_backends=1, queue_seconds=1000.0)
        play.idle("a")
        play.now = 10.0
        for model in "bcd":
            play.call(model)
        served = []
        for _ in range(3):
            (model,) = [m for m in "abcd" if play.phase(m) is Phase.STOPPING]
            play.tell("gone", model)
            (started,) = play.starts
            served.append(started)
            play.ready(started)
            for ticket in play.admitted:
                play.now += 10.0
                play.end(ticket)

        assert ["b", "c", "d"] == served

    def test_own_deadline(self) -> None:
        """Who has little time is told shortly before it is over, so that the answer still reaches them."""
        play = Play(most_backends=1, queue_seconds=60.0)
        play.used("a")
        play.call("b", deadline=10.0)
        assert [] == play.at(9.7)
        play.at(9.75)

        assert [Refusal.CAPACITY] == play.refusals

    def test_waiting_for_a_load_is_not_waiting_for_a_place(self) -> None:
        """Who has a place waits for the load as long as it takes."""
        play = Play(most_backends=1, queue_seconds=1.0)
        ticket = play.call("a")
        assert [] == play.at(50.0)
        play.ready("a")

        assert [ticket] == play.admitted

    def test_no_patience(self) -> None:
        """With a queue of no time, who finds a place gets it and who finds none is refused."""
        play = Play(most_backends=1, queue_seconds=0.0)
        play.call("a")
        assert (["a"], []) == (play.starts, play.refusals)
        play.call("b")

        assert [Refusal.CAPACITY] == play.refusals

    def test_now_or_never(self) -> None:
        """A preload neither waits nor has others go."""
        play = Play(most_backends=1)
        play.idle("a")
        play.now = 100.0
        play.load("b", is_patient=False)

        assert ([Refusal.CAPACITY], []) == (play.refusals, play.stops)


class TestLimits:
    def test_idle(self) -> None:
        """It counts from the end of the last call in flight."""
        play = Play(idle_seconds=5.0)
        first = play.used("a")
        second = play.call("a")
        play.at(60.0)
        play.end(first)
        play.at(90.0)
        play.end(second)
        assert [] == play.at(94.9)
        play.at(95.0)

        assert [("a", StopCause.IDLE)] == play.stops

    def test_idle_without_a_call(self) -> None:
        """What nobody ever called counts from its load; what is pinned stays."""
        play = Play(idle_seconds=5.0)
        play.core.describe("b", is_pinned=True)
        for model in "ab":
            play.load(model)
            play.ready(model)
        play.at(50.0)

        assert [("a", StopCause.IDLE)] == play.stops

    def test_busy(self) -> None:
        """It counts from the first call, or the last end of one."""
        play = Play(busy_seconds=10.0)
        first = play.used("a")
        play.call("a")
        play.at(9.0)
        play.end(first)
        assert [] == play.at(18.9)
        play.at(19.0)

        assert [("a", StopCause.BUSY)] == play.stops

    def test_calls_of_a_model_that_goes_wait_for_it(self) -> None:
        """Nobody wanted it to stay away."""
        play = Play(idle_seconds=5.0)
        play.idle("a")
        play.at(5.0)
        ticket = play.call("a")
        assert [] == play.decided
        play.tell("gone", "a")
        play.ready("a")

        assert [ticket] == play.admitted


class TestFailures:
    def test_back_off(self) -> None:
        """The first failure costs nothing, then 1 s, doubling up to 5 min."""
        breaker = Breaker()

        seconds = [breaker.fail(0.0) for _ in range(12)]

        assert [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] == seconds
        assert 300 == breaker.remaining(0.0)
        breaker.succeed()
        assert (0, 0) == (breaker.remaining(0.0), breaker.failures)

    def fail(self, play: Play, times: int) -> None:
        for _ in range(times):
            play.load("a")
            play.tell("load_ended", "a", is_failure=True)

    def test_calls_are_refused_meanwhile(self) -> None:
        """And told for how long; then one of them is the probe."""
        play = Play()
        self.fail(play, 3)
        assert Cooldown("a", 2.0, 3) in play.decided
        play.now = 0.5
        play.call("a")
        (refused,) = play.decided
        assert isinstance(refused, Refuse)
        assert (Refusal.COOLDOWN, 1.5) == (refused.why, refused.retry_seconds)
        play.now = 2.0
        play.call("a")
        play.call("a")

        assert (1, Phase.STARTING) == (play.core.record("a").generation - 3, play.phase("a"))

    def test_administrators_are_not(self) -> None:
        """Whoever asks for a load may have mended it."""
        play = Play()
        self.fail(play, 5)
        play.load("a")

        assert ["a"] == play.starts

    def test_load_that_works_does_not_close_it(self) -> None:
        """A model that loads and dies of each call fails again and again; a call that ends well closes it."""
        play = Play()
        for _ in range(3):
            play.load("a")
            play.ready("a")
            play.end(play.call("a"), is_well=False)
            play.tell("died", "a")
            play.tell("gone", "a")
        play.call("a")
        assert [Refusal.COOLDOWN] == play.refusals
        play.load("a")
        play.ready("a")
        play.end(play.call("a"))

        assert 0 == play.core.record("a").breaker.failures

    def test_settled(self) -> None:
        """What was ready for long has settled, even if nobody called it."""
        play = Play()
        self.fail(play, 4)
        play.load("a")
        play.ready("a")
        play.now += 300.0
        play.tell("died", "a")

        assert 1 == play.core.record("a").breaker.failures

    def test_the_service_is_to_blame(self) -> None:
        """What the service could not even start is no failure of the model."""
        play = Play()
        for _ in range(3):
            play.load("a")
            play.tell("load_ended", "a", is_failure=False)
        play.call("a")

        assert ["a"] == play.starts

    def test_death_keeps_the_place_until_nothing_is_left(self) -> None:
        """What a dead backend left may still hold memory."""
        play = Play(most_backends=1)
        ticket = play.used("a")
        play.tell("died", "a")
        play.call("b")
        assert [] == play.starts
        play.end(ticket, is_well=False)
        play.tell("gone", "a")

        assert ["b"] == play.starts


class TestStops:
    def test_admission_closes(self) -> None:
        """Who waits and who comes is sent away; a load waits for the end and loads again."""
        play = Play()
        play.call("a")
        play.tell("stop", "a")
        assert [Refusal.DRAINING] == play.refusals
        play.call("a")
        assert [Refusal.DRAINING] == play.refusals
        play.load("a")
        assert [] == play.decided
        play.tell("gone", "a")

        assert ["a"] == play.starts

    def test_of_one_that_goes_anyway(self) -> None:
        """It is now wanted to stay away."""
        play = Play(idle_seconds=5.0)
        play.idle("a")
        play.at(5.0)
        play.call("a")
        play.tell("stop", "a")
        assert [Refusal.DRAINING] == play.refusals
        play.tell("gone", "a")

        assert [] == play.starts

    def test_close(self) -> None:
        """Nobody is admitted any more."""
        play = Play(most_backends=1)
        play.used("a")
        play.call("b")
        play.tell("close")
        assert [Refusal.CLOSED] == play.refusals
        play.call("c")
        assert [Refusal.CLOSED] == play.refusals
        play.tell("gone", "a")

        assert [] == play.decided

    @pytest.mark.parametrize("is_well", [True, False])
    def test_cut_calls_end_later(self, is_well: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
        """A call of a backend that is gone does not count for the next one."""
        play = Play()
        cut = play.used("a")
        play.tell("stop", "a")
        play.tell("gone", "a")
        play.used("a")
        play.end(cut, is_well=is_well)

        assert 1 == play.core.record("a").in_flight
