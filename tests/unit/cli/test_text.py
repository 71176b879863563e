"""Words and columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from localplane_server.cli.text import (
    columns_of,
    cut,
    facts,
    percent,
    printable,
    since,
    size,
    table,
)


def test_printable() -> None:
    """What a terminal would obey does not reach it; lines, tabs and other alphabets do."""
    assert "red\n\tnaïve 你好" == printable("\x1b[31mred\r\x07\n\tna\u00efve \x9b你好\x7f")
    assert "ab" == printable("a\x9b1;31mb\x1b[2J\x1b[?25l")


def test_table() -> None:
    """Columns are as wide as their widest cell, and a cell is one line."""
    assert ["A     B", "long  1", "x     two lines"] == table(
        ("A", "B"), [("long", "1"), ("x", "two\nlines")]
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("abcdef", "abcd"),
        ("a\nb\tcd", "a b "),
        ("你好吗", "你好"),
        ("a你好吗", "a你"),
        ("e\u0301e\u0301e\u0301e\u0301e", "e\u0301e\u0301e\u0301e\u0301"),
        ("你", "你"),
    ],
)
def test_cut(text: str, shown: str) -> None:
    """A line takes no more columns than there are, in any alphabet."""
    assert shown == cut(text, 4)
    assert columns_of(shown) <= 4


def test_facts() -> None:
    """Values stand below each other."""
    assert ["a      1", "other  2"] == facts([("a", "1"), ("other", "2")])


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "2 KiB"),
        (94 << 20, "94 MiB"),
        (3 << 29, "1.5 GiB"),
        (1 << 42, "4096.0 GiB"),
    ],
)
def test_size(count: int | None, words: str) -> None:
    """Bytes in the unit that fits; unknown is not zero."""
    assert words == size(count)


def test_percent() -> None:
    """Unknown is not zero."""
    assert ["-", "0.0 %", "12.3 %"] == [percent(None), percent(0.0), percent(12.34)]


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (timedelta(seconds=-5), "0 s ago"),
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=2, seconds=3), "2 min ago"),
        (timedelta(hours=5), "5 h ago"),
        (timedelta(days=3), "3 d ago"),
    ],
)
def test_since(ago: timedelta, words: str) -> None:
    """The largest unit that fits; clocks that differ a little give no nonsense."""
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) - ago)

    assert words == since(moment)


def test_since_never() -> None:
    """What did not happen has no time."""
    assert "-" == since(None)
