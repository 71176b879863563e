"""Timestamps as protobuf reads and writes them."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from localplane_gateway.codec.timestamps import fill_timestamp, timestamp_object

FIRST, LAST = -62135596800, 253402300799


class TestTimestamps:
    @given(st.integers(FIRST, LAST), st.integers(0, 999_999_999) | st.just(0))
    def test_both_ways(self, seconds: int, nanos: int) -> None:
        """A time is written as protobuf writes it, and read back."""
        expected = Timestamp(seconds=seconds, nanos=nanos)
        message = Timestamp()
        fill_timestamp(message, timestamp_object(expected))

        assert expected.ToJsonString() == timestamp_object(expected)
        assert expected == message

    @given(
        st.from_regex(
            r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,10})?Z",
            fullmatch=True,
        )
    )
    def test_reading(self, text: str) -> None:
        """Texts that look like times are taken and refused as protobuf does."""
        assert self.read(Timestamp.FromJsonString, text) == self.read(fill_timestamp, text)

    @pytest.mark.parametrize(
        ("seconds", "nanos"), [(FIRST - 1, 0), (LAST + 1, 0), (0, -1), (0, 10**9), (2**62, 0)]
    )
    def test_out_of_range(self, seconds: int, nanos: int) -> None:
        """Times that have no text are refused."""
        with pytest.raises(ValueError, match=r"range"):
            timestamp_object(Timestamp(seconds=seconds, nanos=nanos))

    @staticmethod
    def read(way: object, text: str) -> Timestamp | None:
        message = Timestamp()
        try:
            way(message, text)  # type: ignore[operator]
        except ValueError:
            return None
        return message
