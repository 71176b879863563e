"""Readiness and its causes."""

from __future__ import annotations

import pytest

from localplane_server.errors import NotReadyError
from localplane_server.readiness import Readiness


def test_ready_once_no_cause_is_left() -> None:
    """Two causes are two causes: taking one back does not make the service ready."""
    readiness = Readiness()
    readiness.block("start", "starting")
    readiness.block("keeper", "the keeper is gone")
    readiness.unblock("start")

    with pytest.raises(NotReadyError, match="the keeper is gone"):
        readiness.check()

    readiness.unblock("keeper")
    readiness.check()


def test_listeners_hear_changes_only() -> None:
    """A listener hears how it is, and then each change once."""
    readiness = Readiness()
    heard: list[bool] = []
    readiness.listen(heard.append)
    readiness.block("a", "a")
    readiness.block("b", "b")
    readiness.unblock("a")
    readiness.unblock("unknown")
    readiness.unblock("b")

    assert [True, False, True] == heard
