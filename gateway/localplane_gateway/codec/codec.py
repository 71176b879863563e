"""The codec of one message class."""

from __future__ import annotations

import functools
from typing import Any, Generic, TypeVar, cast

import orjson
from google.protobuf.message import Message

from localplane_gateway.codec.decoder import REFUSALS, Registry, conversion_of
from localplane_gateway.codec.encoder import (
    WRITE_ERRORS,
    UnwritableError,
    field_writer,
    object_writer,
)
from localplane_gateway.codec.error import CodecError
from localplane_gateway.codec.exact import fill
from localplane_gateway.codec.fields import shape_of
from localplane_gateway.codec.vectors import SMALLEST_BODY, vector_reader

M = TypeVar("M", bound=Message)


class Codec(Generic[M]):
    """Turns JSON into messages of one class and back.

    Compiled once from the class's descriptor; `codec_for` keeps what it made.
    """

    def __init__(self, message_class: type[M]) -> None:
        self._class = message_class
        descriptor: Any = message_class.DESCRIPTOR
        decoders: Registry = {}
        self._convert = conversion_of(descriptor, decoders)
        self._vectors = vector_reader(descriptor, decoders)
        self._object = object_writer(descriptor, {})
        self._fields = {
            field.name: field_writer(field, {}) for field in shape_of(descriptor).fields
        }

    def decode(self, body: bytes) -> M:
        """Read a message from JSON text.

        Raises:
            CodecError: If the text is no JSON, or the JSON no such message.
        """
        if self._vectors is not None and len(body) >= SMALLEST_BODY:
            message = self._vectors.read(body)
            if message is not None:
                return cast("M", message)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise CodecError("", f"cannot read the JSON: {error}") from error
        return self.decode_object(value)

    def decode_object(self, value: object) -> M:
        """Read a message from what orjson made of JSON text. The value is left as it is.

        Raises:
            CodecError: If the value is no such message.
        """
        try:
            made = self._convert(value, 0)
            if type(made) is dict:
                return self._class(**made)
        except REFUSALS:
            pass
        else:
            return cast("M", made)
        message = self._class()
        fill(message, value)
        return message

    def encode(self, message: M) -> bytes:
        """Write a message as JSON text.

        Raises:
            CodecError: If JSON cannot express a value of the message.
        """
        return _text_of(self._object, message)

    def encode_field(self, message: M, name: str) -> bytes:
        """Write the value of one field as JSON text, whether it is set or not.

        Raises:
            CodecError: If JSON cannot express the value.
        """
        return _text_of(self._fields[name], getattr(message, name))


@functools.cache
def codec_for(message_class: type[M]) -> Codec[M]:
    """Return the codec of a message class."""
    return Codec(message_class)


def _text_of(write: Any, value: Any) -> bytes:
    try:
        return orjson.dumps(write(value), option=orjson.OPT_SERIALIZE_NUMPY)
    except UnwritableError as error:
        raise CodecError(error.path, str(error)) from error
    except WRITE_ERRORS as error:
        words = "it nests too deep" if isinstance(error, RecursionError) else error
        raise CodecError("", f"cannot write the message: {words}") from error
