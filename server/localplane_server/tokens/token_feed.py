"""The tokens of models as they can be followed."""

from __future__ import annotations

import asyncio

from localplane_server import events
from localplane_server.tokens.counts import NOTHING
from localplane_server.tokens.reporting import ModelTokens, TokenReporter
from localplane_server.tokens.windows import BUCKET_SECONDS
from localplane_server.watching.feed import Feed
from localplane_server.watching.gathering import Gathering

PREDICTIONS_SECONDS = 0.5
"""How long predictions that end are gathered before the change is told: windows take a while to sum up."""


class TokenFeed(Feed[str, ModelTokens]):
    """Follows the tokens of the models that were ever asked, by their names.

    While it is in use, `run` must run; it tells what falls out of the windows.
    """

    def __init__(self, reporter: TokenReporter, bus: events.Events) -> None:
        """Follow the accounts.

        Args:
            reporter: Tells the tokens.
            bus: Tells of predictions, after it told the accounts of them.
        """
        super().__init__()
        self._reporter = reporter
        self._asked = Gathering(PREDICTIONS_SECONDS, self._look_at)
        bus.listen(events.PredictionFinished, self._predicted)
        bus.listen(events.BackendChanged, self._changed)
        self._look_at_all()

    async def run(self) -> None:
        """Tell for ever what changes with the time alone."""
        while True:
            await asyncio.sleep(BUCKET_SECONDS)
            self._look_at_all()

    def close(self) -> None:
        """End all watching."""
        self._asked.close()
        super().close()

    def _predicted(self, event: events.PredictionFinished) -> None:
        self._asked.add(event.model)

    def _changed(self, event: events.BackendChanged) -> None:
        if not event.calls_only and self.get(event.model) is not None:
            self._look_at(event.model)  # it may be loaded now, or not any more

    def _look_at_all(self) -> None:
        for tokens in self._reporter.models():
            self._publish(tokens)

    def _look_at(self, model: str) -> None:
        self._publish(self._reporter.tokens(model))

    def _publish(self, tokens: ModelTokens) -> None:
        before = self.get(tokens.model)
        if before is None or _seen(before) != _seen(tokens):
            self.put(tokens.model, tokens)


def _seen(tokens: ModelTokens) -> object:
    """Return what makes a difference to watchers. That an empty window covers more time does not."""
    windows = [window for window in tokens.windows if window.counts != NOTHING]
    return (tokens.is_loaded, tokens.total, windows)
