"""The way from JSON to messages for vectors: their numbers go to the wire, not through Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import simdjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from localplane_gateway.codec.decoder import REFUSALS, Convert, OddError, Registry, conversion_of
from localplane_gateway.codec.fields import Field, Shape, shape_of
from localplane_gateway.codec.floats import are_floats

SMALLEST_BODY = 4096
"""Bytes of JSON from which on this way is the faster one."""

LARGEST_KEPT_BODY = 16 * 2**20
"""Largest body whose parser is kept for the next one. It keeps some two times the body."""

MOST_NAMES = 64
"""Most names in an object: simdjson reads it from its start to find each."""

UNKNOWN_LENGTH = 0xFFFFFF
"""What simdjson says is the length of all arrays that are this long or longer."""

LENGTH_DELIMITED = 2
"""Wire type of messages and packed numbers."""

REFUSED = (*REFUSALS, RuntimeError, LookupError)
"""What is raised for JSON that is not taken: the decoder's refusals and simdjson's."""

_kept_parsers: list[simdjson.Parser] = []
"""At most one parser, with the memory of its last document, which is dear to get anew."""

Pack = Callable[[Any], tuple[bytes, int]]
"""Turns an array into a field on the wire, and counts the arrays that it should consist of."""


class VectorReader:
    """Turns JSON with vectors in it into the wire bytes of one message type.

    simdjson gives the numbers of nested arrays as one buffer and does not tell where an array was
    among them, so that `[[1, 2], []]` passes for `[1, 2]`. The brackets of the document do tell:
    when there are as many as arrays were expected, there are no others.
    """

    def __init__(
        self, shape: Shape, decoders: Registry, readers: dict[Descriptor, VectorReader]
    ) -> None:
        # Before the fields are compiled, because a message may contain itself.
        readers[shape.descriptor] = self
        self._class = shape.message_class
        self._arguments: Convert = conversion_of(shape.descriptor, decoders)
        self._packs: dict[str, Pack] = {}
        self._children: dict[str, tuple[Field, VectorReader]] = {}
        for name, field in shape.inputs.items():
            pack = _pack_of(field)
            if pack is not None:
                self._packs[name] = pack
            elif _leads_to_vectors(field):
                kind = field.message_type
                reader = readers.get(kind) or VectorReader(shape_of(kind), decoders, readers)
                self._children[name] = (field, reader)
        self._aliases = shape.aliases

    def read(self, body: bytes) -> Any:
        """Turn JSON into a message, or into None when the way without vectors must decide."""
        if body.startswith(b"\xef\xbb\xbf"):
            # simdjson alone reads a byte order mark.
            return None
        # One that is in use, or whose arrays still live, cannot be used again: so it is taken away,
        # and put back when all went well.
        try:
            parser = _kept_parsers.pop()
        except IndexError:
            parser = simdjson.Parser()
        others: list[Any] = []
        try:
            wire, arrays = self.wire(parser.parse(body), 0, others)
            brackets = orjson.dumps(others).count(b"[") - 1
            if body.count(b"[") != arrays + brackets:
                return None
            if brackets and b"\\" in body and b"\\u005" in body:
                # A bracket in a string may have been escaped, and hide one of an array.
                return None
            message = self._class.FromString(wire)
        except REFUSED:
            return None
        if len(body) <= LARGEST_KEPT_BODY and not _kept_parsers:
            _kept_parsers.append(parser)
        return message

    def wire(self, value: Any, depth: int, others: list[Any]) -> tuple[bytes, int]:
        """Turn an object into wire bytes, and count the arrays that are not in `others`.

        Args:
            value: The object.
            depth: How many messages are around it.
            others: Takes everything of the object that is no vector.
        """
        names = _names_of(value)
        plain: dict[str, Any] = {}
        parts: list[bytes] = []
        arrays = 0
        for name in names:
            item = value[name]
            pack = self._packs.get(name)
            child = self._children.get(name)
            if pack is not None and isinstance(item, simdjson.Array):
                part, count = pack(item)
                parts.append(part)
                arrays += count
            elif child is not None and item is not None:
                field, reader = child
                is_list = isinstance(item, simdjson.Array)
                if is_list != field.is_repeated:
                    raise OddError
                for element in item if is_list else (item,):
                    part, count = reader.wire(element, depth + 1, others)
                    parts.append(_delimited(field.descriptor.number, part))
                    arrays += count
                arrays += is_list
            else:
                plain[name] = _python_of(item)
        for one, other in self._aliases:
            if one in names and other in names:
                raise OddError
        others.append(plain)
        message = self._class(**self._arguments(plain, depth))
        return message.SerializeToString() + b"".join(parts), arrays


def vector_reader(descriptor: Descriptor, decoders: Registry) -> VectorReader | None:
    """Compile the way for vectors; None when the message type has none."""
    shape = shape_of(descriptor)
    if shape.is_well_known or shape.bare is not None or not _has_vectors(shape, set()):
        return None
    return VectorReader(shape, decoders, {})


def _has_vectors(shape: Shape, seen: set[Descriptor]) -> bool:
    seen.add(shape.descriptor)
    return any(
        _pack_of(field) is not None or _leads_to_vectors(field, seen) for field in shape.fields
    )


def _leads_to_vectors(field: Field, seen: set[Descriptor] | None = None) -> bool:
    """Tell whether a field holds messages that have vectors and are objects in JSON."""
    # The members of a oneof are left to the decoder, which sees whether there is more than one.
    if not field.is_message or field.map_key is not None or field.in_oneof:
        return False
    shape = shape_of(field.message_type)
    if shape.is_well_known or shape.bare is not None:
        return False
    seen = set() if seen is None else seen
    return shape.descriptor not in seen and _has_vectors(shape, seen)


def _names_of(value: Any) -> list[str]:
    if not isinstance(value, simdjson.Object) or len(value) > MOST_NAMES:
        raise OddError
    names = list(value)
    # Of equal names simdjson finds the first and orjson the last; with a zero byte in a name it
    # finds another one.
    if len(set(names)) < len(names) or any("\x00" in name for name in names):
        raise OddError
    return names


def _python_of(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _pack_of(field: Field) -> Pack | None:
    """Compile the way of a field whose numbers become wire bytes; None for another field."""
    number = field.descriptor.number
    if field.is_vector:
        is_float = field.type == FieldDescriptor.TYPE_FLOAT

        def pack(array: Any) -> tuple[bytes, int]:
            numbers = _numbers_of(array, is_float=is_float)
            if not 0 <= numbers.size == len(array) < UNKNOWN_LENGTH:
                raise OddError
            return _packed(number, numbers), 1

        return pack
    if not field.is_list_of_lists:
        return None
    bare = shape_of(field.message_type).bare
    if bare is None or not bare.is_vector:
        return None
    row_number = bare.descriptor.number
    rows_are_floats = bare.type == FieldDescriptor.TYPE_FLOAT

    def pack_rows(array: Any) -> tuple[bytes, int]:
        numbers = _numbers_of(array, is_float=rows_are_floats)
        lengths = [len(row) for row in array]
        if sum(lengths) != numbers.size or max(lengths, default=0) >= UNKNOWN_LENGTH:
            raise OddError
        return _packed_rows(number, row_number, numbers, lengths), 1 + len(lengths)

    return pack_rows


def _numbers_of(array: Any, *, is_float: bool) -> npt.NDArray[Any]:
    """Read all numbers of an array and of the arrays in it."""
    buffer = array.as_buffer(of_type="d")
    if not buffer.size:
        return np.empty(0)
    numbers = np.frombuffer(buffer, np.float64)
    if not is_float:
        return numbers
    if not are_floats(numbers):
        raise OddError
    return numbers.astype("<f4")


def _packed_rows(
    number: int, row_number: int, numbers: npt.NDArray[Any], lengths: list[int]
) -> bytes:
    """Write messages with one vector each."""
    if lengths and min(lengths) == max(lengths) > 0:
        # The header is the same for all rows, so that one table holds headers and numbers.
        data = numbers.view(np.uint8).reshape(len(lengths), -1)
        width = data.shape[1]
        header = _tag(row_number) + _varint(width)
        header = _tag(number) + _varint(len(header) + width) + header
        table = np.empty((len(lengths), len(header) + width), np.uint8)
        table[:, : len(header)] = np.frombuffer(header, np.uint8)
        table[:, len(header) :] = data
        return table.tobytes()
    parts: list[bytes] = []
    start = 0
    for length in lengths:
        parts.append(_delimited(number, _packed(row_number, numbers[start : start + length])))
        start += length
    return b"".join(parts)


def _packed(number: int, numbers: npt.NDArray[Any]) -> bytes:
    return _delimited(number, numbers.tobytes()) if numbers.size else b""


def _delimited(number: int, data: bytes) -> bytes:
    return b"".join((_tag(number), _varint(len(data)), data))


def _tag(number: int) -> bytes:
    return _varint(number << 3 | LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number >> 7:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
