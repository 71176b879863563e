"""How the answer of a method becomes a body."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from localplane_gateway.codec import codec_for

Encoder = Callable[[Message], bytes]


class UnsupportedAnswerError(Exception):
    """A `response_body` names a field of a kind that cannot be an answer by itself."""


def encoder_of(message_class: type[Message], field: FieldDescriptor | None) -> Encoder:
    """Make the function that writes a message as JSON, or only that field of it."""
    if field is None:
        encode: Encoder = codec_for(message_class).encode
        return encode
    name = field.name
    if field.message_type is None:
        message = f"cannot answer with {field.full_name}: it holds no messages"
        raise UnsupportedAnswerError(message)
    if field.message_type.GetOptions().map_entry:
        return _map_encoder(name, field.message_type.fields_by_name["value"])
    encode_one = codec_for(message_factory.GetMessageClass(field.message_type)).encode
    if not field.is_repeated:
        return lambda message: encode_one(getattr(message, name))
    return lambda message: b"[" + b",".join(map(encode_one, getattr(message, name))) + b"]"


def _map_encoder(name: str, value: FieldDescriptor) -> Encoder:
    if value.message_type is None:
        return lambda message: orjson.dumps(dict(getattr(message, name)))
    encode_one = codec_for(message_factory.GetMessageClass(value.message_type)).encode
    return lambda message: orjson.dumps(
        {key: orjson.Fragment(encode_one(part)) for key, part in getattr(message, name).items()}
    )
