"""Who gets a place, who has to go for it, and who waits."""

from __future__ import annotations

from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.decisions import (
    Refusal,
    Refuse,
)
from localplane_server.scheduling.limits import needed_bytes
from localplane_server.scheduling.records import Phase
from unit.scheduling.play import Play


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
