"""Lines of logs."""

from __future__ import annotations

import pytest

from localplane_server.supervision.log_record import (
    ERRORS,
    OUTPUT,
    LogRecord,
    line_of,
    record_of,
    utc,
)


def test_there_and_back() -> None:
    """What is written is what is read, whatever the text is made of."""
    for text in (b"", b" two  blanks ", b"\xff\x00\r", "café 🎈".encode()):
        record = LogRecord(7, "2026-01-31T12:00:00.000Z", 42, ERRORS, text)

        assert record == record_of(line_of(record).removesuffix(b"\n"))


def test_for_people() -> None:
    """A line can be read as it is."""
    record = LogRecord(7, utc(1_700_000_000.9999), 42, OUTPUT, b"hello")

    assert b"7 2023-11-14T22:13:20.999Z 42 out hello\n" == line_of(record)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"1 2 3 4",
        b"1 2 3 what text",
        b"-1 t 3 out x",
        b"x t 3 out x",
        b"1 t x out x",
    ],
)
def test_not_ours(line: bytes) -> None:
    """What somebody else wrote is no record."""
    assert record_of(line) is None
