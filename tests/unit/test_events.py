"""Events reach who listens."""

from __future__ import annotations

import logging

import pytest

from localplane_server.events import BackendFailed, BackendStopped, Events

FAILED = BackendFailed(model="m", backend="b", message="gone")


def test_only_listeners_of_the_class_hear_it() -> None:
    """An event goes to the listeners of its class, in the order they came."""
    bus = Events()
    heard: list[object] = []
    bus.listen(BackendFailed, lambda event: heard.append(("first", event)))
    bus.listen(BackendFailed, lambda event: heard.append(("second", event)))
    bus.listen(BackendStopped, heard.append)

    bus.emit(FAILED)

    assert [("first", FAILED), ("second", FAILED)] == heard


def test_a_listener_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The emitter goes on, the others hear the event, and the log tells."""
    bus = Events()
    heard: list[object] = []

    def fail(_: object) -> None:
        raise ValueError

    bus.listen(BackendFailed, fail)
    bus.listen(BackendFailed, heard.append)
    with caplog.at_level(logging.ERROR):
        bus.emit(FAILED)

    assert [FAILED] == heard
    assert "a listener failed" in caplog.text
