"""The sign of life on a terminal."""

from __future__ import annotations

import io

import pytest

from localplane_server.cli import spinner
from localplane_server.cli.spinner import Spinner
from served import wait_until


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def use(output: io.StringIO, monkeypatch: pytest.MonkeyPatch, patience: float = 0.0) -> None:
    """Make it standard error. Not a fixture: pytest sets its own again before the test itself."""
    monkeypatch.setattr("sys.stderr", output)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(spinner, "_PATIENCE_SECONDS", patience)


def test_turns_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows what goes on, and leaves an empty line behind."""
    terminal = Terminal()
    use(terminal, monkeypatch)
    with Spinner("loading x"):
        wait_until(lambda: "loading x" in terminal.getvalue())

    assert terminal.getvalue().startswith("\r| loading x (0 s)")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_quick_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over at once does not flicker."""
    terminal = Terminal()
    use(terminal, monkeypatch, patience=60.0)
    with Spinner("loading x"):
        pass

    assert "" == terminal.getvalue()


@pytest.mark.parametrize("where", ["json", "dumb", "file"])
def test_shows_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Nothing is drawn beside JSON, on a terminal that cannot move its cursor, or into a file."""
    output = io.StringIO() if where == "file" else Terminal()
    use(output, monkeypatch)
    if where == "dumb":
        monkeypatch.setenv("TERM", "dumb")

    with Spinner("loading x", is_shown=where != "json") as one:
        one.stop()

    assert "" == output.getvalue()
