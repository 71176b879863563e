"""The status that goes on, on a terminal, in a file and for programs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from localplane.v1 import backend_pb2, backend_service_pb2, system_service_pb2, watch_pb2
from localplane_client import DeadlineExceededError, UnavailableError
from localplane_server.cli.live_status import (
    LOOK_SECONDS,
    WATCH,
    JsonView,
    LinesView,
    LiveStatus,
    ScreenView,
    follow,
    view_for,
)
from localplane_server.cli.service_state import ServiceState
from localplane_server.cli.session import Session

READY = ServiceState("host:1", "1.0", None)


def backend(model: str, **fields: Any) -> backend_pb2.Backend:
    state = backend_pb2.BACKEND_STATE_READY
    return backend_pb2.Backend(**{"model": model, "backend": "llama", "state": state, **fields})


def change(
    kind: watch_pb2.WatchKind.ValueType, *models: str, removed: tuple[str, ...] = ()
) -> backend_service_pb2.WatchBackendsResponse:
    return backend_service_pb2.WatchBackendsResponse(
        kind=kind, backends=[backend(model) for model in models], removed=removed
    )


SNAPSHOT, CHANGES = watch_pb2.WATCH_KIND_SNAPSHOT, watch_pb2.WATCH_KIND_CHANGES


class Told:
    """What a client tells, in place of one."""

    def __init__(self, *messages: backend_service_pb2.WatchBackendsResponse) -> None:
        self.messages = messages
        self.asked_after: list[str] = []
        self.cause: str | None = None

    @contextlib.contextmanager
    def watch_backends(self, *, after_revision: str) -> Iterator[Any]:
        self.asked_after.append(after_revision)
        yield iter(self.messages)

    def get_version(self) -> Any:
        return system_service_pb2.GetVersionResponse(version="1.0")

    def ready(self) -> None:
        if self.cause is not None:
            raise UnavailableError(self.cause, reason="NOT_READY", code=grpc.StatusCode.UNAVAILABLE)


class Seen:
    """What a view is shown."""

    def __init__(self) -> None:
        self.models: list[list[str]] = []
        self.causes: list[str | None] = []

    def show(self, state: ServiceState, backends: Any, change: Any) -> None:
        self.causes.append(state.cause)
        self.models.append([one.model for one in backends])
        assert (change is None) == bool(state.cause and state.cause.startswith("gone"))


class TestLiveStatus:
    def follow(self, status: LiveStatus, *messages: Any, cause: str | None = None) -> None:
        client: Any = Told(*messages)
        client.cause = cause
        status.follow(client, "host:1")

    def test_changes(self) -> None:
        """Changes add and remove; everything anew takes the place of what was known."""
        seen = Seen()
        messages = (
            change(SNAPSHOT, "b"),
            change(CHANGES, "a"),
            change(CHANGES, removed=("b", "x")),
            change(watch_pb2.WATCH_KIND_RESYNC, "c"),
        )
        self.follow(LiveStatus(seen), *messages)

        assert [["b"], ["a", "b"], ["a"], ["c"]] == seen.models

    def test_not_ready(self) -> None:
        """Why the service is not ready is shown."""
        seen = Seen()
        self.follow(LiveStatus(seen), change(SNAPSHOT), cause="the keeper is gone")

        assert ["the keeper is gone"] == seen.causes

    def test_goes_on(self) -> None:
        """The next watch begins where the last one ended, and tells if the service is not ready any more."""
        seen = Seen()
        status = LiveStatus(seen)
        first = change(SNAPSHOT, "a")
        first.revision = "7"
        self.follow(status, first)
        nothing = change(CHANGES)
        nothing.revision = "7"
        client: Any = Told(nothing)
        for cause in (None, "the keeper is gone", "the keeper is gone"):
            client.cause = cause
            status.follow(client, "host:1")

        assert ["7"] * 3 == client.asked_after
        assert [["a"], ["a"]] == seen.models
        assert [None, "the keeper is gone"] == seen.causes

    def test_gone_and_back(self) -> None:
        """That it is gone is told once; what ran is not known any more, until it is back."""
        seen = Seen()
        status = LiveStatus(seen)
        assert not status.is_known
        self.follow(status, change(SNAPSHOT, "a"))
        status.lost("nobody answers")
        status.lost("nobody answers")
        self.follow(status, change(SNAPSHOT, "b"))
        status.lost("again")

        assert status.is_known
        assert [["a"], [], ["b"], []] == seen.models
        assert [None, "gone: nobody answers", None, "gone: again"] == seen.causes


class Fleeting(Session):
    """A session with a service that is there for one message each time."""

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        yield Leaving(change(SNAPSHOT))


class Leaving(Told):
    """A client whose service goes away."""

    @contextlib.contextmanager
    def watch_backends(self, *, after_revision: str) -> Iterator[Any]:
        _ = after_revision
        yield self._messages()

    def _messages(self) -> Iterator[Any]:
        yield from self.messages
        raise UnavailableError("gone", reason="NOT_REACHABLE", code=grpc.StatusCode.UNAVAILABLE)


class Hanging(Told):
    """A client whose service has nothing to tell after its first message until the time is over."""

    @contextlib.contextmanager
    def watch_backends(self, *, after_revision: str) -> Iterator[Any]:
        yield self._messages(after_revision)

    def _messages(self, after_revision: str) -> Iterator[Any]:
        yield from () if after_revision else self.messages
        raise late(WATCH)


class Mute(Told):
    """A client whose service does not answer."""

    def get_version(self) -> Any:
        raise late("/localplane.v1.SystemService/GetVersion")

    @contextlib.contextmanager
    def watch_backends(self, *, after_revision: str) -> Iterator[Any]:
        _ = after_revision
        raise late(WATCH)
        yield


def late(method: str) -> DeadlineExceededError:
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    return DeadlineExceededError("late", reason="DEADLINE_EXCEEDED", code=code, method=method)


def test_host_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service that has nothing to tell is there as long as it answers; one that does not is gone."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    first = change(SNAPSHOT, "a")
    first.revision = "7"
    rounds = iter(("well", "well", "mute", "mute", "well"))

    class Rounds(Session):
        @contextlib.contextmanager
        def client(self) -> Iterator[Any]:
            assert LOOK_SECONDS == self.timeout
            told = next(rounds, None)
            if told is None:
                raise KeyboardInterrupt
            yield Mute(first) if told == "mute" else Hanging(first)

    with pytest.raises(KeyboardInterrupt):
        follow(Rounds(target="host:1", api_key=None, timeout=None, is_json=True))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [None, "gone: late", None] == [one["message"] for one in told]


def test_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives a time waits no longer for a service that goes away, however often it comes back."""
    now = iter(range(100))
    slept: list[float] = []
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    monkeypatch.setattr("time.sleep", slept.append)
    session = Fleeting(target="host:1", api_key=None, timeout=9.0, is_json=True)
    with pytest.raises(UnavailableError, match="gone"):
        follow(session)

    assert [1.0] * 2 == slept[:2]
    assert len(slept) < 9


