"""Reading a log: its last records, and whatever is written to it, over rotations."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import NamedTuple

from localplane_server.supervision.log_files import existing, first_sequence, is_at, last_record
from localplane_server.supervision.log_record import GONE, LogRecord, record_of

READ_BYTES = 64 * 1024
"""How much is read at once, which bounds what a reader holds."""
LONGEST_BYTES = 256 * 1024
"""A line longer than that is none of ours, and is left out."""


class _Place(NamedTuple):
    file: int
    offset: int


class LogReader:
    """Reads one log from a place on. Blocks for as long as the disk does, so it belongs into a thread. Close it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._file = -1
        self._offset = 0
        self._rest = b""
        self._sequence: int | None = None
        """Of the last record that was returned or skipped. None: whatever comes first is right."""

    def seek_last(self, count: int) -> int:
        """Go to where only so many records are left; with 0, to the end. Return the sequence of the last one, or 0."""
        with ExitStack() as stack:
            files = _opened(self._path, stack)
            if not files:
                return 0
            self._take(_last_lines(files, count))
            # After the place: what was written in between belongs to the past.
            last = _last_sequence(files)
            if not count:
                self._sequence = last
            return last

    def seek_after(self, sequence: int) -> int:
        """Go to the first record after a sequence, or to the oldest record when that one is gone.

        A log that has not come to the sequence yet has been begun anew, so all of it is read. Returns the sequence of
        the last record, or 0.
        """
        self._sequence = sequence
        with ExitStack() as stack:
            files = _opened(self._path, stack)
            if not files:
                return 0
            last = _last_sequence(files)
            if not last:
                return 0  # what comes may be a log that is begun anew
            if last < sequence:
                self._sequence = 0
            for file in files:
                first = first_sequence(file)
                if first is not None and first <= self._sequence + 1:
                    self._take(_Place(file, 0))
                    return last
            self._take(_Place(files[-1], 0))
            return last

    def read(self) -> list[LogRecord]:
        """Return the next records, or none when there are none yet.

        Where records are missing stands one that says which.
        """
        while True:
            if self._file < 0 and not self._go_on():
                return []
            data = os.pread(self._file, READ_BYTES, self._offset)
            if not data:
                if os.fstat(self._file).st_size < self._offset:
                    self._offset, self._rest = 0, b""  # somebody emptied it
                    continue
                if self._is_current():
                    return []
                # What was written before it was rotated, and after it was read above.
                data = os.pread(self._file, READ_BYTES, self._offset)
                if not data:
                    if not self._go_on():
                        return []
                    continue
            self._offset += len(data)
            if records := self._records(data):
                return records

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _records(self, data: bytes) -> list[LogRecord]:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= LONGEST_BYTES else rest[:1]
        records: list[LogRecord] = []
        for line in lines:
            record = record_of(line)
            if record is None or (self._sequence is not None and record.sequence <= self._sequence):
                continue
            if self._sequence is not None and record.sequence > self._sequence + 1:
                records.append(_gone(self._sequence + 1, record))
            self._sequence = record.sequence
            records.append(record)
        return records

    def _is_current(self) -> bool:
        try:
            return is_at(self._file, self._path)
        except FileNotFoundError:
            return True  # it is being rotated, or was removed: the next look tells

    def _go_on(self) -> bool:
        """Go to the file that follows; return whether there is one."""
        with ExitStack() as stack:
            files = [file for file in _opened(self._path, stack) if not self._is_open(file)]
            known = self._sequence or 0
            following = [
                (first, file)
                for file in files
                if (first := first_sequence(file)) is not None and first > known
            ]
            if following:
                self._take(_Place(min(following)[1], 0))
                return True
            newest = last_record(files[0]) if files else None
            if newest is None:
                return False  # its first record says where it belongs
            if newest.sequence <= known:
                self._sequence = 0  # begun anew
            self._take(_Place(files[0], 0))
            return True

    def _is_open(self, file: int) -> bool:
        return self._file >= 0 and os.path.sameopenfile(self._file, file)

    def _take(self, place: _Place) -> None:
        self.close()
        self._file = os.dup(place.file)
        self._offset, self._rest = place.offset, b""


def _opened(path: str, stack: ExitStack) -> list[int]:
    """Open the files of a log, the newest first, each once."""
    files: list[int] = []
    for name in existing(path):
        with suppress(FileNotFoundError):
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, file)
            # In this order, a file that is rotated meanwhile is met twice and never missed.
            if not any(os.path.sameopenfile(file, other) for other in files):
                files.append(file)
    return files


def _last_sequence(files: list[int]) -> int:
    last = next((record for file in files if (record := last_record(file))), None)
    return 0 if last is None else last.sequence


def _last_lines(files: list[int], count: int) -> _Place:
    """Return where the last lines begin."""
    for file in files:
        end = os.fstat(file).st_size
        found = 0
        while end > 0:
            start = max(0, end - READ_BYTES)
            block = os.pread(file, end - start, start)
            ends = block.count(b"\n")
            if found + ends > count:
                at = len(block)
                for _ in range(count - found + 1):
                    at = block.rindex(b"\n", 0, at)
                return _Place(file, start + at + 1)
            found += ends
            end = start
        if found == count:
            return _Place(file, 0)
        count -= found
    return _Place(files[-1], 0)


def _gone(first: int, following: LogRecord) -> LogRecord:
    last = following.sequence - 1
    text = f"record {first} is gone" if first == last else f"records {first} to {last} are gone"
    return LogRecord(last, following.time, following.pid, GONE, f"{text}: rotated away".encode())
