"""Families as text, in two formats."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from localplane_server.metrics.registry import (
    OPENMETRICS_TYPE,
    PLAIN_TYPE,
    MetricsRegistry,
    prefers_openmetrics,
)

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class TestPrefersOpenmetrics:
    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            ("", False),
            ("*/*", False),
            ("text/plain", False),
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", False),
            ("application/openmetrics-text", True),
            ("Application/OpenMetrics-Text; version=1.0.0", True),
            (PROMETHEUS, True),
            ("text/plain, application/openmetrics-text", True),
            ("text/plain, application/openmetrics-text;q=0.5", False),
            ("application/openmetrics-text;q=0", False),
            ("application/openmetrics-text;q=x", False),
            ("application/openmetrics-text;version=none", True),
        ],
    )
    def test_choice(self, accept: str, expected: bool) -> None:  # noqa: FBT001
        """OpenMetrics for those who like it best, the plain format for all others, whatever they send."""
        assert expected == prefers_openmetrics(accept)


class TestWritten:
    @pytest.fixture
    def registry(self) -> MetricsRegistry:
        registry = MetricsRegistry()
        registry.counters("a_total", "A.", ("x",)).series('"\\\n').add()
        registry.histograms("h", "H.", bounds=(1.0,)).series().observe(0.5)
        registry.readings("g", "G.", read=lambda: [((), 3)])
        return registry

    async def test_plain(self, registry: MetricsRegistry) -> None:
        """The plain format reads back, and has no series that nobody asked for."""
        text, content_type = await registry.written("")

        families = {one.name: one for one in text_string_to_metric_families(text.decode())}
        assert PLAIN_TYPE == content_type
        assert [({"x": '"\\\n'}, 1)] == [(one.labels, one.value) for one in families["a"].samples]
        assert ("histogram", "gauge") == (families["h"].type, families["g"].type)
        assert b"_created" not in text

    async def test_openmetrics(self, registry: MetricsRegistry) -> None:
        """OpenMetrics reads back, to its end."""
        text, content_type = await registry.written("application/openmetrics-text")

        names = {
            one.name
            for one in openmetrics_families(text.decode())  # type: ignore[no-untyped-call]
        }
        assert OPENMETRICS_TYPE == content_type
        assert {"a", "h", "g", "process_cpu_seconds"} <= names
        assert text.endswith(b"# EOF\n")

    def test_two_registries(self, registry: MetricsRegistry) -> None:
        """Two services in one process count for themselves."""
        other = MetricsRegistry()

        assert 0 == other.counters("a_total", "A.", ("x",)).series('"\\\n').value
