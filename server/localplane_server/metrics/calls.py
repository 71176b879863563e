"""Figures of calls and requests."""

from __future__ import annotations

import re

from localplane_server import events
from localplane_server.logs import INPROCESS
from localplane_server.metrics.families import Count, Distribution, Readings
from localplane_server.metrics.registry import MetricsRegistry

SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Bounds for how long calls take: a look-up is done in a millisecond, an answer of a large model takes minutes."""

SCRAPE_ROUTE = "/metrics"
"""Where the figures are read. Reading them is not counted as a request."""

SCOPE, SCOPE_VERSION = "github.com/mudler/LocalAI", ""
"""What LocalAI's histogram says of where it comes from."""

VERBS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Verbs that labels show. HTTP allows any word, and whoever asks chooses it."""
OTHER = "other"
"""What labels show for all other verbs."""


class CallMetrics:
    """Counts calls and requests as they end."""

    def __init__(self, registry: MetricsRegistry, bus: events.Events) -> None:
        # The series of what was seen before: a look-up by labels takes as long as all else that is done here.
        self._request_series: dict[tuple[str, str, int], tuple[Count, Distribution]] = {}
        self._call_series: dict[tuple[str, str, bool], tuple[Count, Distribution]] = {}
        self._calls_in_flight = 0
        self._requests_in_flight = 0
        self._api_calls = registry.histograms(
            "api_call",
            "api calls",
            ("method", "path", "otel_scope_name", "otel_scope_version"),
            bounds=SECONDS,
        )
        self._requests = registry.counters(
            "localplane_http_requests_total",
            "Requests over HTTP that have ended.",
            ("method", "route", "status"),
        )
        registry.readings(
            "localplane_http_requests_in_flight",
            "Requests over HTTP that have begun and not ended.",
            read=self._read_requests_in_flight,
        )
        self._calls = registry.counters(
            "localplane_grpc_calls_total",
            "Calls of methods that have ended.",
            ("method", "code", "interface"),
        )
        self._call_seconds = registry.histograms(
            "localplane_grpc_call_seconds",
            "How long calls of methods took, streams to their end.",
            ("method",),
            bounds=SECONDS,
        )
        registry.readings(
            "localplane_grpc_calls_in_flight",
            "Calls of methods that have begun and not ended.",
            read=self._read_calls_in_flight,
        )
        bus.listen(events.RequestStarted, self._request_started)
        bus.listen(events.RequestFinished, self._request_finished)
        bus.listen(events.CallStarted, self._call_started)
        bus.listen(events.CallFinished, self._call_finished)

    def _request_started(self, _event: events.RequestStarted) -> None:
        self._requests_in_flight += 1

    def _request_finished(self, event: events.RequestFinished) -> None:
        self._requests_in_flight -= 1
        if event.route == SCRAPE_ROUTE:
            return
        key = event.method, event.route, event.status
        count, seconds = self._request_series.get(key) or self._series_of_request(*key)
        count.value += 1
        seconds.observe(event.seconds)

    def _series_of_request(
        self, method: str, route: str, status: int
    ) -> tuple[Count, Distribution]:
        verb = method if method in VERBS else OTHER
        count = self._requests.series(verb, route, str(status))
        seconds = self._api_calls.series(verb, localai_path(route), SCOPE, SCOPE_VERSION)
        # Neither what a caller made up nor what was dropped is remembered: there is no end to it.
        if (
            verb is not OTHER
            and count is not self._requests.unseen
            and seconds is not self._api_calls.unseen
        ):
            self._request_series[method, route, status] = count, seconds
        return count, seconds

    def _call_started(self, _event: events.CallStarted) -> None:
        self._calls_in_flight += 1

    def _call_finished(self, event: events.CallFinished) -> None:
        if not event.method:
            self._calls.series("", event.code, "grpc").add()
            return
        self._calls_in_flight -= 1
        key = event.method, event.code, event.peer == INPROCESS
        count, seconds = self._call_series.get(key) or self._series_of_call(*key)
        count.value += 1
        seconds.observe(event.seconds)

    def _series_of_call(
        self,
        full_name: str,
        code: str,
        is_inprocess: bool,  # noqa: FBT001 - part of a key
    ) -> tuple[Count, Distribution]:
        method = full_name[1:]
        count = self._calls.series(method, code, "rest" if is_inprocess else "grpc")
        seconds = self._call_seconds.series(method)
        if count is not self._calls.unseen and seconds is not self._call_seconds.unseen:
            self._call_series[full_name, code, is_inprocess] = count, seconds
        return count, seconds

    def _read_requests_in_flight(self) -> Readings:
        yield (), self._requests_in_flight

    def _read_calls_in_flight(self) -> Readings:
        yield (), self._calls_in_flight


def localai_path(route: str) -> str:
    """Return a route as LocalAI writes it: `/models/jobs/:uuid` for `/models/jobs/{uuid}`."""
    return re.sub(r"\{(\w+)\}", r":\1", route)
