"""What a backend says, written down: both of its streams, and marks where it starts and ends.

Standard library only. Output that comes faster than it is worth, and output for which the disk has
no room, is left out, and the log says how much that was. Neither holds up the backend.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from localplane_server.supervision.log_lines import FLUSH_SECONDS, LineSplitter, Piece
from localplane_server.supervision.log_record import (
    ENDED,
    ERRORS,
    LOST,
    MORE,
    OUTPUT,
    OVERHEAD_BYTES,
    STARTED,
)
from localplane_server.supervision.log_writer import Entry, RotatedLog

BYTES_PER_SECOND = 1024 * 1024
"""How much may be written for long."""
BURST_BYTES = 4 * 1024 * 1024
"""How much may be written at once."""


class OutputLog:
    """Writes down the output of one backend.

    Args:
        log: Where to.
        secrets: What must not be written down.
        now: The clock.
    """

    def __init__(
        self,
        log: RotatedLog,
        secrets: tuple[bytes, ...] = (),
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._now = now
        self._pid = 0
        self._splitters = {kind: LineSplitter(secrets) for kind in (OUTPUT, ERRORS)}
        self._flush_at: float | None = None
        self._allowance = float(BURST_BYTES)
        self._allowed_at = now()
        self._held: tuple[str, bytes] | None = None
        """What came last and too fast: should nothing follow, these are somebody's last words."""
        self._too_fast_bytes = 0
        self._no_room_bytes = 0

    @property
    def due_at(self) -> float | None:
        """When `look` should be called next. None: not before there is more output."""
        times = [] if self._flush_at is None else [self._flush_at]
        if self._held is not None:
            missing = _cost(self._held[1]) - self._allowance
            times.append(self._allowed_at + max(0.0, missing) / BYTES_PER_SECOND)
        return min(times, default=None)

    def started(self, pid: int, spawn_id: str) -> None:
        """Mark where the output of a new process begins."""
        self._pid = pid
        self._append([Entry(STARTED, f"process {pid} started, spawn {spawn_id}".encode())])

    def not_started(self, why: str) -> None:
        """Mark that no process could be started."""
        self._append([Entry(ENDED, why.encode(errors="replace"))])

    def ended(self, how: str) -> None:
        """Mark that the process ended. Others of its tree may still write."""
        self._end_lines()
        self._append([Entry(ENDED, f"process {self._pid} ended with {how}".encode())])

    def write(self, stream: str, data: bytes) -> None:
        """Take output of a stream."""
        self._refill()
        held = _cost(self._held[1]) if self._held else 0
        if held + _cost(data) > self._allowance:
            if self._held is not None:
                self._too_fast_bytes += len(self._held[1])
            self._held = (stream, data)
            return
        self._release()
        self._put(stream, data)

    def look(self) -> None:
        """Write down what has waited long enough."""
        self._refill()
        if self._held is not None and _cost(self._held[1]) <= self._allowance:
            self._release()
        if self._flush_at is not None and self._now() >= self._flush_at:
            self._flush_at = None
            for stream, splitter in self._splitters.items():
                self._append(_entries(stream, splitter.flush()))

    def close(self) -> None:
        """Write down the rest."""
        self._end_lines()
        self._append([])
        self._log.close()

    def _put(self, stream: str, data: bytes) -> None:
        self._allowance -= _cost(data)
        self._append(_entries(stream, self._splitters[stream].feed(data)))
        if not any(splitter.has_rest for splitter in self._splitters.values()):
            self._flush_at = None
        elif self._flush_at is None:
            self._flush_at = self._now() + FLUSH_SECONDS

    def _release(self) -> None:
        """Write down what came too fast, as there is no more of it."""
        if self._held is None:
            return
        (stream, data), self._held = self._held, None
        if self._too_fast_bytes:
            # What is missing began somewhere in a line.
            self._append(_entries(stream, self._splitters[stream].end()))
            rate = BYTES_PER_SECOND // 2**20
            text = (
                f"{self._too_fast_bytes} bytes of output are missing: more than {rate} MiB a second"
            )
            self._too_fast_bytes = 0
            self._append([Entry(LOST, text.encode())])
        self._put(stream, data)

    def _end_lines(self) -> None:
        self._release()
        self._flush_at = None
        for stream, splitter in self._splitters.items():
            self._append(_entries(stream, splitter.end()))

    def _append(self, entries: list[Entry]) -> None:
        if self._no_room_bytes:
            text = f"{self._no_room_bytes} bytes of output are missing: they could not be written"
            if not self._log.append(self._pid, [Entry(LOST, text.encode())]):
                self._no_room_bytes += _length(entries)
                return
            self._no_room_bytes = 0
        if entries:
            written = self._log.append(self._pid, entries)
            self._no_room_bytes += _length(entries[written:])

    def _refill(self) -> None:
        now = self._now()
        more = (now - self._allowed_at) * BYTES_PER_SECOND
        self._allowance = min(BURST_BYTES, self._allowance + more)
        self._allowed_at = now


def _entries(stream: str, pieces: list[Piece]) -> list[Entry]:
    return [Entry(stream + MORE if goes_on else stream, text) for text, goes_on in pieces]


def _length(entries: list[Entry]) -> int:
    return sum(len(entry.text) + 1 for entry in entries)


def _cost(data: bytes) -> int:
    """Return about how much of the disk some output takes."""
    return len(data) + OVERHEAD_BYTES * (data.count(b"\n") + 1)
