"""Logs of backends: written by their wardens, size-bounded, and read from the end.

Standard library only. A log is `<name>`, and older output is in `<name>.1` and `<name>.2`. Before
the output of each process stands a line that names its spawn.
"""

from __future__ import annotations

import os

MAX_BYTES = 4 * 1024 * 1024
"""Size of one file."""
FILES = 3
"""Files of one log, the current one included."""

_TAIL_BYTES = 64 * 1024
_LINE_CHARACTERS = 4096


class RotatedLog:
    """Appends output to a log and keeps the log bounded.

    A disk that is full costs output, never the writer: what could not be written is counted, and
    the log says so as soon as there is room again.
    """

    def __init__(self, path: str, *, max_bytes: int = MAX_BYTES, files: int = FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._lost_bytes = 0
        self._file = self._open()
        self._size = os.fstat(self._file).st_size

    def begin(self, spawn_id: str) -> None:
        """Mark where the output of a new process starts."""
        self.write(_mark(spawn_id))

    def write(self, data: bytes) -> None:
        """Append output."""
        if self._lost_bytes:
            lost, self._lost_bytes = self._lost_bytes, 0
            if not self._append(b"=== localplane lost %d bytes of output here\n" % lost):
                self._lost_bytes = lost
        if self._lost_bytes or not self._append(data):
            self._lost_bytes += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, data: bytes) -> bool:
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            while data:
                written = os.write(self._file, data)
                self._size += written
                data = data[written:]
        except OSError:
            return False
        return True

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            younger = f"{self._path}.{number - 1}" if number > 1 else self._path
            if os.path.exists(younger):  # noqa: PTH110 - pathlib is not worth its import in a keeper
                os.replace(younger, f"{self._path}.{number}")  # noqa: PTH105 - as above
        file = self._open()
        os.close(self._file)
        self._file = file
        self._size = 0

    def _open(self) -> int:
        # Prompts may end up in a log: it is nobody else's to read.
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def tail(
    path: str | os.PathLike[str], *, lines: int = 20, spawn_id: str | None = None
) -> list[str]:
    """Return the last lines of a log, oldest first.

    Reads 64 KiB at most. Bytes that are not UTF-8 are replaced, long lines are cut. A log that does
    not exist is empty.

    Args:
        path: The log.
        lines: How many lines at most.
        spawn_id: Return only output of this spawn, however little that is.
    """
    data = _last_bytes(os.fspath(path), _TAIL_BYTES)
    is_cut = len(data) == _TAIL_BYTES
    if spawn_id is not None:
        _, mark, after = data.rpartition(_mark(spawn_id))
        if mark:
            data, is_cut = after, False
    found = data.decode(errors="replace").split("\n")
    if is_cut:
        del found[0]  # most likely only the end of a line
    if found and not found[-1]:
        del found[-1]
    return [line.rstrip("\r")[:_LINE_CHARACTERS] for line in found[-lines:]] if lines else []


def _last_bytes(path: str, count: int) -> bytes:
    data = b""
    for name in [path, *(f"{path}.{number}" for number in range(1, FILES))]:
        try:
            with open(name, "rb") as file:  # noqa: PTH123 - pathlib is not worth its import in a keeper
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - (count - len(data))))
                # The warden may write meanwhile.
                data = file.read(count - len(data)) + data
        except FileNotFoundError:
            continue
        if len(data) >= count:
            break
    return data


def _mark(spawn_id: str) -> bytes:
    return b"=== localplane spawn %s\n" % spawn_id.encode()
