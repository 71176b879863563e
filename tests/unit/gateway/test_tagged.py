"""Answers that are written once."""

from __future__ import annotations

import asyncio
import threading

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BytesValue

from localplane_gateway import tagged
from localplane_gateway.tagged import LARGE_BYTES, WrittenAnswers

SMALL, LARGE = BytesValue(value=b"small"), BytesValue(value=b"x" * LARGE_BYTES)


class Encoder:
    """Writes messages when it may, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.may = threading.Event()

    def __call__(self, message: Message) -> bytes:
        self.may.wait(30)
        self.count += 1
        return message.SerializeToString()


@pytest.fixture
def encode() -> Encoder:
    return Encoder()


async def test_kept(encode: Encoder) -> None:
    """The last answer to each request is there, with its tag."""
    encode.may.set()
    answers = WrittenAnswers()
    assert answers.get(b"a") is None
    await answers.write(b"a", b'"1"', encode, SMALL)
    written = await answers.write(b"a", b'"2"', encode, LARGE)

    assert (b'"2"', LARGE.SerializeToString()) == written
    assert written is answers.get(b"a")
    assert answers.get(b"b") is None


async def test_written_once(encode: Encoder) -> None:
    """All who ask at the same time wait for one writing, which goes on when one of them leaves."""
    answers = WrittenAnswers()
    callers = [asyncio.create_task(answers.write(b"a", b'"1"', encode, LARGE)) for _ in range(10)]
    await asyncio.sleep(0)
    callers[0].cancel()
    encode.may.set()
    written = await asyncio.gather(*callers[1:])

    assert 1 == encode.count
    assert {(b'"1"', LARGE.SerializeToString())} == set(written)


async def test_failure_is_not_kept(encode: Encoder) -> None:
    """Everybody is told, and the next one tries again."""

    def fail(message: Message) -> bytes:
        raise ValueError(message)

    answers = WrittenAnswers()
    outcomes = await asyncio.gather(
        *(answers.write(b"a", b'"1"', fail, LARGE) for _ in range(3)), return_exceptions=True
    )
    encode.may.set()

    assert all(isinstance(outcome, ValueError) for outcome in outcomes)
    assert LARGE.SerializeToString() == (await answers.write(b"a", b'"1"', encode, LARGE)).body


async def test_no_more_than_fits(encode: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were not asked for lately go, by number and by size; one that is too large is not kept."""
    encode.may.set()
    monkeypatch.setattr(tagged, "MOST_KEPT", 3)
    monkeypatch.setattr(tagged, "MOST_KEPT_BYTES", 100)
    answers = WrittenAnswers()
    for name in (b"a", b"b", b"c"):
        await answers.write(name, b'"1"', encode, SMALL)
    answers.get(b"a")
    await answers.write(b"d", b'"1"', encode, SMALL)
    assert [True, False, True, True] == [
        answers.get(name) is not None for name in (b"a", b"b", b"c", b"d")
    ]

    await answers.write(b"e", b'"1"', encode, BytesValue(value=b"x" * 90))
    assert [b"d", b"e"] == [
        name for name in (b"a", b"b", b"c", b"d", b"e") if answers.get(name) is not None
    ]
    await answers.write(b"e", b'"2"', encode, BytesValue(value=b"x" * 200))
    assert answers.get(b"e") is None
    await answers.write(b"f", b'"1"', encode, BytesValue(value=b"x" * 80))
    assert answers.get(b"f") is not None
