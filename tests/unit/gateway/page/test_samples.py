"""Sample requests of a message that has every kind of field that a method may require."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor

from localplane.v1 import model_service_pb2, options_pb2
from localplane_gateway.page.samples import Sampler

FieldProto = descriptor_pb2.FieldDescriptorProto
REQUIRED = field_behavior_pb2.REQUIRED


def field(
    number: int,
    name: str,
    kind: FieldProto.Type.ValueType,
    *,
    is_list: bool = False,
    type_name: str = "",
    options: Sequence[tuple[Any, Any]] = (),
) -> FieldProto:
    made = FieldProto(name=name, number=number, type=kind)
    made.label = FieldProto.LABEL_REPEATED if is_list else FieldProto.LABEL_OPTIONAL
    if type_name:
        made.type_name = type_name
    extensions: Any = made.options.Extensions
    extensions[field_behavior_pb2.field_behavior].append(REQUIRED)
    for extension, value in options:
        extensions[extension] = value
    return made


@pytest.fixture(scope="module")
def request_type() -> Descriptor:
    """A request as a store of vectors might have it."""
    row = descriptor_pb2.DescriptorProto(name="Row")
    unwrap = [(options_pb2.unwrap, True)]
    row.field.append(field(1, "floats", FieldProto.TYPE_FLOAT, is_list=True, options=unwrap))
    message = descriptor_pb2.DescriptorProto(name="Request")
    optional = FieldProto(
        name="optional", number=99, type=FieldProto.TYPE_STRING, label=FieldProto.LABEL_OPTIONAL
    )
    kinds = descriptor_pb2.EnumDescriptorProto(name="Kind")
    kinds.value.add(name="KIND_UNSPECIFIED", number=0)
    kinds.value.add(name="KIND_FLAT", number=1)
    message.enum_type.append(kinds)
    where = ".localplane.tests.samples"
    text, renamed = [(options_pb2.text, True)], [(options_pb2.rest_name, "TopK")]
    message.field.extend(
        [
            field(1, "keys", FieldProto.TYPE_MESSAGE, is_list=True, type_name=f"{where}.Row"),
            field(2, "values", FieldProto.TYPE_BYTES, is_list=True, options=text),
            field(3, "raw", FieldProto.TYPE_BYTES),
            field(4, "top_k", FieldProto.TYPE_INT32, options=renamed),
            field(5, "kind", FieldProto.TYPE_ENUM, type_name=f"{where}.Request.Kind"),
            field(6, "exact", FieldProto.TYPE_BOOL),
            field(7, "extra", FieldProto.TYPE_MESSAGE, type_name=".google.protobuf.Struct"),
            optional,
        ]
    )
    file = descriptor_pb2.FileDescriptorProto(
        name="localplane/tests/samples.proto",
        package="localplane.tests.samples",
        syntax="proto3",
        dependency=[
            "google/api/field_behavior.proto",
            "google/protobuf/struct.proto",
            "localplane/v1/options.proto",
        ],
        message_type=[row, message],
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName("localplane.tests.samples.Request")


def test_rest(request_type: Descriptor) -> None:
    """REST has its own names and forms; what is optional and tells nothing is left out."""
    assert {
        "keys": [[0.5]],
        "values": ["values"],
        "raw": "cmF3",
        "TopK": 1,
        "kind": "KIND_FLAT",
        "exact": True,
        "extra": {},
    } == Sampler("tiny", is_rest=True).sample(request_type)


def test_protobuf(request_type: Descriptor) -> None:
    """What is for gRPC is JSON that protobuf itself reads."""
    sample = Sampler("tiny", is_rest=False).sample(request_type)
    read: Any = json_format.ParseDict(sample, message_factory.GetMessageClass(request_type)())

    assert [0.5] == list(read.keys[0].floats)
    assert ([b"values"], b"raw", 1) == (list(read.values), read.raw, read.top_k)


def test_model_by_another_name() -> None:
    """A field that takes a model's name is given one, whatever it is called."""
    request = model_service_pb2.GetModelRequest.DESCRIPTOR

    assert {"name": "tiny"} == Sampler("tiny", is_rest=True).sample(request)
