"""Output of a process as lines, whatever it is made of. Standard library only."""

from __future__ import annotations

from localplane_server.supervision.redaction import MARK

LONGEST_LINE_BYTES = 16 * 1024
"""A longer line becomes several pieces."""
FLUSH_SECONDS = 1.0
"""How long the beginning of a line may wait for its end."""

Piece = tuple[bytes, bool]
"""Text, and whether its line goes on in the next piece."""


class LineSplitter:
    """Splits one stream into lines, and holds no more of it than a line may be long.

    A carriage return begins the line anew, as on a terminal: of a progress bar, only what it shows
    last counts, and what it shows when somebody looks. Characters of UTF-8 are not split.
    """

    def __init__(self, secrets: tuple[bytes, ...] = ()) -> None:
        self._secrets = secrets
        self._rest = b""
        self._is_progress = False
        """Whether the line has begun anew before."""
        self._is_continued = False
        """Whether a piece of the line has been handed out."""
        self._is_shown = False
        """Whether all that a progress bar has shown has been handed out."""

    @property
    def has_rest(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Piece]:
        """Take output, and return what can be handed out."""
        data = self._rest + data
        for secret in self._secrets:
            data = data.replace(secret, MARK.encode())
        *lines, self._rest = data.split(b"\n")
        pieces: list[Piece] = []
        for line in lines:
            self._end_line(line, pieces)
        if b"\r" in self._rest:
            self._begin_anew(pieces)
            self._is_progress = True
            self._is_shown = False
            self._rest = _shown(self._rest) + (b"\r" if self._rest.endswith(b"\r") else b"")
        while len(self._rest) > LONGEST_LINE_BYTES:
            self._rest = self._cut(self._rest, pieces)
        return pieces

    def flush(self) -> list[Piece]:
        """Return the line that has begun, as far as it has come."""
        if self._is_progress:
            text, self._rest, self._is_shown = _shown(self._rest), b"", True
            return [(text, False)] if text else []
        whole = _whole_bytes(self._rest)
        text, self._rest = self._rest[:whole], self._rest[whole:]
        self._is_continued = self._is_continued or bool(text)
        return [(text, True)] if text else []

    def end(self) -> list[Piece]:
        """Return the rest: nothing follows."""
        pieces: list[Piece] = []
        if self._rest or self._is_continued:
            line, self._rest = self._rest, b""
            self._end_line(line, pieces)
        return pieces

    def _end_line(self, line: bytes, pieces: list[Piece]) -> None:
        if b"\r" in line.rstrip(b"\r"):
            self._begin_anew(pieces)
        text = _shown(line)
        while len(text) > LONGEST_LINE_BYTES:
            text = self._cut(text, pieces)
        if text or not self._is_shown:
            pieces.append((text, False))
        self._is_progress = self._is_continued = self._is_shown = False

    def _begin_anew(self, pieces: list[Piece]) -> None:
        """Take note that what has been handed out is not continued but replaced."""
        if self._is_continued:
            pieces.append((b"", False))
            self._is_continued = False

    def _cut(self, text: bytes, pieces: list[Piece]) -> bytes:
        whole = _whole_bytes(text[:LONGEST_LINE_BYTES])
        pieces.append((text[:whole], True))
        self._is_continued = True
        return text[whole:]


def _shown(line: bytes) -> bytes:
    """Return what a terminal would show of a line with carriage returns, nearly."""
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]


def _whole_bytes(text: bytes) -> int:
    """Return how many bytes there are without the character of UTF-8 that is cut at the end."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte & 0xC0 != 0x80:  # noqa: PLR2004 - the bits of a byte that continues a character
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1  # noqa: PLR2004
            return len(text) - back if length > back else len(text)
    return len(text)
