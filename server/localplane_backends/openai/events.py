"""Server-sent events, read from bytes as they come."""

from __future__ import annotations

LARGEST_EVENT = 4 * 1024 * 1024
"""Bytes of one event. A piece of an answer has some hundred."""


class EventTooLargeError(Exception):
    """An event is larger than `LARGEST_EVENT`."""


class EventReader:
    """Takes the bytes of a stream apart, wherever they were cut.

    Lines end in CR LF, LF or CR; comments, and fields other than the data, are passed over. A field
    `error`, which some servers send in place of data, counts as an object with that key.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._is_first = True
        self._skips_newline = False

    def feed(self, received: bytes) -> list[bytes]:
        """Return the data of the events that are now complete.

        Raises:
            EventTooLargeError: If one grows too large.
        """
        if self._skips_newline and received:
            received = received.removeprefix(b"\n")
            self._skips_newline = False
        self._rest += received
        lines: list[bytes] = []
        if b"\n" in received or b"\r" in received:
            lines = bytes(self._rest).splitlines(keepends=True)
            self._rest.clear()
            if lines[-1].endswith(b"\r"):
                # Its other half may come with the next bytes.
                self._skips_newline = True
            elif not lines[-1].endswith(b"\n"):
                self._rest += lines.pop()
        events = []
        for line in lines:
            event = self._take(line.rstrip(b"\r\n"))
            if event is not None:
                events.append(event)
        if len(self._rest) + self._size > LARGEST_EVENT:
            raise EventTooLargeError
        return events

    def end(self) -> bytes | None:
        """Return the data of an event that the end of the stream completed, or None."""
        if self._rest:
            self._take(bytes(self._rest))
            self._rest.clear()
        return self._take(b"")

    def _take(self, line: bytes) -> bytes | None:
        """Take one line, and return the data of the event that it ends or None."""
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if not self._data:
                return None
            event = b"\n".join(self._data)
            self._data = []
            self._size = 0
            return event
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif field == b"error" and value:
            self._data.append(b'{"error": ' + value + b"}")
            self._size += len(value) + 1
        return None
