"""Reading what a GGUF file says of itself at its beginning, however much of it is at hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

MAGIC = b"GGUF"
HEADER_BYTES = 256 * 1024
"""How much of a file is enough: what says how large a model is stands before its vocabulary."""
MOST_ENTRIES = 10_000
MOST_ELEMENTS = 100_000
LONGEST_TEXT = 1 << 20

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""How `struct` reads the types of values, by GGUF's numbers of them."""


class HeaderError(ValueError):
    """A file is no GGUF, or one that cannot be read. The message says why."""


class _TooShortError(Exception):
    """What is at hand ends here."""


def read_header(data: bytes) -> Mapping[str, Any]:
    """Return the metadata at the beginning of a file, as far as the data goes.

    Numbers, texts, truth values, and lists of numbers; lists of texts are left out.

    Raises:
        HeaderError: If it is no GGUF file.
    """
    if data[:4] != MAGIC:
        raise HeaderError("it is no GGUF file")
    found: dict[str, Any] = {}
    try:
        reader = _Reader(data, 4)
        version = reader.scalar("<I")
        if version not in (2, 3):
            raise HeaderError(f"it is of version {version} of GGUF, which is not known here")
        reader.scalar("<Q")
        entries = reader.scalar("<Q")
        if entries > MOST_ENTRIES:
            raise HeaderError("it claims to have too much metadata")
        found.update(_entries(reader, entries))
    except _TooShortError:
        pass
    return found


def _entries(reader: _Reader, entries: int) -> Iterator[tuple[str, Any]]:
    try:
        for _ in range(entries):
            key = reader.text()
            value = reader.value(reader.scalar("<I"))
            if value is not None:
                yield key, value
    except _TooShortError:
        return


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def scalar(self, code: str) -> Any:
        return struct.unpack(code, self._bytes(struct.calcsize(code)))[0]

    def text(self) -> str:
        size = self.scalar("<Q")
        if size > LONGEST_TEXT:
            raise HeaderError("it claims to have a text of impossible length")
        return self._bytes(size).decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalar(self._code(kind))
        element, count = self.scalar("<I"), self.scalar("<Q")
        if element == _STRING:
            for _ in range(count):
                self.text()
            return None
        code = self._code(element)
        data = self._bytes(struct.calcsize(code) * count)
        if count > MOST_ELEMENTS:
            return None
        return [one for (one,) in struct.iter_unpack(code, data)]

    def _code(self, kind: int) -> str:
        try:
            return _SCALARS[kind]
        except KeyError:
            raise HeaderError(f"it has a value of type {kind}, which is not known here") from None

    def _bytes(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise _TooShortError
        self._at += size
        return self._data[self._at - size : self._at]
