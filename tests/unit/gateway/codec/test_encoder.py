"""Writing messages with the profile."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from google.protobuf import json_format, struct_pb2, wrappers_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from localplane.v1 import backend_pb2, backend_service_pb2, inference_service_pb2, job_service_pb2
from localplane_gateway.codec import Codec, CodecError, codec_for
from protos.codec_sample import FloatRow, Maybe, Names, Optioned, Plain
from unit.gateway.codec import oracle, samples

CODEC: Codec[Any] = Codec(Plain)
OPTIONED: Codec[Any] = Codec(Optioned)


def written(codec: Codec[Any], message: Any) -> Any:
    return orjson.loads(codec.encode(message))


class TestLikeJsonFormat:
    @settings(max_examples=250, deadline=None)
    @given(samples.messages())
    def test_messages(self, message: Any) -> None:
        """A message is written as json_format writes it, with the profile put on."""
        assert oracle.written(message) == written(CODEC, message)

    def test_empty(self) -> None:
        """An empty message has all names but those of oneofs, in the order of the proto."""
        members = {"c_int32", "c_string", "c_plain", "c_value", "c_color", "c_null", "only_string"}
        names = [field.name for field in Plain.DESCRIPTOR.fields if field.name not in members]

        assert names == list(written(CODEC, Plain()))

    def test_well_known_types_alone(self) -> None:
        """Messages with a JSON form of their own are written and read on their own too."""
        value = codec_for(struct_pb2.Value).decode_object([2.0, None])
        wrapper = wrappers_pb2.UInt64Value(value=2**64 - 1)

        assert b"[2,null]" == codec_for(struct_pb2.Value).encode(value)
        assert value == codec_for(struct_pb2.Value).decode(b"[2,null]")
        assert b"18446744073709551615" == codec_for(wrappers_pb2.UInt64Value).encode(wrapper)
        assert wrapper == codec_for(wrappers_pb2.UInt64Value).decode(b'"18446744073709551615"')


class TestProfile:
    def test_integers_of_structs(self) -> None:
        """Integral numbers in structs are integers as long as each is one integer."""
        struct = struct_pb2.Struct()
        json_format.ParseDict({"a": 5, "b": 2**53 - 1, "c": 2.0**53, "d": 0.5, "e": -3}, struct)
        body = CODEC.encode(Plain(w_struct=struct))

        assert {"a": 5, "b": 9007199254740991, "c": 2**53, "d": 0.5, "e": -3} == orjson.loads(body)[
            "w_struct"
        ]
        for text in (b'"a":5', b'"b":9007199254740991', b'"c":9007199254740992.0', b'"e":-3'):
            assert text in body

    @settings(max_examples=150, deadline=None)
    @given(st.floats(width=32, allow_nan=False, allow_infinity=False))
    def test_floats(self, number: float) -> None:
        """A 32-bit float is written with as few digits as bring it back, alone or in a list."""
        shortest = str(np.float32(number))
        message = Plain(f_float=number, r_float=[number], w_float={"value": number})
        values = written(CODEC, message)

        assert float(shortest) == values["f_float"] == values["r_float"][0] == values["w_float"]
        assert np.float32(values["f_float"]) == number

    @pytest.mark.parametrize(
        ("number", "name"),
        [(float("nan"), "NaN"), (float("inf"), "Infinity"), (-float("inf"), "-Infinity")],
    )
    def test_no_numbers(self, number: float, name: str) -> None:
        """NaN and the infinities are strings, single or in a list, and are read back."""
        message = Plain(f_float=number, f_double=number, r_float=[1, number], r_double=[number])
        values = written(CODEC, message)

        assert [name] * 2 == [values["f_float"], values["f_double"]]
        assert [1.0, name] == values["r_float"]
        assert [name] == values["r_double"]
        again = CODEC.decode(CODEC.encode(message))
        for field in ("f_float", "f_double", "r_float", "r_double"):
            assert str(getattr(message, field)) == str(getattr(again, field))

    def test_enums_of_the_api(self) -> None:
        """States are lower-case names without their prefix; the monitor's are LocalAI's numbers."""
        backend = backend_pb2.Backend(state=backend_pb2.BACKEND_STATE_READY)
        status = backend_pb2.BackendStatus(
            state=backend_pb2.MONITOR_STATE_ERROR, reported_state=backend_pb2.REPORTED_STATE_BUSY
        )

        assert "ready" == written(codec_for(backend_pb2.Backend), backend)["state"]
        values = written(codec_for(backend_pb2.BackendStatus), status)
        assert (-1, "busy", None) == (values["state"], values["reported_state"], values["memory"])


class TestOptions:
    def test_empty(self) -> None:
        """What is unset is null or left out, as the options say."""
        assert {
            "model": "",
            "RunFile": "",
            "text": "",
            "texts": [],
            "text_map": {},
            "stop": [],
            "items": [],
            "rows": [],
            "state": 0,
            "states": [],
            "row": None,
            "names": None,
            "maybe": None,
            "row_map": {},
            "shared": None,
            "plain_state": "unspecified",
            "from": "",
        } == written(OPTIONED, Optioned())

    def test_full(self) -> None:
        """What is set looks as the options say."""
        message = Optioned(
            model="m",
            run_file="run.sh",
            text="ä".encode(),
            texts=[b"a"],
            text_map={"k": b"v"},
            stop=["x"],
            items=[{"name": "n", "parts": [{}]}],
            rows=[{"numbers": [0.1, 2]}, {}],
            left_out="",
            left_out_item={},
            left_out_list=[0],
            left_out_map={"a": 0},
            state=2,
            states=[1, 77],
            row={},
            names={"by_code": {"a": "b"}},
            maybe={"number": 0},
            row_map={"x": {"numbers": [1]}},
            vector=[0.1],
            shared_number=5,
            plain_state=-1,
        )
        item = {"Name": "", "size": 0, "parts": []}

        assert {
            "model": "m",
            "RunFile": "run.sh",
            "text": "ä",
            "texts": ["a"],
            "text_map": {"k": "v"},
            "stop": ["x"],
            "items": [{"Name": "n", "size": 0, "parts": [item]}],
            "rows": [[0.1, 2.0], []],
            "left_out": "",
            "left_out_item": item,
            "left_out_list": [0],
            "left_out_map": {"a": 0},
            "state": 2,
            "states": [1, 77],
            "row": [],
            "names": {"a": "b"},
            "maybe": 0,
            "row_map": {"x": [1.0]},
            "vector": [0.1],
            "shared": 5,
            "plain_state": "negative",
            "from": "",
        } == written(OPTIONED, message)

    def test_shared_rest_name(self) -> None:
        """Of fields that share a name the one that is set is written."""
        embedding = codec_for(inference_service_pb2.Embedding)

        assert [0.5] == written(embedding, inference_service_pb2.Embedding(embedding=[0.5]))[
            "embedding"
        ]
        assert (
            "AAA="
            == written(embedding, inference_service_pb2.Embedding(embedding_base64="AAA="))[
                "embedding"
            ]
        )
        assert "embedding" not in written(embedding, inference_service_pb2.Embedding())
        assert "" == written(OPTIONED, Optioned(shared_text=""))["shared"]

    def test_bare_messages_alone(self) -> None:
        """A message with one unwrapped field is its bare value on its own too."""
        assert b"[1.5]" == codec_for(FloatRow).encode(FloatRow(numbers=[1.5]))
        assert b'{"a":"b"}' == codec_for(Names).encode(Names(by_code={"a": "b"}))
        assert b"null" == codec_for(Maybe).encode(Maybe())
        assert Maybe(number=0) == codec_for(Maybe).decode(b"0")
        assert FloatRow(numbers=[1]) == codec_for(FloatRow).decode(b"[1]")

    def test_one_field(self) -> None:
        """One field can be written alone, set or not."""
        codec = codec_for(backend_service_pb2.ListInstalledBackendsResponse)
        answer = backend_service_pb2.ListInstalledBackendsResponse(backends=[{"name": "llama"}])  # type: ignore[list-item]

        assert "llama" == orjson.loads(codec.encode_field(answer, "backends"))[0]["Name"]
        assert b"[]" == codec.encode_field(type(answer)(), "backends")
        assert b"null" == OPTIONED.encode_field(Optioned(), "left_out_item")


class TestUnwritable:
    @pytest.mark.parametrize(
        ("message", "path"),
        [
            (Plain(w_value={"number_value": float("nan")}), "w_value"),
            (Plain(r_value=[{"bool_value": True}, {"number_value": float("inf")}]), "r_value[1]"),
            (Plain(r_plain=[{}, {"w_timestamp": {"seconds": 2**60}}]), "r_plain[1].w_timestamp"),
            (Plain(c_plain={"w_timestamp": {"nanos": -1}}), "c_plain.w_timestamp"),
            (Plain(m_string_duration={"a": {"seconds": 2**60}}), "m_string_duration.a"),
            (Plain(w_any={"type_url": "x/unknown.Type", "value": b"x"}), "w_any"),
        ],
    )
    def test_path(self, message: Any, path: str) -> None:
        """What JSON cannot express is an error that names the field."""
        with pytest.raises(CodecError, match=r"^cannot write ") as caught:
            CODEC.encode(message)

        assert path == caught.value.field
        assert path in caught.value.message

    def test_path_without_a_name(self) -> None:
        """The path of an element of a bare message starts at the element."""
        message = Optioned(row={"numbers": [1]}, text_map={"a": b"", "b": b"\xff"})
        with pytest.raises(CodecError, match=r"cannot write text_map\.b: "):
            OPTIONED.encode(message)

    def test_text(self) -> None:
        """Text that is not UTF-8 is an error, in a list with its position."""
        with pytest.raises(CodecError, match=r"cannot write texts\[1\]: the bytes are not UTF-8"):
            OPTIONED.encode(Optioned(texts=[b"a", b"\xff"]))

    def test_depth(self) -> None:
        """A message that nests too deep to be written is an error, not a crash."""
        value = struct_pb2.Value()
        inner = value
        for _ in range(3000):
            inner = inner.list_value.values.add()
        with pytest.raises(CodecError, match="cannot write the message: does it nest too deep"):
            codec_for(struct_pb2.Value).encode(value)

    def test_depth_that_only_the_writer_of_text_minds(self) -> None:
        """So is one that is too deep for orjson alone."""
        value = struct_pb2.Value()
        inner = value
        for _ in range(300):
            inner = inner.list_value.values.add()
        with pytest.raises(CodecError, match="cannot write the message: does it nest too deep"):
            codec_for(struct_pb2.Value).encode(value)

    def test_maps_in_maps(self) -> None:
        """Messages in a map may have maps of their own, whichever of their types is met first."""
        jobs = job_service_pb2.ListJobsResponse()
        jobs.jobs["a"].error_metadata["b"] = "c"
        codec = codec_for(job_service_pb2.ListJobsResponse)

        assert {"b": "c"} == orjson.loads(codec.encode_field(jobs, "jobs"))["a"]["error_metadata"]
        assert jobs == codec.decode(codec.encode(jobs))
