"""Backends in lines, for people: a table of all, or a line for each change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from localplane.v1 import backend_pb2, backend_service_pb2, watch_pb2
from localplane_server.cli.text import UNKNOWN, facts, percent, printable, since, size, table


def backend_rows(backends: Iterable[backend_pb2.Backend]) -> Iterator[str]:
    """Return the table of backends, and why those that failed did."""
    backends = list(backends)
    headings = ("MODEL", "BACKEND", "STATE", "PID", "MEMORY", "CALLS", "WAITING", "LAST USED")
    rows = [
        (
            one.model,
            one.backend,
            state_name(one.state),
            str(one.pid) if one.HasField("pid") else UNKNOWN,
            size(one.memory_info.rss if one.HasField("memory_info") else None),
            str(one.in_flight),
            str(one.waiting),
            since(one.last_used if one.HasField("last_used") else None),
        )
        for one in backends
    ]
    yield from table(headings, rows) if rows else ["no backend runs"]
    for one in backends:
        if one.HasField("last_error"):
            yield from facts([(f"{one.model}:", one.last_error)])


def state_name(state: backend_pb2.BackendState.ValueType) -> str:
    """Return the word for a state, as REST writes it."""
    return backend_pb2.BackendState.Name(state).removeprefix("BACKEND_STATE_").lower()


class WatchLines:
    """Makes the lines of a watch, in columns that only get wider."""

    def __init__(self) -> None:
        self._widths = [0] * 8
        self._is_headed = False

    def of(self, message: backend_service_pb2.WatchBackendsResponse) -> Iterator[str]:
        """Return the lines of one message."""
        now = f"{datetime.now(UTC).astimezone():%H:%M:%S}"
        if message.kind == watch_pb2.WATCH_KIND_RESYNC:
            yield f"{now}  everything anew: some changes before this are not known"
        changed = [(now, *_watched(one)) for one in message.backends]
        gone = [(now, model, "stopped", *[UNKNOWN] * 5) for model in message.removed]
        rows = [[printable(cell).replace("\n", " ") for cell in row] for row in (*changed, *gone)]
        if not self._is_headed:
            self._is_headed = True
            rows.insert(0, ["TIME", "MODEL", "STATE", "PID", "MEMORY", "CPU", "CALLS", ""])
            if len(rows) == 1 and message.kind != watch_pb2.WATCH_KIND_CHANGES:
                rows.append([now, UNKNOWN, "no backend runs", *[""] * 5])
        for row in rows:
            self._widths = list(map(max, self._widths, map(len, row)))
        for row in rows:
            cells = zip(row, self._widths, strict=True)
            yield "  ".join(cell.ljust(width) for cell, width in cells).rstrip()


def _watched(one: backend_pb2.Backend) -> tuple[str, ...]:
    return (
        one.model,
        state_name(one.state),
        str(one.pid) if one.HasField("pid") else UNKNOWN,
        size(one.memory_info.rss if one.HasField("memory_info") else None),
        percent(one.cpu_percent if one.HasField("cpu_percent") else None),
        str(one.in_flight),
        one.last_error if one.state == backend_pb2.BACKEND_STATE_FAILED else "",
    )
