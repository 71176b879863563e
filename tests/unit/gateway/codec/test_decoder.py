"""Reading messages as json_format does."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from localplane.v1 import backend_pb2, inference_service_pb2
from localplane_gateway.codec import Codec, CodecError, codec_for
from protos.codec_sample import Optioned, Plain
from unit.gateway.codec import oracle, samples

CODEC: Codec[Any] = Codec(Plain)


def read(document: Any) -> bytes | None:
    """Read with the codec; None when it refuses."""
    try:
        return bytes(CODEC.decode_object(document).SerializeToString(deterministic=True))
    except CodecError:
        return None


def read_by_json_format(document: Any) -> bytes | None:
    try:
        return bytes(oracle.read(Plain, document).SerializeToString(deterministic=True))
    except oracle.Refused:
        return None


class TestLikeJsonFormat:
    @settings(max_examples=400, deadline=None)
    @given(samples.documents())
    def test_documents(self, document: dict[str, Any]) -> None:
        """A document near to a message is accepted and refused as by json_format, to the byte."""
        before = copy.deepcopy(document)

        assert read_by_json_format(document) == read(document)
        assert before == document

    @settings(max_examples=100, deadline=None)
    @given(st.one_of(samples.JSON, samples.ODDITIES))
    def test_anything(self, document: Any) -> None:
        """Any other JSON is refused, unless it is an object."""
        assert read_by_json_format(document) == read(document)

    @settings(max_examples=150, deadline=None)
    @given(samples.messages())
    def test_its_own_json(self, message: Any) -> None:
        """What json_format writes of a message is read as json_format reads it."""
        text = json_format.MessageToJson(message, preserving_proto_field_name=True)
        document = orjson.loads(text)

        assert read_by_json_format(document) == read(document)

    @pytest.mark.parametrize("field", [field.name for field in Plain.DESCRIPTOR.fields])
    def test_every_oddity_in_every_field(self, field: str) -> None:
        """No value at which readers differ makes a difference, in any kind of field."""
        for value in samples.ODDITY_LIST:
            for document in ({field: value}, {field: [value]}, {field: {"1": value}}):
                assert read_by_json_format(document) == read(document), document

    @pytest.mark.parametrize("levels", range(96, 104))
    def test_depth_of_messages(self, levels: int) -> None:
        """Messages nest as deep as json_format lets them, and no deeper."""
        for leaf in ({}, {"w_timestamp": "2020-01-01T00:00:00Z"}, {"w_int32": 5}, {"w_value": 1}):
            document: Any = leaf
            for _ in range(levels - 1):
                document = {"f_plain": document}

            assert read_by_json_format(document) == read(document)

    @pytest.mark.parametrize("levels", range(44, 54))
    @pytest.mark.parametrize("field", ["w_value", "w_list", "w_struct", "r_value"])
    def test_depth_of_values(self, levels: int, field: str) -> None:
        """So do values in values."""
        for wrap in (lambda inner: [inner], lambda inner: {"a": inner}):
            value: Any = 1
            for _ in range(levels):
                value = wrap(value)

            assert read_by_json_format({field: value}) == read({field: value})

    def test_wrong_values_that_only_python_has(self) -> None:
        """NaN, lone surrogates and huge integers, which orjson never makes, are refused as well."""
        for value in (float("nan"), float("inf"), "\ud800", 10**5000):
            for field in ("f_int32", "f_float", "f_double", "f_string", "f_plain", "r_float"):
                assert read_by_json_format({field: value}) == read({field: value}), (field, value)
                assert read_by_json_format({field: [value]}) == read({field: [value]})


class TestFastWay:
    def test_takes_messages_of_every_day(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Well-formed requests and answers never need the exact way."""

        def refuse(*_: object) -> None:
            pytest.fail("the exact way was taken")

        monkeypatch.setattr("localplane_gateway.codec.codec.fill", refuse)
        tool = {"type": "function", "function": {"name": "f", "parameters": {"required": ["a"]}}}
        chat = {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": [tool]}],
            "temperature": 0.7,
            "top_p": 1,
            "max_tokens": 64,
            "stream": False,
            "stop": ["a"],
            "tools": [tool],
            "tool_choice": "auto",
            "seed": None,
        }
        status = {
            "state": 2,
            "memory": {"total": "432013312", "breakdown": {"weights": 270000128}},
            "reported_state": "REPORTED_STATE_READY",
            "memory_percent": 1.5,
            "sampled_at": "2026-01-01T00:00:00.25Z",
            "unknown": {"a": "b"},
        }
        everything = {
            "f_int64": "-5",
            "f_int32": 5.0,
            "f_bytes": "YQ==",
            "m_int32_string": {"-1": "a"},
            "m_bool_bytes": {"true": "YQ"},
            "m_string_plain": {"a": {"w_int32": 5, "w_value": None}},
            "m_int64_value": {"1": [1, "a", None, {"b": []}]},
            "c_plain": {"r_double": [1, 2.5]},
        }
        for message_class, document in (
            (inference_service_pb2.ChatRequest, chat),
            (backend_pb2.BackendStatus, status),
            (Plain, everything),
        ):
            expected = json_format.ParseDict(document, message_class())

            assert expected == codec_for(message_class).decode_object(document)

    @settings(max_examples=100, deadline=None)
    @given(samples.messages())
    def test_what_the_codec_writes(self, message: Any) -> None:
        """What the codec writes of a message, it reads as json_format does, and writes again."""
        body = CODEC.encode(message)
        document = orjson.loads(body)

        assert read_by_json_format(document) == read(document)
        if read(document) is not None:
            assert document == orjson.loads(CODEC.encode(CODEC.decode(body)))


