"""Windows over the last while."""

from __future__ import annotations

from localplane_server.tokens.counts import NOTHING, TokenCounts
from localplane_server.tokens.windows import BucketRing, TokenWindow

ONE = TokenCounts(prompt_tokens=2, completion_tokens=1, chats=1)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestBucketRing:
    def test_windows_move_on(self) -> None:
        """What happened leaves the windows one after the other, the short one first."""
        clock = Clock()
        ring = BucketRing(clock)
        ring.add(ONE)
        ring.add(ONE)
        clock.now += 59 - 4
        ring.add(ONE)
        in_a_minute = [ring.last(seconds).chats for seconds in (60, 300, 3600)]
        clock.now += 60 - 4
        after_two = [ring.last(seconds).chats for seconds in (60, 300, 3600)]
        clock.now += 3600 - 60
        after_an_hour = [ring.last(seconds).chats for seconds in (60, 300, 3600)]
        clock.now += 60

        assert [3, 3, 3] == in_a_minute
        assert [1, 3, 3] == after_two
        assert [0, 0, 1] == after_an_hour
        assert NOTHING == ring.last(3600)

    def test_holds_an_hour(self) -> None:
        """However long it runs, it holds no more buckets than an hour has."""
        clock = Clock()
        ring = BucketRing(clock)
        for _ in range(20_000):
            clock.now += 1
            ring.add(ONE)

        assert 720 == len(ring._buckets)
        assert 3596 <= ring.last(3600).chats <= 3600


def test_rates() -> None:
    """Rates are over the time that the window covers; a window of no time has none."""
    window = TokenWindow(10.0, TokenCounts(prompt_tokens=50, completion_tokens=20))
    nothing = TokenWindow(0.0, NOTHING)

    assert (5.0, 2.0) == (window.prompt_tokens_per_second, window.completion_tokens_per_second)
    assert (0.0, 0.0) == (nothing.prompt_tokens_per_second, nothing.completion_tokens_per_second)
