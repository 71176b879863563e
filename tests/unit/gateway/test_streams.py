"""How the messages of streams are written."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from localplane.v1 import model_pb2, options_pb2
from localplane_gateway.streams import NDJSON, SSE, event_id_reader


def message_class(field_type: int) -> type:
    """A message whose second field names its place."""
    file = descriptor_pb2.FileDescriptorProto(name=f"places{field_type}.proto", package="places")
    message = file.message_type.add(name=f"Piece{field_type}")
    message.field.add(name="text", number=1, type=9, label=1)
    place = message.field.add(name="place", number=2, type=field_type, label=1)
    place.options.Extensions[options_pb2.event_id] = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"places.Piece{field_type}"))


def test_events_have_their_place() -> None:
    """The identifier stands in a line of its own before the data, where there is one."""
    assert b'id: e-1\ndata: {"a":1}\n\n' == SSE.frame(b'{"a":1}', b"e-1")
    assert b'data: {"a":1}\n\n' == SSE.frame(b'{"a":1}')


def test_lines_have_none() -> None:
    """A line of JSON is the message alone."""
    assert b'{"a":1}\n' == NDJSON.frame(b'{"a":1}', b"e-1")


@pytest.mark.parametrize(
    ("field_type", "value", "expected"),
    [
        (descriptor_pb2.FieldDescriptorProto.TYPE_STRING, "e-12", b"e-12"),
        (descriptor_pb2.FieldDescriptorProto.TYPE_STRING, "", b""),
        (descriptor_pb2.FieldDescriptorProto.TYPE_INT64, 12, b"12"),
        (descriptor_pb2.FieldDescriptorProto.TYPE_INT64, 0, b""),
    ],
)
def test_which_field_it_is(field_type: int, value: str | int, expected: bytes) -> None:
    """The field with the option, text or number; empty and zero are no place."""
    read = event_id_reader(message_class(field_type))
    assert read is not None

    assert expected == read(SimpleNamespace(place=value))


def test_no_field() -> None:
    """Most messages have no place."""
    assert event_id_reader(model_pb2.Model) is None


def test_line_breaks() -> None:
    """What would begin a line of its own is left out."""
    read = event_id_reader(message_class(descriptor_pb2.FieldDescriptorProto.TYPE_STRING))
    assert read is not None

    assert b"" == read(SimpleNamespace(place="1\ndata: forged"))
