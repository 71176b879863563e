"""The codec of one message class."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

import orjson
from google.protobuf.message import Message

from localplane_gateway.codec.decoder import REFUSALS, Registry, conversion_of
from localplane_gateway.codec.encoder import WRITE_ERRORS, Encoder, Write
from localplane_gateway.codec.error import CodecError
from localplane_gateway.codec.exact import fill
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
        self._encoder = Encoder(descriptor)

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
        try:
            fill(message, value)
        except RecursionError as error:
            # The caller was deep already: the limit of the exact way leaves room for some hundred.
            raise CodecError("", "cannot read the JSON: it nests too deep") from error
        return message

    def encode(self, message: M) -> bytes:
        """Write a message as JSON text.

        Raises:
            CodecError: If JSON cannot express a value of the message.
        """
        return self._written(self._encoder.object, message)

    def encode_field(self, message: M, name: str) -> bytes:
        """Write the value of one field as JSON text, whether it is set or not.

        Raises:
            CodecError: If JSON cannot express the value.
        """
        return self._written(self._encoder.fields[name], message)

    def _written(self, write: Write, message: M) -> bytes:
        try:
            return orjson.dumps(write(message), option=orjson.OPT_SERIALIZE_NUMPY)
        except WRITE_ERRORS as error:
            # How deep a message nests is nobody's fault, and orjson has a limit of its own.
            path = (
                ""
                if isinstance(error, RecursionError)
                else self._encoder.culprit(message).removeprefix(".")
            )
            words = str(error) if path else f"does it nest too deep? {error}"
            raise CodecError(path, f"cannot write {path or 'the message'}: {words}") from error


_CODECS: dict[type[Message], Codec[Any]] = {}


def codec_for(message_class: type[M]) -> Codec[M]:
    """Return the codec of a message class, compiled when it is first asked for."""
    codec = _CODECS.get(message_class)
    if codec is None:
        codec = _CODECS[message_class] = Codec(message_class)
    return codec
