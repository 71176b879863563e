"""The watch over the parent."""

from __future__ import annotations

import pytest

from localplane_backends.parent import watch_interval_seconds

WATCH = "LOCALAI_BACKEND_PARENT_WATCH"
INTERVAL = "LOCALAI_BACKEND_PARENT_WATCH_INTERVAL"


class TestWatchInterval:
    def test_default(self) -> None:
        """Without a word, the parent is looked at every two seconds."""
        assert 2.0 == watch_interval_seconds({})

    @pytest.mark.parametrize("word", ["false", "0", "no", "off", "OFF"])
    def test_switched_off(self, word: str) -> None:
        """LocalAI's words switch the watch off."""
        assert watch_interval_seconds({WATCH: word}) is None

    @pytest.mark.parametrize(
        ("text", "expected"), [("500ms", 0.5), ("3", 3.0), ("1.5s", 1.5), ("0.1", 0.1)]
    )
    def test_interval(self, text: str, expected: float) -> None:
        """The interval is seconds, or has a unit."""
        assert expected == watch_interval_seconds({INTERVAL: text})

    @pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf"])
    def test_no_interval(self, text: str, caplog: pytest.LogCaptureFixture) -> None:
        """An interval that is none is logged, and the default holds."""
        assert 2.0 == watch_interval_seconds({INTERVAL: text})
        assert INTERVAL in caplog.text
