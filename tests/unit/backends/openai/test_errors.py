"""What the errors of servers become."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import grpc
import pytest

from localplane_backends.openai.errors import LONGEST_TEXT, of_status, without


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error": {"message": "one"}}', "one"),
        (b'{"error": "two"}', "two"),
        (b'{"object": "error", "message": "three"}', "three"),
        (b'{"detail": "four"}', "four"),
        (b'{"error": {"code": 5}}', '{"code": 5}'),
        (b"[6]", "[6]"),
        (b"seven\r\n  eight\x00", "seven eight?"),
        (b"", "the server answered with status 400"),
        (b"<!doctype html>", "the server answered with status 400"),
        (b"\xff", "�"),
    ],
)
def test_bodies(body: bytes, says: str) -> None:
    """Each server writes its errors differently; a caller gets one line."""
    assert says == of_status(400, body).message


def test_long_body() -> None:
    """A server that says too much is cut short."""
    assert len(of_status(400, b"x" * 10000).message) <= LONGEST_TEXT + 3


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0.5", 0.5, 0.5),
        ("-3", 0, 0),
        ("999999", 3600, 3600),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("soon", 1, 1),
        ("nan", 1, 1),
        ("", 1, 1),
    ],
)
def test_retry_after(header: str, least: float, most: float) -> None:
    """Seconds and dates are understood, within reason; what is neither is one second."""
    seconds = of_status(429, b"", header).retry_seconds

    assert seconds is not None
    assert least <= seconds <= most


def test_retry_at() -> None:
    """A date is understood as the time that is left until then."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)

    seconds = of_status(429, b"", date).retry_seconds

    assert seconds is not None
    assert 1 < seconds <= 1000


def test_no_retry() -> None:
    """An error that stays the same has no time to try again."""
    assert of_status(400, b"").retry_seconds is None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, grpc.StatusCode.NOT_FOUND),
        (405, grpc.StatusCode.UNIMPLEMENTED),
        (418, grpc.StatusCode.INTERNAL),
        (502, grpc.StatusCode.UNAVAILABLE),
        (599, grpc.StatusCode.INTERNAL),
    ],
)
def test_codes(status: int, code: grpc.StatusCode) -> None:
    """Each status has its code; one that nobody knows is a failure."""
    assert code is of_status(status, b"").code


def test_secrets() -> None:
    """No secret is left in a text, however often it is there."""
    assert "a *** b *** ***" == without(("k1", "k2"), "a k1 b k2 k1")
