"""Who gets a place, who has to go for it, and who waits."""

from __future__ import annotations

from typing import Any

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

    def test_who_needs_no_memory(self) -> None:
        """A server elsewhere makes nobody go and waits for nobody, however much others have grown."""
        play = Play(memory_bytes=10, residency_seconds=0.0)
        play.core.describe("a", needed=4)
        play.core.describe("b", needed=0, is_elsewhere=True)
        play.idle("a")
        play.tell("measured", "a", 12.0)
        play.now = 10.0
        play.call("b")

        assert (["b"], []) == (play.starts, play.stops)


class TestDevices:
    """Memory of devices, of which nothing is known before a model was loaded."""

    def play(self, **limits: Any) -> Play:
        play = Play(**{"residency_seconds": 0.0, **limits})
        play.core.equip({"g": 10, "h": 10})
        return play

    def loaded_once(self, play: Play, model: str, **devices: float) -> None:
        """Have a model loaded, measured and stopped, and the time go on."""
        play.idle(model)
        play.tell("measured", model, 1.0, devices=devices)
        play.tell("stop", model)
        play.tell("gone", model)
        play.now += 1.0

    def test_first_load(self) -> None:
        """It is thought to take nothing there; what is too much once it is seen goes, the least recently used first."""
        play = self.play()
        for model in "abc":
            play.idle(model)
            play.tell("measured", model, 1.0, devices={"g": 4})
            play.now += 1.0

        assert [("a", StopCause.MEMORY)] == play.stops

    def test_next_load(self) -> None:
        """It is thought to take what it took: others on the same device go first, and only those."""
        play = self.play()
        self.loaded_once(play, "c", g=7)
        for model, device in (("a", "h"), ("b", "g")):
            play.idle(model)
            play.tell("measured", model, 1.0, devices={device: 6})
            play.now += 1.0
        play.call("c")
        assert ([("b", StopCause.MEMORY)], []) == (play.stops, play.starts)
        play.tell("gone", "b")

        assert ["c"] == play.starts

    def test_the_most_of_the_last_load(self) -> None:
        """What a model took at its largest, when it was last loaded, is what it is thought to take."""
        play = self.play()
        self.loaded_once(play, "a", g=9, h=9)
        play.idle("a")
        for bytes_ in (2, 5, 3):
            play.tell("measured", "a", 1.0, devices={"g": bytes_})
        play.tell("stop", "a")
        play.tell("gone", "a")

        assert {"g": 5} == play.core.record("a").needs.devices

    def test_load_that_failed(self) -> None:
        """It needs at least what it was seen to take, and no less than it took before."""
        play = self.play()
        self.loaded_once(play, "a", g=6)
        play.call("a")
        play.tell("measured", "a", 1.0, devices={"g": 4, "h": 2})
        play.tell("load_ended", "a", is_failure=True)

        assert {"g": 6, "h": 2} == play.core.record("a").needs.devices

    def test_while_it_loads(self) -> None:
        """It counts with what it is thought to take until it is seen loaded."""
        play = self.play()
        self.loaded_once(play, "a", g=6)
        self.loaded_once(play, "b", g=6)
        play.call("a")
        play.tell("measured", "a", 1.0, devices={"g": 1})
        play.load("b", is_patient=False)
        assert [Refusal.CAPACITY] == play.refusals
        play.ready("a")
        play.load("b", is_patient=False)
        assert [Refusal.CAPACITY] == play.refusals
        play.tell("measured", "a", 1.0, devices={"g": 1})
        play.load("b", is_patient=False)

        assert ["b"] == play.starts

    def test_more_than_there_may_be(self) -> None:
        """Who took more than the budget of a device gets it alone, and is not sent away for that."""
        play = self.play()
        self.loaded_once(play, "a", g=12)
        play.idle("b")
        play.tell("measured", "b", 1.0, devices={"g": 1})
        play.now += 1.0
        play.call("a")
        assert [("b", StopCause.MEMORY)] == play.stops
        play.tell("gone", "b")
        play.ready("a")
        play.tell("measured", "a", 1.0, devices={"g": 12})

        # The last one on a device stays.
        assert [] == play.stops

    def test_who_needs_none_of_it(self) -> None:
        """A device that is overdrawn holds up nobody who does not use it."""
        play = self.play()
        play.used("a")
        play.tell("measured", "a", 1.0, devices={"g": 12})
        play.call("b")

        assert ["b"] == play.starts

    def test_growth_spares_those_elsewhere(self) -> None:
        """Who uses none of what is overdrawn stays, however long nobody used it."""
        play = self.play()
        for model, devices in (("a", {"h": 9}), ("b", {}), ("c", {"g": 6}), ("d", {"g": 6})):
            play.idle(model)
            play.tell("measured", model, 1.0, devices=devices)
            play.now += 1.0

        assert [("c", StopCause.MEMORY)] == play.stops

    def test_growth_of_those_in_use(self) -> None:
        """Calls in flight are not cut; when they have ended, it is seen to."""
        play = self.play()
        calls = {model: play.used(model) for model in "ab"}
        for model in "ab":
            play.tell("measured", model, 1.0, devices={"g": 6})
        assert [] == play.stops
        for call in calls.values():
            play.end(call)
        play.tell("tick")

        assert [("a", StopCause.MEMORY)] == play.stops

    def test_unseen(self) -> None:
        """A reading that failed changes nothing."""
        play = self.play()
        play.idle("a")
        play.tell("measured", "a", 1.0, devices={"g": 6})
        play.tell("measured", "a", 1.0)

        assert {"g": 6} == play.core.record("a").takes.devices

    def fail_to_load(self, play: Play, model: str, **options: Any) -> None:
        """Have a load that a call begins fail so soon that nothing was seen of it."""
        play.call(model)
        assert [model] == play.starts
        play.tell("load_ended", model, is_failure=True, is_shortage=True, **options)

    def test_load_that_failed_beside_others(self) -> None:
        """Who says that there was too little memory is loaded alone next time, though it is not known what it takes."""
        play = self.play()
        for model, devices in (("a", {"g": 6}), ("c", {"h": 1}), ("d", {})):
            play.idle(model)
            play.tell("measured", model, 1.0, devices=devices)
        self.fail_to_load(play, "b")
        play.now += 1.0
        play.call("b")
        assert [("a", StopCause.MEMORY), ("c", StopCause.MEMORY)] == play.stops
        play.tell("gone", "a")
        assert [] == play.starts
        play.tell("gone", "c")
        assert ["b"] == play.starts

        play.call("a")
        play.ready("b")
        assert [] == play.starts
        play.tell("measured", "b", 1.0, devices={"g": 3, "h": 2})
        assert ["a"] == play.starts
        assert Phase.READY is play.phase("b")

    def test_load_that_fails_alone_too(self) -> None:
        """Others go once for a model that does not load even then, and again only when it is another model."""
        play = self.play()
        play.idle("a")
        play.tell("measured", "a", 1.0, devices={"g": 6})
        self.fail_to_load(play, "b")
        play.now += 1.0
        play.call("b")
        play.tell("gone", "a")
        play.tell("load_ended", "b", is_failure=True, is_shortage=True)
        play.now += 1000.0
        play.idle("a")
        play.tell("measured", "a", 1.0, devices={"g": 6})
        for _ in range(3):
            self.fail_to_load(play, "b")
            play.now += 1000.0
        play.core.forget("b")
        self.fail_to_load(play, "b")
        play.call("b")

        assert [("a", StopCause.MEMORY)] == play.stops

    def test_load_that_fails_beside_one_that_stays(self) -> None:
        """What is pinned does not go: what it leaves is all that there is."""
        play = self.play()
        for model, is_pinned in (("a", True), ("c", False)):
            play.core.describe(model, is_pinned=is_pinned)
            play.idle(model)
            play.tell("measured", model, 1.0, devices={"g": 4})
        self.fail_to_load(play, "b")
        play.now += 1.0
        play.call("b")
        assert [("c", StopCause.MEMORY)] == play.stops
        play.tell("gone", "c")

        assert ["b"] == play.starts

    def test_device_that_tells_nothing_now(self) -> None:
        """What is not told is as it was; what is told counts."""
        play = self.play()
        play.idle("a")
        play.tell("measured", "a", 1.0, devices={"g": 6, "h": 5})
        play.tell("measured", "a", 1.0, devices={"h": 2}, told={"h"})
        assert {"g": 6, "h": 2} == play.core.record("a").takes.devices
        play.tell("measured", "a", 1.0, devices={"g": None})
        assert {"g": 6} == play.core.record("a").takes.devices
        play.tell("measured", "a", 1.0, devices={})
        assert {} == play.core.record("a").takes.devices

    def test_device_that_never_tells(self) -> None:
        """What was last seen of it is still thought to be needed."""
        play = self.play()
        self.loaded_once(play, "a", g=6, h=5)
        play.idle("a")
        play.tell("measured", "a", 1.0, devices={"h": 2}, told={"h"})
        assert {"g": 6, "h": 2} == play.core.record("a").takes.devices
        play.tell("stop", "a")
        play.tell("gone", "a")

        assert {"g": 6, "h": 5} == play.core.record("a").needs.devices

    def test_device_without_a_budget(self) -> None:
        """Of what there is no budget for nothing is counted."""
        play = self.play()
        play.idle("a")
        play.tell("measured", "a", 1.0, devices={"x": 60})

        assert {} == play.core.record("a").takes.devices

    def test_other_budget(self) -> None:
        """A device that has become smaller is no reason never to load a model again."""
        play = self.play()
        self.loaded_once(play, "a", g=9)
        play.core.equip({"g": 5})
        play.call("a")

        assert (["a"], {"g": 5}) == (play.starts, play.core.record("a").needs.devices)

    def test_forgotten(self) -> None:
        """A model whose files are others now is thought to take nothing there again."""
        play = self.play()
        self.loaded_once(play, "a", g=9)
        play.core.forget("a")

        assert {} == play.core.record("a").needs.devices


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
