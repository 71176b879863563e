"""The errors of reading: where, what and why."""

from __future__ import annotations

from typing import Any

import pytest

from localplane.v1 import tokenizer_service_pb2
from localplane_gateway.codec import Codec, CodecError, codec_for
from protos.codec_sample import FloatRow, Names, Optioned, Plain

PLAIN: Codec[Any] = Codec(Plain)
OPTIONED: Codec[Any] = Codec(Optioned)

INT32 = "an integer from -2147483648 to 2147483647"


def refusal(codec: Codec[Any], document: object) -> CodecError:
    with pytest.raises(CodecError) as caught:
        codec.decode_object(document)
    return caught.value


class TestWords:
    @pytest.mark.parametrize(
        ("document", "path", "words"),
        [
            ({"f_int32": 2**31}, "f_int32", f"expected {INT32}, not 2147483648"),
            ({"f_uint64": -1}, "f_uint64", "an integer from 0 to 18446744073709551615, not -1"),
            ({"f_int32": True}, "f_int32", f"expected {INT32}, not true"),
            ({"f_float": 1e39}, "f_float", "expected a number that fits 32 bits, not 1e+39"),
            ({"f_double": "x"}, "f_double", 'expected a number, not "x"'),
            ({"f_bool": 1}, "f_bool", "expected true or false, not 1"),
            ({"f_string": []}, "f_string", "expected a string, not a list"),
            ({"f_bytes": "Y"}, "f_bytes", 'expected a string in base64, not "Y"'),
            ({"f_color": {}}, "f_color", "dark_blue, color_2, green, negative, not an object"),
            ({"f_plain": {"f_int32": ""}}, "f_plain.f_int32", f'expected {INT32}, not ""'),
            ({"r_string": "ab"}, "r_string", 'expected a list, not "ab"'),
            ({"r_string": {"a": 1}}, "r_string", "expected a list, not an object"),
            ({"r_string": ["a", None]}, "r_string[1]", "expected a string, not null"),
            (
                {"r_plain": [{}, {"r_plain": [None]}]},
                "r_plain[1].r_plain[0]",
                "an object, not null",
            ),
            ({"m_string_string": []}, "m_string_string", "expected an object, not a list"),
            ({"m_string_int64": {"a": 1, "b": "x"}}, "m_string_int64.b", 'not "x"'),
            ({"m_int32_string": {"x": "a"}}, "m_int32_string.x", f"expected {INT32} as the name"),
            ({"m_string_plain": {"k": {"f_bool": 0}}}, "m_string_plain.k.f_bool", "true or false"),
            ({"m_string_plain": {"k": None}}, "m_string_plain.k", "expected an object, not null"),
            (
                {"w_timestamp": "today"},
                "w_timestamp",
                "expected a time such as 2030-01-31T12:00:00Z",
            ),
            ({"w_duration": 5}, "w_duration", "expected a duration such as 1.5s, not 5"),
            ({"w_mask": 5}, "w_mask", "expected names of fields with commas between them, not 5"),
            ({"w_struct": []}, "w_struct", "expected an object at most 100 messages deep"),
            ({"w_list": {}}, "w_list", "expected a list at most 100 messages deep"),
            ({"w_any": {"@type": "x"}}, "w_any", 'expected an object with a known "@type"'),
            ({"w_int32": "x"}, "w_int32", f'expected {INT32}, not "x"'),
            ([], "", "cannot read the JSON: expected an object, not a list"),
            (None, "", "cannot read the JSON: expected an object, not null"),
        ],
    )
    def test_path_and_words(self, document: object, path: str, words: str) -> None:
        """An error names the place, what belongs there and what is there."""
        error = refusal(PLAIN, document)

        assert path == error.field
        assert words in error.message
        assert error.message.startswith(f"cannot read {path or 'the JSON'}: ")
        assert str(error) == error.message

    def test_bare_messages_alone(self) -> None:
        """The path in a bare message starts at the element."""
        assert "[1]" == refusal(codec_for(FloatRow), [1, "x"]).field
        assert "a" == refusal(codec_for(Names), {"a": 5}).field

    def test_long_values(self) -> None:
        """An error repeats no more than the beginning of a wrong value or name."""
        error = refusal(PLAIN, {"m_string_int64": {"n" * 10**6: "v" * 10**6}})

        assert len(error.message) < 250
        assert len(error.field) < 100

    def test_one_wrong_element_of_many(self) -> None:
        """The wrong element of a long list or map is found."""
        numbers: list[object] = list(range(20_000))
        numbers[12_345] = "x"
        names = {str(number): number for number in range(20_000)} | {"777": None}

        assert "r_int32[12345]" == refusal(PLAIN, {"r_int32": numbers}).field
        assert "m_string_int64.777" == refusal(PLAIN, {"m_string_int64": names}).field


class TestReason:
    def test_usual(self) -> None:
        """The reason of an error is INVALID_ARGUMENT."""
        assert "INVALID_ARGUMENT" == refusal(PLAIN, {"f_int32": "x"}).reason
        assert "INVALID_ARGUMENT" == refusal(OPTIONED, {"stop": [1]}).reason

    def test_option(self) -> None:
        """A field's own reason is that of its errors, wherever the field is."""
        codec = codec_for(tokenizer_service_pb2.TokenizeRequest)
        document = {"items": [{"parts": [{}, {"size": "big"}]}]}

        assert "INVALID_MODEL_NAME" == refusal(codec, {"model": 5}).reason
        assert "INVALID_MODEL_NAME" == refusal(codec, {"model": ["a"]}).reason
        assert ("INVALID_SIZE", "items[0].parts[1].size") == (
            refusal(OPTIONED, document).reason,
            refusal(OPTIONED, document).field,
        )


class TestOddValues:
    def test_accepted(self) -> None:
        """What json_format takes beside the usual is taken, and the rest of the message with it."""
        document = {
            "f_int32": 5.0,
            "f_int64": "5e0",
            "f_double": "0.5",
            "f_float": "NaN",
            "f_color": True,
            "w_any": {"@type": "type.googleapis.com/google.protobuf.Int32Value", "value": 1},
            "f_plain": {"r_double": ["1", 2]},
            "m_string_plain": {"a": {"f_int32": "7.0"}},
            "r_value": [None, 1.0],
            "w_value": None,
            "f_null": None,
            "f_string": None,
        }
        message = PLAIN.decode_object(document)

        assert (5, 5, 0.5, 1) == (
            message.f_int32,
            message.f_int64,
            message.f_double,
            message.f_color,
        )
        assert [1, 2] == list(message.f_plain.r_double)
        assert 7 == message.m_string_plain["a"].f_int32
        assert message.w_value.HasField("null_value")
        assert message.r_value[0].HasField("null_value")
        assert message.w_any.TypeName() == "google.protobuf.Int32Value"
