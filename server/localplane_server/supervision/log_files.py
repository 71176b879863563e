"""The files of one log. Standard library only.

The newest output is in `<name>`, older output in `<name>.1`, `<name>.2` and so on. While files are
rotated, one may be missing for a moment, or be met twice; sequences tell what belongs where.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from localplane_server.supervision.log_record import LogRecord, record_of

MAX_BYTES = 4 * 1024 * 1024
"""Size of one file."""
FILES = 3
"""Files of one log, the current one included."""
MOST_FILES = 100
"""The most files that a log may have."""

TAIL_BYTES = 64 * 1024
"""How much of the end, or of the beginning, of a file is read to find a record."""


class LogLimits(NamedTuple):
    """How large a log may get."""

    max_bytes: int = MAX_BYTES
    """Size of one file."""
    files: int = FILES
    """Files, the current one included."""
    first_sequence: int = 1
    """Sequence of the first record when there is none yet."""


DEFAULT_LIMITS = LogLimits()
"""Those of a log for which nothing else is said."""


def numbered(path: str, number: int) -> str:
    """Return the name of a file by its age; 0 is the current one."""
    return f"{path}.{number}" if number else path


def existing(path: str) -> list[str]:
    """Return the names of the files that there are, the newest first."""
    names: list[str] = []
    missing = 0
    for number in range(MOST_FILES):
        name = numbered(path, number)
        if os.path.exists(name):  # noqa: PTH110 - pathlib is not worth its import in a keeper
            names.append(name)
            missing = 0
        elif missing:
            break
        else:
            missing = 1  # one may be missing while it is rotated
    return names


def is_at(file: int, path: str) -> bool:
    """Whether an open file is the one of that name.

    Raises:
        FileNotFoundError: If there is none of that name.
    """
    there = os.stat(path)  # noqa: PTH116 - as above
    here = os.fstat(file)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)


def last_record(file: int) -> LogRecord | None:
    """Return the last record of an open file, or None when it ends with none of ours."""
    size = os.fstat(file).st_size
    data = os.pread(file, TAIL_BYTES, max(0, size - TAIL_BYTES))
    for line in reversed(data.split(b"\n")[:-1]):  # what follows the last end of line is torn
        record = record_of(line)
        if record is not None:
            return record
    return None


def first_sequence(file: int) -> int | None:
    """Return the sequence of the first record of an open file, or None when it has none."""
    for line in os.pread(file, TAIL_BYTES, 0).split(b"\n")[:-1]:
        record = record_of(line)
        if record is not None:
            return record.sequence
    return None
