"""The tokens of models as they can be followed."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from localplane_server import events
from localplane_server.tokens.counts import NOTHING, TokenCounts
from localplane_server.tokens.reporting import ModelTokens
from localplane_server.tokens.token_feed import TokenFeed
from localplane_server.tokens.windows import TokenWindow

SOME = TokenCounts(prompt_tokens=3, completion_tokens=5, completions=1)


def tokens(
    model: str, counts: TokenCounts = SOME, seconds: float = 60.0, *, is_loaded: bool = True
) -> ModelTokens:
    windows = [TokenWindow(seconds, counts)] * 3
    return ModelTokens(model=model, is_loaded=is_loaded, windows=windows, total=SOME)


class Reporter:
    """Tells what a test set."""

    def __init__(self) -> None:
        self.known = {"a": tokens("a")}

    def models(self) -> list[ModelTokens]:
        return list(self.known.values())

    def tokens(self, model: str) -> ModelTokens:
        return self.known[model]


PREDICTED = events.PredictionFinished(
    model="b", operation="chat", prompt_tokens=1, completion_tokens=1, outcome="ok"
)


@pytest.fixture
def reporter() -> Reporter:
    return Reporter()


@pytest.fixture
def bus() -> events.Events:
    return events.Events()


@pytest.fixture
def feed(reporter: Reporter, bus: events.Events) -> TokenFeed:
    """A feed that begins with the accounts that there are."""
    stand_in: Any = reporter
    return TokenFeed(stand_in, bus)


async def test_predictions_together(
    feed: TokenFeed, reporter: Reporter, bus: events.Events
) -> None:
    """Many predictions within a moment are one change."""
    async with aclosing(feed.watch()) as watch:
        first = await anext(watch)
        reporter.known["b"] = tokens("b")
        for _ in range(100):
            bus.emit(PREDICTED)
        second = await anext(watch)

    assert (["a"], ["b"]) == (list(first.changed), list(second.changed))
    assert 2 == feed.revision.number


async def test_loaded(feed: TokenFeed, reporter: Reporter, bus: events.Events) -> None:
    """Whether a model that was asked once is loaded is told at once; calls alone change nothing."""
    reporter.known["a"] = tokens("a", is_loaded=False)
    bus.emit(events.BackendChanged(model="a", calls_only=True))
    before = feed.get("a")
    bus.emit(events.BackendChanged(model="a"))
    bus.emit(events.BackendChanged(model="never-asked"))
    after = feed.get("a")

    assert before is not None
    assert after is not None
    assert (True, False) == (before.is_loaded, after.is_loaded)
    assert feed.get("never-asked") is None


@pytest.mark.parametrize(
    ("before", "after", "is_told"),
    [
        (tokens("a", NOTHING, 10.0), tokens("a", NOTHING, 15.0), False),
        (tokens("a", SOME, 10.0), tokens("a", SOME, 15.0), True),
        (tokens("a", SOME, 60.0), tokens("a", SOME, 60.0), False),
        (tokens("a", SOME, 60.0), tokens("a", NOTHING, 60.0), True),
        (tokens("a"), replace(tokens("a"), total=SOME + SOME), True),
    ],
)
async def test_time(
    feed: TokenFeed, reporter: Reporter, before: ModelTokens, after: ModelTokens, *, is_told: bool
) -> None:
    """What moves with the time alone is told where it makes a difference."""
    feed.put("a", before)
    place = feed.revision
    reporter.known["a"] = after
    feed._look_at_all()

    assert is_told is (place != feed.revision)


async def test_close(feed: TokenFeed, bus: events.Events) -> None:
    """A closed feed sets no timer that would outlive it."""
    bus.emit(PREDICTED)
    feed.close()
    bus.emit(PREDICTED)

    timer = feed._asked._timer
    assert timer is not None
    assert timer.cancelled()
