"""Answers in words and columns, for people."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

UNKNOWN = "-"
"""What stands for what is not known."""

# What a terminal would obey instead of showing: models and file names can hold anything.
_OBEYED = {
    code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in ("\n", "\t")
}
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")


def printable(text: str) -> str:
    """Return a text without what a terminal would obey, such as colours and other escape sequences."""
    return _SEQUENCE.sub("", text).translate(_OBEYED)


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a line takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def cut(text: str, columns: int) -> str:
    """Return a text as one line that takes no more than so many columns of a terminal."""
    line = re.sub(r"[\n\t]", " ", text)
    if line.isascii():
        return line[:columns]
    taken = 0
    for place, character in enumerate(line):
        taken += _columns(character)
        if taken > columns:
            return line[:place]
    return line


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0  # it goes with the one before
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table: a heading and a line for each row, in columns as wide as needed."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def facts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each pair of a name and what there is to say of it."""
    known = [(name, printable(value)) for name, value in pairs]
    width = max(len(name) for name, _ in known)
    return [f"{name.ljust(width)}  {value}" for name, value in known]


def size(count: int | None) -> str:
    """Return a number of bytes in words."""
    if count is None:
        return UNKNOWN
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:  # noqa: PLR2004 - how many make one of the next
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def percent(value: float | None) -> str:
    """Return a share in words."""
    return UNKNOWN if value is None else f"{value:.1f} %"


def since(moment: Timestamp | None) -> str:
    """Return how long ago something was, in words."""
    if moment is None:
        return UNKNOWN
    seconds = max(0, round((datetime.now(UTC) - moment.ToDatetime(UTC)).total_seconds()))
    for length, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {name} ago"
    return f"{seconds} s ago"