class TestViews:
    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An object a line, with the backends as REST has them."""
        session = Session(target="host:1", api_key=None, timeout=None, is_json=True)
        view = JsonView(session)
        view.show(READY, [backend("a")], change(SNAPSHOT, "a"))
        view.show(ServiceState("host:1", "1.0", "gone: x"), [], None)
        first, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

        assert ("host:1", "1.0", True, None) == tuple(
            first[name] for name in ("grpc", "version", "ready", "message")
        )
        assert [("a", "ready")] == [(one["model"], one["state"]) for one in first["backends"]]
        assert (False, "gone: x", []) == (last["ready"], last["message"], last["backends"])

    def test_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The service is told of when something of it changed, a backend whenever something of it did."""
        view = LinesView()
        view.show(READY, [backend("a")], change(SNAPSHOT, "a"))
        view.show(READY, [], change(CHANGES, removed=("a",)))
        view.show(ServiceState("host:1", "1.0", "gone: x"), [], None)
        lines = capsys.readouterr().out.splitlines()

        assert "Localplane 1.0 at host:1: ready" == lines[0]
        assert ["TIME", "MODEL", "STATE"] == lines[1].split()[:3]
        assert [["a", "ready"], ["a", "stopped"]] == [line.split()[1:3] for line in lines[2:4]]
        assert ["Localplane 1.0 at host:1: gone: x"] == lines[4:]

    def test_screen(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The table is drawn over the one before, and no line of it is longer than the terminal."""
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((24, 40)))
        view = ScreenView()
        view.show(READY, [backend("a")], change(SNAPSHOT, "a"))
        first = capsys.readouterr().out
        view.show(READY, [], change(CHANGES, removed=("a",)))
        second = capsys.readouterr().out

        assert first.startswith("\r\x1b[J")
        assert 4 == first.count("\n")
        assert second.startswith("\x1b[4A\r\x1b[J")
        assert "no backend runs" in second
        assert all(len(line) < 24 for line in first.removeprefix("\r\x1b[J").splitlines())

    def test_small_screen(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What does not fit is left out, so that the next one is drawn over all of it."""
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 6)))
        view = ScreenView()
        models = [backend(str(number)) for number in range(9)]
        view.show(READY, models, change(SNAPSHOT, "0"))
        shown = capsys.readouterr().out

        assert (4, "...") == (shown.count("\n"), shown.splitlines()[-1])

    def test_words_of_several_lines(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As many lines are drawn over as were drawn, whatever a backend said last."""
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((200, 40)))
        view = ScreenView()
        view.show(READY, [backend("a", last_error="it ended\n\tby\nitself")], change(SNAPSHOT, "a"))
        drawn = capsys.readouterr().out
        view.show(READY, [], change(CHANGES, removed=("a",)))

        assert "it ended  by itself" in drawn
        assert capsys.readouterr().out.startswith(f"\x1b[{drawn.count(chr(10))}A")

    @pytest.mark.parametrize(
        ("term", "view"), [("xterm", ScreenView), ("dumb", LinesView), (None, LinesView)]
    )
    def test_terminals(
        self, monkeypatch: pytest.MonkeyPatch, term: str | None, view: type[ScreenView | LinesView]
    ) -> None:
        """A table stays in its place only where the terminal is known to have places."""
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.delenv("TERM", raising=False)
        if term is not None:
            monkeypatch.setenv("TERM", term)
        session = Session(target="host:1", api_key=None, timeout=None, is_json=False)

        assert isinstance(view_for(session), view)

    def test_hostile_words(self) -> None:
        """What a service says cannot steer the terminal, and is no longer than a line."""
        line = ServiceState("host:1", "1.0", "\x1b[2Jaway\nwith it").line(40)

        assert "away with" in line
        assert "\x1b[2J" not in line
