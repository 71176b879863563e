"""Server-sent events, however they are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localplane_backends.openai.events import LARGEST_EVENT, EventReader, EventTooLargeError

END = st.sampled_from([b"\n", b"\r\n", b"\r"])
TEXT = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), min_size=1)


def read(pieces: list[bytes]) -> list[bytes]:
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    last = reader.end()
    return events if last is None else [*events, last]


@given(texts=st.lists(TEXT, max_size=5), end=END, data=st.data())
def test_any_cut(texts: list[str], end: bytes, data: st.DataObject) -> None:
    """Wherever the bytes are cut, and whatever ends the lines, the events are the same."""
    whole = b"".join(b"data: " + text.encode() + end + end for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    bounds = [0, *cuts, len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(bounds)]

    assert [text.encode() for text in texts] == read(pieces)


@given(st.lists(st.binary(), max_size=10))
def test_garbage(pieces: list[bytes]) -> None:
    """No bytes break it."""
    read(pieces)


@pytest.mark.parametrize(
    ("sent", "events"),
    [
        (b"data:no space\n\n", [b"no space"]),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b": comment\n\n\n\n", []),
        (b"event: x\nid: 1\n\n", []),
        (b"database: a\n\n", []),
        (b'error: {"message": "x"}\n\n', [b'{"error": {"message": "x"}}']),
        (b"data: unfinished", [b"unfinished"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    ],
)
def test_fields(sent: bytes, events: list[bytes]) -> None:
    """Lines are what the standard says, and a little more."""
    assert events == read([sent])


def test_too_large() -> None:
    """An event may not grow for ever, in one line or in many."""
    for piece in (b"x" * 65536, b"data: " + b"x" * 65536 + b"\n"):
        reader = EventReader()
        reader.feed(b"data: ")
        for _ in range(LARGEST_EVENT // 65536 - 1):
            reader.feed(piece)

        with pytest.raises(EventTooLargeError):
            reader.feed(piece * 2)
