"""The way for vectors gives what the way of lists gives, or leaves the body to it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localplane.v1 import inference_service_pb2, tokenizer_service_pb2
from localplane_gateway.codec import Codec, CodecError, vectors
from localplane_gateway.codec.vectors import VectorReader
from protos.codec_sample import Optioned, Plain, Vectors

CODEC: Codec[Any] = Codec(Vectors)
READER: Any = CODEC._vectors

LARGEST = 3.4028234663852886e38

NUMBERS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-1e38, 1e38),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([LARGEST, -LARGEST, np.nextafter(LARGEST, np.inf), 1e39, 0.1, -0.0, 5e-324]),
)
NOT_NUMBERS: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, "1", "@", "", {}, [], [1], [[]], "NaN", {"a": [1]}]
)
ROW = st.one_of(st.lists(NUMBERS, max_size=5), st.lists(NUMBERS | NOT_NUMBERS, max_size=4))
ROWS = st.one_of(st.lists(ROW, max_size=4), st.lists(ROW | NOT_NUMBERS | NUMBERS, max_size=3))
# An at sign becomes a bracket that is escaped.
STRINGS = st.text('ab[]{}@"\\u005', max_size=5)
OTHERS = st.recursive(
    STRINGS | st.none() | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(STRINGS, inner, max_size=2),
    max_leaves=4,
)


def documents(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    optional: dict[str, st.SearchStrategy[Any]] = {
        "name": STRINGS,
        "floats": ROW,
        "doubles": ROW,
        "float_rows": ROWS,
        "double_rows": ROWS,
        "extra": OTHERS,
        "texts": st.lists(STRINGS, max_size=3),
        "Named": ROW,
        "named": ROW,
        "one_or_more": ROWS,
        "word": STRINGS,
        "unknown": OTHERS | ROWS,
        "a\x00b": ROW,
    }
    if depth:
        entry = st.fixed_dictionaries(
            {}, optional={"key": STRINGS, "vector": ROW, "inner": documents(depth - 1)}
        )
        optional |= {"entries": st.lists(entry, max_size=2), "entry": entry, "chosen": entry}
        optional["entries"] |= NOT_NUMBERS
    return st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: optional[name] for name in names})
    )


def by_lists(body: bytes) -> Any:
    try:
        return CODEC.decode_object(orjson.loads(body))
    except CodecError:
        return None


def same(one: Any, other: Any) -> bool:
    return bool(
        one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    )


class TestLikeLists:
    @settings(max_examples=150, deadline=None)
    @given(documents())
    def test_documents(self, document: dict[str, Any]) -> None:
        """What is read is what the way of lists reads; what that refuses is never read."""
        body = json.dumps(document).replace("@", "\\u005b").encode()
        expected = by_lists(body)
        message = READER.read(body)

        assert message is None or same(expected, message)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.lists(st.floats(-1e38, 1e38), max_size=5), max_size=5))
    def test_good_rows(self, rows: list[list[float]]) -> None:
        """Rows of numbers are taken, be they even or ragged."""
        numbers = [number for row in rows for number in row]
        body = orjson.dumps({"float_rows": rows, "double_rows": rows, "floats": numbers})
        message = READER.read(body)

        assert message is not None
        assert same(by_lists(body), message)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"floats": [[1, 2], []]}',
            b'{"floats": [1, [2]]}',
            b'{"floats": [[1], [2]]}',
            b'{"float_rows": [[1, [2]], [3]]}',
            b'{"float_rows": [[[1, 2], []]]}',
            b'{"float_rows": [1, 2]}',
            b'{"float_rows": [[1], "abc"]}',
            b'{"float_rows": [[1], null]}',
            b'{"floats": [3.5e38]}',
            b'{"floats": ["a"]}',
            b'{"floats": {"a": 1}}',
            b'{"entries": {"vector": [1]}}',
            b'{"entry": [{"vector": [1]}]}',
            b'{"entries": [null]}',
            # A hidden array, and a bracket in a string that makes up for it.
            b'{"floats": [[1, 2], []], "name": "\\u005b"}',
            b'{"floats": [[1, 2], []], "name": "\\u005B", "texts": []}',
            b'{"floats": [[1, 2], []], "\\u005b": 1}',
            b'{"Named": [1], "named": [1]}',
            b'{"chosen": {"vector": [1]}, "word": ""}',
            b"[1, 2]",
            b"[" * 5000,
        ],
    )
    def test_wrong(self, body: bytes) -> None:
        """What is no such message is refused, and by the exact way with words."""
        assert READER.read(body) is None
        with pytest.raises(CodecError, match="cannot read"):
            CODEC.decode(body + b" " * vectors.SMALLEST_BODY)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"floats": [1, "2", "NaN"]}',
            b'{"floats": [true]}',
            b'{"floats": [1], "floats": [2]}',
            b'{"floats": [123456789012345678901234567890]}',
            b'{"one_or_more": [1, 2]}',
            b'{"floats": [1], "name": "\\u005b", "texts": []}',
            b'{"floats\\u0000": [5], "floats": [1]}',
            b'{"floats": [1], %b}' % b",".join(b'"n%d": 0' % number for number in range(100)),
        ],
    )
    def test_left_to_lists(self, body: bytes) -> None:
        """What is right but rare is left to the way of lists."""
        assert READER.read(body) is None
        assert same(by_lists(body), CODEC.decode(body + b" " * vectors.SMALLEST_BODY))

    def test_brackets_in_strings(self) -> None:
        """Texts with brackets beside vectors do not make the body slow."""
        body = b'{"floats": [1, 2], "name": "[[", "texts": ["]", "[", "\\""], "extra": {"[": [1]}}'

        assert same(by_lists(body), READER.read(body))


class TestNumbers:
    @pytest.mark.parametrize("size", [1, 5000])
    def test_range_of_floats(self, size: int) -> None:
        """The largest 32-bit float is taken and the next double is not, whatever the length."""
        padding = [0.0] * (size - 1)
        above = float(np.nextafter(LARGEST, np.inf))

        assert READER.read(orjson.dumps({"floats": [LARGEST, -LARGEST, *padding]})) is not None
        assert READER.read(orjson.dumps({"floats": [above, *padding]})) is None
        assert READER.read(orjson.dumps({"floats": [*padding, -above]})) is None
        assert READER.read(orjson.dumps({"doubles": [above, 1e308, *padding]})) is not None

    @pytest.mark.parametrize("size", [3, 5000])
    def test_writing_large_numbers(self, size: int) -> None:
        """Numbers whose squares overflow are written as numbers, in short vectors and long."""
        row = [LARGEST] * size

        assert row == pytest.approx(
            orjson.loads(CODEC.encode(Vectors(floats=row)))["floats"], rel=1e-7
        )
        assert [1e308] * size == orjson.loads(CODEC.encode(Vectors(doubles=[1e308] * size)))[
            "doubles"
        ]

    def test_integers_beyond_53_bits(self) -> None:
        """Large integers are rounded as Python rounds them."""
        body = b'{"doubles": [9007199254740993, 18446744073709551615, -9223372036854775808]}'

        assert [float(2**53), float(2**64), -float(2**63)] == list(READER.read(body).doubles)


class TestWhichMessages:
    def test_only_messages_with_vectors(self) -> None:
        """Messages without vectors are left alone, and those with vectors inside are not."""
        assert Codec(tokenizer_service_pb2.TokenizeRequest)._vectors is None
        assert isinstance(Codec(inference_service_pb2.EmbedResponse)._vectors, VectorReader)
        assert isinstance(Codec(Optioned)._vectors, VectorReader)
        assert isinstance(Codec(Plain)._vectors, VectorReader)

    def test_a_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A large body with vectors does not become Python floats."""
        rows = np.random.default_rng(1).standard_normal((50, 64)).astype(np.float32)
        message = Vectors(
            extra={"null_value": 0}, float_rows=[{"numbers": row} for row in rows.tolist()]
        )
        body = CODEC.encode(message)

        def refuse(*_: object) -> None:
            pytest.fail("the body became Python objects")

        monkeypatch.setattr("localplane_gateway.codec.codec.orjson.loads", refuse)

        assert message == CODEC.decode(body) == CODEC.decode(body)
