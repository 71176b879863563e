"""Records of a backend's log as lines for people."""

from __future__ import annotations

from datetime import UTC

import click

from localplane.v1 import backend_log_pb2
from localplane_server.cli.text import printable

Record = backend_log_pb2.BackendLogRecord


class LogPrinter:
    """Puts the pieces of lines together again, and says in lines of its own what is no line of the backend.

    Args:
        has_times: Whether each line begins with when it was written.
    """

    def __init__(self, *, has_times: bool) -> None:
        self._has_times = has_times
        self._open: int | None = None
        """The stream whose line has not ended. None when there is none."""

    def text(self, record: Record) -> str:
        """Return what to print for a record; it has its own ends of lines."""
        if record.kind == backend_log_pb2.BACKEND_LOG_KIND_LIVE:
            return ""
        is_output = record.kind == backend_log_pb2.BACKEND_LOG_KIND_OUTPUT
        goes_on = is_output and self._open == record.stream
        before = "" if goes_on else self.end()
        self._open = record.stream if record.is_partial else None
        # A line may hold nothing that would end it.
        text = printable(record.text).replace("\n", " ")
        if not is_output:
            text = click.style(f"=== {_time(record)} {text}", dim=True)
        elif self._has_times and not goes_on:
            text = f"{_time(record)} {text}"
        return f"{before}{text}" + ("" if record.is_partial else "\n")

    def end(self) -> str:
        """Return what ends the line that has not ended."""
        is_open, self._open = self._open is not None, None
        return "\n" if is_open else ""


def _time(record: Record) -> str:
    moment = record.time.ToDatetime(UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03}"