class TestProfile:
    def test_numbers_and_strings_are_64_bit_integers(self) -> None:
        """64-bit integers are read from numbers and from strings."""
        expected = Plain(f_int64=-(2**63), f_uint64=2**64 - 1)

        assert expected == CODEC.decode(
            b'{"f_int64":-9223372036854775808,"f_uint64":18446744073709551615}'
        )
        assert expected == CODEC.decode(
            b'{"f_int64":"-9223372036854775808","f_uint64":"18446744073709551615"}'
        )

    @pytest.mark.parametrize("name", ["dark_blue", "COLOR_DARK_BLUE", 2, "2", 2.0])
    def test_names_of_enums(self, name: object) -> None:
        """An enum is read from its short name, its full name and its number."""
        assert Plain(f_color=2, r_color=[2]) == CODEC.decode_object(
            {"f_color": name, "r_color": [name]}
        )

    def test_unknown_names_of_enums(self) -> None:
        """A name that the enum does not have is refused, though unknown fields are not."""
        with pytest.raises(CodecError, match="expected one of unspecified, red, dark_blue"):
            CODEC.decode(b'{"f_color": "pink"}')

    def test_unknown_fields(self) -> None:
        """Unknown fields are ignored, wherever they are and whatever they hold."""
        expected = Plain(f_plain={"f_int32": 5})

        assert expected == CODEC.decode(b'{"x": [{}], "f_plain": {"f_int32": 5, "fInt32": "?"}}')

    def test_the_last_of_equal_names(self) -> None:
        """Of equal names the last wins."""
        assert Plain(f_int32=2) == CODEC.decode(b'{"f_int32": 1, "f_int32": 2}')

    def test_two_members_of_a_oneof(self) -> None:
        """Two members of a oneof are refused, unless one is null."""
        with pytest.raises(CodecError, match="cannot read c_string: c_int32 excludes it") as caught:
            CODEC.decode(b'{"c_int32": 0, "c_string": ""}')

        assert "c_string" == caught.value.field
        assert Plain(c_int32=0) == CODEC.decode(b'{"c_int32": 0, "c_string": null}')

    def test_messages_are_objects(self) -> None:
        """A list or a string is no message, although json_format takes an empty one for one."""
        for value in ([], "", ["x"], "x", 1, True):
            with pytest.raises(CodecError, match="cannot read f_plain: expected an object"):
                CODEC.decode_object({"f_plain": value})


