"""The codec as others call it, and what strangers may send it."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest

from localplane.v1 import inference_service_pb2
from localplane_gateway.codec import Codec, CodecError, codec_for
from protos.codec_sample import Plain, Vectors, WronglyUnwrapped

CODEC: Codec[Any] = Codec(Plain)
VECTORS: Codec[Any] = Codec(Vectors)


class TestCodecFor:
    def test_kept(self) -> None:
        """A class has one codec."""
        assert codec_for(Plain) is codec_for(Plain)
        assert codec_for(Plain) is not codec_for(Vectors)

    def test_wrong_option(self) -> None:
        """A message with several fields cannot be unwrapped, and says so when it is compiled."""
        with pytest.raises(TypeError, match=r"cannot unwrap localplane\.tests\.WronglyUnwrapped"):
            codec_for(WronglyUnwrapped)


class TestMalformed:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"{",
            b'{"f_int32": 1',
            b'{"f_int32": 1,}',
            b'{"f_int32": 1} x',
            b"{'f_int32': 1}",
            b'{"f_int32": 01}',
            b'{"f_double": NaN}',
            b'{"f_double": Infinity}',
            b'{"f_double": 1e999}',
            b'{"f_int32": ' + b"9" * 400 + b"}",
            b'{"f_string": "\xff"}',
            b'{"f_string": "\xed\xa0\x80"}',
            b'{"f_string": "\\ud800"}',
            b'{"f_string": "a\nb"}',
            b'{"f_string": "a\x00b"}',
            b'\xef\xbb\xbf{"f_int32": 1}',
            b'{"f_int32": 1}\x00',
        ],
    )
    def test_refused(self, body: bytes) -> None:
        """Text that is no JSON is an error without a field, on either way."""
        for codec in (CODEC, VECTORS):
            for padding in (b"", b" " * 10_000):
                with pytest.raises(CodecError, match=r"^cannot read the JSON: ") as caught:
                    codec.decode(body + padding)

                assert ("", "INVALID_ARGUMENT") == (caught.value.field, caught.value.reason)

    def test_position(self) -> None:
        """The error says where the text ends being JSON."""
        with pytest.raises(CodecError, match=r"line 2 column 12"):
            CODEC.decode(b'{\n  "f_int32"; 1}')


class TestHostile:
    @pytest.mark.parametrize("depth", [500, 1024, 1025, 100_000])
    @pytest.mark.parametrize(
        "name", [b"w_value", b"w_struct", b"r_value", b"f_plain", b"extra", b"floats"]
    )
    @pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
    def test_deep(self, depth: int, name: bytes, start: bytes, end: bytes) -> None:
        """JSON that nests deep is refused or ignored, in a known field and in an unknown one."""
        body = b'{"%b":%b1%b}' % (name, start * depth, end * depth)
        for codec in (CODEC, VECTORS):
            try:
                message = codec.decode(body)
            except CodecError:
                continue

            assert codec.decode(b"{}") == message or Plain(f_plain={}) == message

    @pytest.mark.parametrize("depth", [99, 100, 101, 500, 1023, 50_000])
    def test_deep_messages(self, depth: int) -> None:
        """Messages in messages are read up to the depth of protobuf, and refused beyond it."""
        body = b'{"f_plain":' * depth + b"{}" + b"}" * depth
        if depth < 100:
            message = CODEC.decode(body)
            assert message.SerializeToString()
            return
        with pytest.raises(CodecError, match="cannot read"):
            CODEC.decode(body)

    def test_a_caller_that_is_deep_already(self) -> None:
        """When Python's own stack runs out, that is an error of the document."""
        body = b'{"f_plain":' * 90 + b'{"f_int32": "5e0"}' + b"}" * 90

        def decode(depth: int) -> object:
            return decode(depth - 1) if depth else CODEC.decode(body)

        room = sys.getrecursionlimit() - len(inspect.stack())
        with pytest.raises(CodecError, match=r"it nests too deep|expected an integer"):
            decode(room - 150)

    def test_many_unknown_names(self) -> None:
        """Objects with very many names are read in a time that grows with their number only."""
        names = b",".join(b'"n%d":[]' % number for number in range(50_000))
        message = VECTORS.decode(b'{"floats":[1],%b}' % names)

        assert Vectors(floats=[1]) == message

    def test_error_does_not_repeat_the_body(self) -> None:
        """A client's own body does not come back in the error."""
        with pytest.raises(CodecError) as caught:
            CODEC.decode(b'{"f_int32": "%b"}' % (b"x" * 10**6))

        assert len(caught.value.message) < 200

    def test_a_string_is_no_list_of_messages(self) -> None:
        """A chat's messages are a list of objects, and nothing that could pass for one."""
        codec = codec_for(inference_service_pb2.ChatRequest)
        for messages in (b'"hello"', b'{"role": "user"}', b'["hello"]', b"[[]]", b"[null]", b"5"):
            with pytest.raises(CodecError, match="cannot read messages"):
                codec.decode(b'{"messages": %b}' % messages)
