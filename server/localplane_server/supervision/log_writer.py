"""Writing a log: numbers records, and keeps the files bounded. Standard library only."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from localplane_server.supervision import log_files
from localplane_server.supervision.log_files import DEFAULT_LIMITS, LogLimits, numbered
from localplane_server.supervision.log_record import LogRecord, line_of, utc

LOCK_SECONDS = 3.0
"""How long whoever wrote the log before may take to let go of it."""

_RETRY_SECONDS = 0.02
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Entry(NamedTuple):
    """What is to be written."""

    kind: str
    """A kind of record."""
    text: bytes
    """Its text, without an end of line."""


class RotatedLog:
    """Appends records to a log and keeps the log bounded.

    One at a time writes a log: another waits until the first has closed it, or, should that take
    long, goes on beside it. A disk that is full costs records, never the writer.

    Raises:
        OSError: If the file cannot be opened for another cause than a full disk.
    """

    def __init__(
        self, path: str, limits: LogLimits = DEFAULT_LIMITS, *, lock_seconds: float = LOCK_SECONDS
    ) -> None:
        self._path = path
        self._limits = limits
        self._lock_until = time.monotonic() + lock_seconds
        self._file = -1
        self._size = 0
        self._sequence = 0
        """Of the last record."""
        try:
            self._open()
        except OSError as error:
            if error.errno not in _FULL:
                raise
        self._remove_surplus()

    def append(self, pid: int, entries: Sequence[Entry]) -> int:
        """Append entries, and return how many were written: fewer when there is no room."""
        moment = utc(time.time())
        written = 0
        lines: list[bytes] = []
        length = 0
        try:
            if self._file < 0:
                self._open()
            for entry in entries:
                number = self._sequence + len(lines) + 1
                line = line_of(LogRecord(number, moment, pid, entry.kind, entry.text))
                if self._size + length and self._size + length + len(line) > self._limits.max_bytes:
                    written += self._write(lines)
                    lines, length = [], 0
                    self._rotate()
                lines.append(line)
                length += len(line)
            written += self._write(lines)
        except OSError:
            return written
        return written

    def close(self) -> None:
        """Close the file, so that somebody else may write."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, lines: list[bytes]) -> int:
        """Write lines, all or none."""
        data = b"".join(lines)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)  # no half of a line
            raise
        self._size += sum(map(len, lines))
        self._sequence += len(lines)
        return len(lines)

    def _open(self) -> None:
        """Open the file and go on behind the last record."""
        self._file = self._locked()
        self._size = os.fstat(self._file).st_size
        self._mend()
        self._sequence = max(self._sequence, self._last_sequence(), self._limits.first_sequence - 1)

    def _locked(self) -> int:
        while True:
            file = _open_private(self._path)
            is_ours = _lock(file)
            # Whoever had it may have rotated it meanwhile.
            if (is_ours and self._is_current(file)) or time.monotonic() >= self._lock_until:
                return file
            os.close(file)
            if not is_ours:
                time.sleep(_RETRY_SECONDS)

    def _is_current(self, file: int) -> bool:
        try:
            return log_files.is_at(file, self._path)
        except FileNotFoundError:
            return False

    def _mend(self) -> None:
        """Cut off what follows the last end of line: a writer was ended in the middle."""
        data = os.pread(self._file, log_files.TAIL_BYTES, max(0, self._size - log_files.TAIL_BYTES))
        torn = len(data) - 1 - data.rfind(b"\n")
        if torn:
            self._size -= torn
            os.ftruncate(self._file, self._size)

    def _last_sequence(self) -> int:
        for name in log_files.existing(self._path):
            with suppress(OSError), open(name, "rb") as file:  # noqa: PTH123 - see log_files
                record = log_files.last_record(file.fileno())
                if record is not None:
                    return record.sequence
        return 0

    def _rotate(self) -> None:
        # Under another name until it is locked: else another writer could have it in between.
        new = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(new)  # noqa: PTH108 - as above
        file = _open_private(new)
        _lock(file)
        oldest = 0
        while oldest < self._limits.files - 1 and os.path.exists(numbered(self._path, oldest)):  # noqa: PTH110
            oldest += 1
        try:
            for number in range(oldest, 0, -1):
                younger = numbered(self._path, number - 1)
                os.replace(younger, numbered(self._path, number))  # noqa: PTH105 - as above
            os.replace(new, self._path)  # noqa: PTH105
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size = file, 0

    def _remove_surplus(self) -> None:
        for name in log_files.existing(self._path)[self._limits.files :]:
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108 - as above


def _open_private(path: str) -> int:
    # Prompts may end up in a log: it is nobody else's to read.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
