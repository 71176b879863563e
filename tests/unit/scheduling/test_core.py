"""The rules of the scheduler's core, one by one. What holds in any order of events is in test_core_schedules."""

from __future__ import annotations

import math

import pytest

from localplane_server.scheduling.breaker import Breaker
from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.decisions import (
    Cooldown,
    GiveUpLoad,
    Refusal,
    Refuse,
)
from localplane_server.scheduling.records import Phase
from unit.scheduling.play import Play


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
