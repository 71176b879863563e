"""How the end of a process is told."""

from __future__ import annotations

import pytest

from localplane_server.supervision.backend_process import Exit


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "signal SIGKILL"),
        (-11, "signal SIGSEGV"),
        (-40, "signal 40"),
    ],
)
def test_words(returncode: int, words: str) -> None:
    """An exit is told by its code or by the name of the signal, where that has one."""
    assert words == str(Exit.from_returncode(returncode))


def test_unknown() -> None:
    """An exit whose status nobody could read is not taken for success."""
    assert "unknown exit status" == str(Exit(None, None))
