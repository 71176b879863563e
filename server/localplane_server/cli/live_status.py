"""Shows what runs, as it changes, over restarts of the service."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import click

from localplane.v1 import backend_pb2, backend_service_pb2, watch_pb2
from localplane_client import Client, DeadlineExceededError, UnavailableError
from localplane_server.cli.backend_lines import WatchLines, backend_rows
from localplane_server.cli.readers import end_with_reader
from localplane_server.cli.service_state import ServiceState
from localplane_server.cli.session import Session, rest_json
from localplane_server.cli.text import cut

RETRY_SECONDS = 1.0
"""Pause between two attempts to find a service again."""
LOOK_SECONDS = 30.0
"""How long one watch lasts before the service is asked anew: a host that is gone closes no connection."""
LEAST_SECONDS = 0.01
"""Time that is too short for anything."""

WATCH = "/localplane.v1.BackendService/WatchBackends"
"""The method whose deadline says nothing of the service."""

Message = backend_service_pb2.WatchBackendsResponse


def follow(session: Session) -> None:
    """Show the service and its backends, and every change, for ever or for as long as the session's timeout.

    A service that goes away is waited for, once it was seen; that it is gone is told.

    Raises:
        LocalplaneError: If nobody is there to begin with, what is there refuses, or the time is over.
    """
    end_with_reader()
    status = LiveStatus(view_for(session))
    until = math.inf if session.timeout is None else time.monotonic() + session.timeout
    while True:
        left = until - time.monotonic()
        timeout = min(max(left, LEAST_SECONDS), LOOK_SECONDS)
        try:
            with replace(session, timeout=timeout).client() as client:
                status.follow(client, session.target)
            status.lost("the service ended the watch")
        except (UnavailableError, DeadlineExceededError) as error:
            # Whoever asked for a time gets no more of it because the service went away.
            if not status.is_known or until - time.monotonic() < LEAST_SECONDS:
                raise
            if isinstance(error, DeadlineExceededError) and error.method == WATCH:
                continue
            status.lost(error.message)
        time.sleep(min(RETRY_SECONDS, max(until - time.monotonic(), 0)))


class View(Protocol):
    """How it is shown."""

    def show(
        self, state: ServiceState, backends: Sequence[backend_pb2.Backend], change: Message | None
    ) -> None:
        """Show what is so now.

        Args:
            state: The service.
            backends: All its backends, by the names of their models.
            change: What changed. None when the service is gone.
        """


class LiveStatus:
    """What is known of a service that is watched.

    Args:
        view: Shows it.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._state: ServiceState | None = None
        self._is_lost = False
        self._revision = ""
        self._backends: dict[str, backend_pb2.Backend] = {}

    @property
    def is_known(self) -> bool:
        """Whether the service was ever seen."""
        return self._state is not None

    def follow(self, client: Client, target: str) -> None:
        """Show every change until the service ends the watch. It goes on where the last one ended.

        Raises:
            LocalplaneError: If the service goes away or refuses, or the time of the client is over.
        """
        if self._revision:
            state = ServiceState.ask(client, target)
            if state != self._state:
                self._state = state
                self._show(Message(kind=watch_pb2.WATCH_KIND_CHANGES))
        with client.watch_backends(after_revision=self._revision) as messages:
            for message in messages:
                state = ServiceState.ask(client, target)
                is_all = message.kind != watch_pb2.WATCH_KIND_CHANGES
                # One that goes on tells where it is, even if nothing changed.
                is_new = bool(is_all or message.backends or message.removed)
                if is_all:
                    self._backends.clear()
                self._backends.update((one.model, one) for one in message.backends)
                for model in message.removed:
                    self._backends.pop(model, None)
                is_new = is_new or state != self._state
                self._state, self._is_lost = state, False
                self._revision = message.revision
                if is_new:
                    self._show(message)

    def lost(self, cause: str) -> None:
        """Tell that the service is gone; once, however long that lasts."""
        if self._state is not None and not self._is_lost:
            self._is_lost, self._revision = True, ""
            self._backends.clear()
            self._view.show(replace(self._state, cause=f"gone: {cause}"), [], None)

    def _show(self, change: Message) -> None:
        if self._state is not None:
            backends = [one for _, one in sorted(self._backends.items())]
            self._view.show(self._state, backends, change)


class JsonView:
    """An object a line."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def show(
        self, state: ServiceState, backends: Sequence[backend_pb2.Backend], change: Message | None
    ) -> None:
        """See `View`."""
        _ = change
        answer = backend_service_pb2.ListBackendsResponse(backends=backends)
        document = {**state.document(), "backends": rest_json(answer, field="backends")}
        self._session.write_json(document)


class LinesView:
    """A line for each change, for files and pipes."""

    def __init__(self) -> None:
        self._said: str | None = None
        self._lines = WatchLines()

    def show(
        self, state: ServiceState, backends: Sequence[backend_pb2.Backend], change: Message | None
    ) -> None:
        """See `View`."""
        _ = backends
        line = state.line()
        if line != self._said:
            self._said = line
            click.echo(line)
        for one in self._lines.of(change) if change is not None else ():
            click.echo(one)


class ScreenView:
    """A table in one place of a terminal."""

    def __init__(self) -> None:
        self._drawn = 0

    def show(
        self, state: ServiceState, backends: Sequence[backend_pb2.Backend], change: Message | None
    ) -> None:
        """See `View`."""
        size = shutil.get_terminal_size()
        # The last column and the last row stay free: a terminal that moves on by itself would move the table, too.
        columns, rows = max(size.columns - 1, 1), max(size.lines - 2, 1)
        table = list(backend_rows(backends)) if change is not None else ["waiting for the service"]
        # What a backend last said may be of several lines, which would not be counted.
        lines = [state.line(columns), "", *(cut(line, columns) for line in table)]
        if len(lines) > rows:
            lines = [*lines[: rows - 1], "..."[:columns]]
        above = f"\x1b[{self._drawn}A" if self._drawn else ""
        # Not with echo, which takes it for a colour where there must be none.
        sys.stdout.write(f"{above}\r\x1b[J")
        for line in lines:
            click.echo(line)
        self._drawn = len(lines)


def view_for(session: Session) -> View:
    """Return how it is shown where this command writes to."""
    if session.is_json:
        return JsonView(session)
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return ScreenView() if is_terminal else LinesView()
