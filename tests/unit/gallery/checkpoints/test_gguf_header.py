"""What a model file says of itself at its beginning."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localplane_server.gallery.checkpoints.gguf import Kind, number, numbers, string, strings
from localplane_server.gallery.checkpoints.gguf_header import HeaderError, read_header

ENTRIES = [
    string("general.architecture", "llama"),
    number("a.uint", Kind.UINT32, 7),
    number("a.float", Kind.FLOAT32, 0.5),
    number("a.flag", Kind.BOOL, 1),
    numbers("a.numbers", Kind.INT32, [1, -2, 3]),
    strings("tokens", ["a", "b", "ü"]),
    number("after.tokens", Kind.INT32, -1),
]
FOUND = {
    "general.architecture": "llama",
    "a.uint": 7,
    "a.float": 0.5,
    "a.flag": True,
    "a.numbers": [1, -2, 3],
    "after.tokens": -1,
}


def header(entries: list[bytes], *, count: int | None = None, version: int = 3) -> bytes:
    counted = len(entries) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, 5, counted) + b"".join(entries)


def test_all() -> None:
    """Every kind of entry is read; lists of texts are passed over."""
    assert read_header(header(ENTRIES)) == FOUND


@pytest.mark.parametrize("size", range(4, len(header(ENTRIES))))
def test_cut_off(size: int) -> None:
    """However little of it there is, what is read is right."""
    found = read_header(header(ENTRIES)[:size])

    assert found == dict(list(FOUND.items())[: len(found)])


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "no GGUF"),
        (b"<html>", "no GGUF"),
        (header([], version=1), "version 1"),
        (header([], count=1 << 40), "too much metadata"),
        (header([struct.pack("<Q", 1 << 40)], count=1), "impossible length"),
        (header([string("x", "y")[:-5] + b"\x63\0\0\0"], count=1), "not known|impossible"),
    ],
)
def test_wrong(data: bytes, cause: str) -> None:
    """What is no such file, or claims what cannot be, is told as such."""
    with pytest.raises(HeaderError, match=cause):
        read_header(data)


def test_endless_list() -> None:
    """A list that claims to be longer than all there is takes nothing."""
    entry = struct.pack("<Q", 1) + b"x" + struct.pack("<IIQ", 9, 4, 1 << 60)

    assert read_header(header([entry], count=1)) == {}


@given(st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    """Whatever comes, it is read or refused."""
    with contextlib.suppress(HeaderError):
        read_header(b"GGUF\x03\0\0\0" + data)