class TestOptions:
    codec: Codec[Any] = Codec(Optioned)

    def test_rest_name(self) -> None:
        """A renamed field is read under its name in JSON and under its own, but not under both."""
        assert Optioned(run_file="a") == self.codec.decode(b'{"RunFile": "a"}')
        assert Optioned(run_file="a") == self.codec.decode(b'{"run_file": "a"}')
        assert Optioned() == self.codec.decode(b'{"runFile": "a"}')
        with pytest.raises(CodecError, match="cannot read RunFile: it is given under two names"):
            self.codec.decode(b'{"run_file": "a", "RunFile": "a"}')

    def test_shared_rest_name(self) -> None:
        """Of fields that share a name, JSON means the first; the others go by their own names."""
        assert Optioned(vector=[1, 2]) == self.codec.decode(b'{"vector": [1, 2]}')
        assert Optioned(vector_base64="x") == self.codec.decode(b'{"vector_base64": "x"}')

    def test_text(self) -> None:
        """Text is the string's UTF-8, single, in lists and in maps."""
        expected = Optioned(text="ä".encode(), texts=[b"a", b""], text_map={"k": b"="})

        assert expected == self.codec.decode(
            '{"text":"ä","texts":["a",""],"text_map":{"k":"="}}'.encode()
        )
        wrong: list[dict[str, Any]] = [
            {"text": 5},
            {"texts": [None]},
            {"text_map": {"k": []}},
            {"text": "\ud800"},
        ]
        for document in wrong:
            with pytest.raises(CodecError, match="expected a string"):
                self.codec.decode_object(document)

    def test_unwrap(self) -> None:
        """A message with one unwrapped field is read from the bare value, wherever it is."""
        expected = Optioned(
            rows=[{"numbers": [0.5]}, {}],
            row={"numbers": [1, 2]},
            names={"by_code": {"a": "b"}},
            maybe={"number": 3},
            row_map={"x": {"numbers": [4]}},
        )

        assert expected == self.codec.decode(
            b'{"rows":[[0.5],[]],"row":[1,2],"names":{"a":"b"},"maybe":3,"row_map":{"x":[4]}}'
        )
        assert expected == self.codec.decode(
            b'{"rows":[["0.5"],[]],"row":[1,2],"names":{"a":"b"},"maybe":3,"row_map":{"x":[4]}}'
        )

    def test_one_or_many(self) -> None:
        """A single value stands for a list of one; a string is never taken apart."""
        assert Optioned(stop=["ab"]) == self.codec.decode(b'{"stop": "ab"}')
        assert Optioned(stop=["a", "b"]) == self.codec.decode(b'{"stop": ["a", "b"]}')
        assert Optioned(items=[{"name": "x"}]) == self.codec.decode(b'{"items": {"Name": "x"}}')
        assert Optioned() == self.codec.decode(b'{"stop": null, "items": [], "rows": []}')

    def test_one_or_many_lists(self) -> None:
        """Where elements are lists, a list of no lists is a single element."""
        one = Optioned(rows=[{"numbers": [1, 2]}])

        assert one == self.codec.decode(b'{"rows": [1, 2]}')
        assert one == self.codec.decode(b'{"rows": ["1", 2]}')
        assert one == self.codec.decode(b'{"rows": [[1, 2]]}')

    def test_enum_as_number(self) -> None:
        """An enum that is written as a number is still read from names."""
        assert Optioned(state=2, states=[1]) == self.codec.decode(
            b'{"state":"dark_blue","states":["red"]}'
        )

    def test_names_that_python_keeps_for_itself(self) -> None:
        """A field may be called as a word of Python."""
        message = self.codec.decode(b'{"from": "here"}')

        assert "here" == getattr(message, "from")
        assert b'"from":"here"' in self.codec.encode(message)

    def test_null(self) -> None:
        """Null is an unset field, whatever the option."""
        document = {field.name: None for field in Optioned.DESCRIPTOR.fields}

        assert Optioned() == self.codec.decode_object(document)
