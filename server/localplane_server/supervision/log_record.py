"""The lines of a backend's log: numbered, dated, and marked with whose they are.

Standard library only. A line is ``SEQUENCE TIME PROCESS KIND TEXT``. Sequences grow by one from line
to line, over rotations and restarts. The time is UTC, the process the one that was started. The text
is what was written, byte by byte, but for the end of its line.
"""

from __future__ import annotations

import time
from typing import NamedTuple

OUTPUT, ERRORS = "out", "err"
"""What was written to standard output, and to standard error."""
MORE = "+"
"""After one of the two: the line goes on in the next record of the same stream."""
STARTED, ENDED = "start", "end"
"""A process was started, or ended; the text says how."""
LOST = "lost"
"""Output is missing here; the text says how much and why."""
GONE = "gone"
"""Records are missing here, as they have been rotated away. Made up while reading."""
LIVE = "live"
"""All that was written before has been read. Made up while reading."""

KINDS = frozenset({OUTPUT, ERRORS, OUTPUT + MORE, ERRORS + MORE, STARTED, ENDED, LOST})
"""All kinds that stand in files."""
OVERHEAD_BYTES = 48
"""What a line takes besides its text, about."""

LONGEST_SEQUENCE = 18
"""Digits of the largest number that can be a sequence."""

_FIELDS = 5
_LONGEST_PID = 9


class LogRecord(NamedTuple):
    """One line of a log."""

    sequence: int
    """Its number."""
    time: str
    """When it was written, as `2026-01-31T12:00:00.000Z`."""
    pid: int
    """Process that was started for the model; 0 when it could not be."""
    kind: str
    """One of the kinds above."""
    text: bytes
    """What was written, or what there is to say."""


def line_of(record: LogRecord) -> bytes:
    """Return a record as it stands in a file."""
    head = f"{record.sequence} {record.time} {record.pid} {record.kind} "
    return head.encode() + record.text + b"\n"


def record_of(line: bytes) -> LogRecord | None:
    """Return the record in a line without its end, or None when it is none of ours."""
    fields = line.split(b" ", _FIELDS - 1)
    if len(fields) != _FIELDS or not fields[0].isdigit() or not fields[2].isdigit():
        return None
    if len(fields[0]) > LONGEST_SEQUENCE or len(fields[2]) > _LONGEST_PID:
        return None
    kind = fields[3].decode(errors="replace")
    if kind not in KINDS:
        return None
    moment = fields[1].decode(errors="replace")
    return LogRecord(int(fields[0]), moment, int(fields[2]), kind, fields[4])


def utc(moment: float) -> str:
    """Return seconds since 1970 as a record has them."""
    seconds, milliseconds = divmod(int(moment * 1000), 1000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{milliseconds:03}Z"
