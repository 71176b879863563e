"""Figures of completions, chats and embeddings."""

from __future__ import annotations

from localplane_server import events
from localplane_server.metrics.registry import MetricsRegistry

FIRST_TOKEN_SECONDS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
"""Bounds for the time until the first token comes."""


class PredictionMetrics:
    """Counts predictions as they end, and their tokens."""

    def __init__(self, registry: MetricsRegistry, bus: events.Events) -> None:
        self.predictions = registry.counters(
            "localplane_predictions_total",
            "Completions, chats and embeddings that have ended.",
            ("model", "operation", "outcome"),
        )
        self.tokens = registry.counters(
            "localplane_tokens_total",
            "Tokens of prompts and of answers.",
            ("model", "kind"),
        )
        self.first_token_seconds = registry.histograms(
            "localplane_time_to_first_token_seconds",
            "Time from asking the backend to the first piece of a streamed answer.",
            ("model",),
            bounds=FIRST_TOKEN_SECONDS,
        )
        bus.listen(events.PredictionFinished, self._finished)

    def _finished(self, event: events.PredictionFinished) -> None:
        self.predictions.series(event.model, event.operation, event.outcome).add()
        self.tokens.series(event.model, "prompt").add(event.prompt_tokens)
        self.tokens.series(event.model, "completion").add(event.completion_tokens)
        if event.seconds_to_first_token is not None:
            self.first_token_seconds.series(event.model).observe(event.seconds_to_first_token)
