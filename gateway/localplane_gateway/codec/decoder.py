"""The fast way from JSON to messages: takes what is certain, refuses the rest without a word."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Error as MessageError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from localplane_gateway.codec.fields import (
    DEEPEST,
    INTEGER_RANGES,
    LARGEST_FLOAT,
    Field,
    Shape,
    enum_numbers,
    shape_of,
)
from localplane_gateway.codec.structs import fill_list, fill_struct, fill_value
from localplane_gateway.codec.timestamps import fill_timestamp

Convert = Callable[[Any, int], Any]
"""Turns a value into a constructor's argument; the number is the depth of the message around it."""

Registry = dict[Descriptor, "MessageDecoder"]


class OddError(Exception):
    """The value is not one that the fast way takes. The exact way decides on it."""


REFUSALS = (
    OddError,
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    MessageError,
)
"""What the fast way, or a message's constructor, raises for an odd value."""


class MessageDecoder:
    """Turns JSON objects into keyword arguments for one message class.

    Nested messages stay keyword arguments, so that one constructor builds all of them in C.
    """

    __slots__ = ("_aliases", "_entries", "_oneofs")

    def __init__(self, shape: Shape, registry: Registry) -> None:
        # Before the fields are compiled, because a message may contain itself.
        registry[shape.descriptor] = self
        self._entries = {
            name: (field.name, *_conversion(field, registry))
            for name, field in shape.inputs.items()
        }
        self._oneofs = shape.oneofs
        self._aliases = shape.aliases

    def arguments(self, value: Any, depth: int) -> dict[str, Any]:
        """Turn an object into keyword arguments.

        Args:
            value: What orjson made of the JSON.
            depth: How many messages are around it.

        Raises:
            OddError: If the exact way must decide, and so with the other `REFUSALS`.
        """
        depth += 1
        # One less than may be: a leaf can be a message too.
        if type(value) is not dict or depth >= DEEPEST:
            raise OddError
        found: dict[str, Any] = {}
        entry_of = self._entries.get
        for key, item in value.items():
            entry = entry_of(key)
            if entry is None:
                continue
            name, exact, convert, null = entry
            if type(item) is exact:
                found[name] = item
            elif item is None:
                found[name] = null
            else:
                found[name] = convert(item, depth)
        for members in self._oneofs:
            if sum(found.get(name) is not None for name in members) > 1:
                raise OddError
        for one, other in self._aliases:
            if one in value and other in value:
                raise OddError
        return found


class BareDecoder(MessageDecoder):
    """Turns bare values into keyword arguments for messages with a single field."""

    __slots__ = ("_bare",)

    def __init__(self, shape: Shape, bare: Field, registry: Registry) -> None:
        super().__init__(shape, registry)
        self._bare = self._entries[bare.name]

    def arguments(self, value: Any, depth: int) -> dict[str, Any]:
        """Turn the field's value into its keyword argument."""
        depth += 1
        if value is None or depth >= DEEPEST:
            raise OddError
        name, exact, convert, _ = self._bare
        return {name: value if type(value) is exact else convert(value, depth)}


def conversion_of(descriptor: Descriptor, registry: Registry) -> Convert:
    """Compile the way from JSON to the keyword arguments of a message, or to the message."""
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special(GetMessageClass(descriptor))
    decoder = registry.get(descriptor)
    if decoder is None:
        shape = shape_of(descriptor)
        if shape.bare is None:
            decoder = MessageDecoder(shape, registry)
        else:
            decoder = BareDecoder(shape, shape.bare, registry)
    return decoder.arguments


def _conversion(field: Field, registry: Registry) -> tuple[type | None, Convert, Any]:
    """Compile a field: the type of values taken as they are, the conversion of others, and null."""
    exact, convert = _element_conversion(field, registry)
    if field.map_key is not None:
        return None, _map_conversion(field.map_key, exact, convert), None
    if field.is_repeated:
        many = _vector_conversion(field) if field.is_vector else _list_conversion(exact, convert)
        return None, _one_or_many(field, many) if field.one_or_many else many, None
    if not field.takes_null:
        return exact, convert, None
    return exact, convert, {"null_value": 0} if field.is_message else 0


def _element_conversion(field: Field, registry: Registry) -> tuple[type | None, Convert]:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return str, _refuse
        case FieldDescriptor.TYPE_BOOL:
            return bool, _refuse
        case FieldDescriptor.TYPE_DOUBLE:
            return None, _double
        case FieldDescriptor.TYPE_FLOAT:
            return None, _float
        case FieldDescriptor.TYPE_BYTES:
            return None, _text if field.text else _base64
        case FieldDescriptor.TYPE_ENUM:
            return int, _enum_conversion(enum_numbers(field.enum_type))
        case kind if kind in INTEGER_RANGES:
            return int, _integer
        case _:
            return None, conversion_of(field.message_type, registry)


def _refuse(_value: Any, _depth: int) -> NoReturn:
    raise OddError


def _integer(value: Any, _depth: int) -> int:
    # 1.0 is an integer to JSON schemas, and proto3 JSON writes 64 bits as strings.
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and value.isascii() and value.removeprefix("-").isdigit():
        return int(value)
    raise OddError


def _double(value: Any, _depth: int) -> Any:
    # NaN and the infinities alone differ from zero here; orjson makes none, but callers could.
    if type(value) is int or (type(value) is float and value - value == 0.0):
        return value
    raise OddError


def _float(value: Any, _depth: int) -> Any:
    if type(value) in _NUMBERS and -LARGEST_FLOAT <= value <= LARGEST_FLOAT:
        return value
    raise OddError


def _text(value: Any, _depth: int) -> bytes:
    if type(value) is not str:
        raise OddError
    return value.encode()


def _base64(value: Any, _depth: int) -> bytes:
    if type(value) is not str:
        raise OddError
    # As json_format: either alphabet, padded or not.
    encoded = value.encode()
    return urlsafe_b64decode(encoded + b"=" * (4 - len(encoded) % 4))


def _enum_conversion(numbers: dict[str, int]) -> Convert:
    def convert(value: Any, _depth: int) -> int:
        number = numbers.get(value) if type(value) is str else None
        if number is None:
            raise OddError
        return number

    return convert


_NUMBERS = frozenset({int, float})


def _vector_conversion(field: Field) -> Convert:
    is_float = field.type == FieldDescriptor.TYPE_FLOAT

    def convert(value: Any, _depth: int) -> Any:
        if type(value) is not list or not _NUMBERS.issuperset(map(type, value)):
            raise OddError
        total = sum(value)
        if total - total != 0.0:
            raise OddError
        if is_float and value and (max(value) > LARGEST_FLOAT or min(value) < -LARGEST_FLOAT):
            raise OddError
        return value

    return convert


def _list_conversion(exact: type | None, convert: Convert) -> Convert:
    only = {exact}

    def convert_list(value: Any, depth: int) -> Any:
        if type(value) is not list:
            raise OddError
        if exact is not None and only.issuperset(map(type, value)):
            return value
        return [item if type(item) is exact else convert(item, depth) for item in value]

    return convert_list


def _one_or_many(field: Field, convert: Convert) -> Convert:
    of_lists = field.is_list_of_lists

    def convert_one_or_many(value: Any, depth: int) -> Any:
        return convert(many_of(value, of_lists=of_lists), depth)

    return convert_one_or_many


def many_of(value: Any, *, of_lists: bool) -> Any:
    """Make a list of what may be a single element, which may be a list itself."""
    if type(value) is not list:
        return [value]
    if of_lists and value and type(value[0]) is not list:
        return [value]
    return value


def _map_conversion(key: FieldDescriptor, exact: type | None, convert: Convert) -> Convert:
    only = {exact}
    convert_key = _key_conversion(key)

    def convert_map(value: Any, depth: int) -> Any:
        if type(value) is not dict:
            raise OddError
        if convert_key is None and exact is not None and only.issuperset(map(type, value.values())):
            return value
        return {
            name if convert_key is None else convert_key(name, depth): (
                item if type(item) is exact else convert(item, depth)
            )
            for name, item in value.items()
        }

    return convert_map


def _key_conversion(key: FieldDescriptor) -> Convert | None:
    if key.type == FieldDescriptor.TYPE_STRING:
        return None
    return _bool_key if key.type == FieldDescriptor.TYPE_BOOL else _integer


def _bool_key(name: Any, _depth: int) -> bool:
    if name == "true":
        return True
    if name == "false":
        return False
    raise OddError


def _struct_conversion(message_class: Any) -> Convert:
    def convert(value: Any, depth: int) -> Message:
        if type(value) is not dict:
            raise OddError
        message: Any = message_class()
        fill_struct(message, value, depth + 1)
        return message  # type: ignore[no-any-return]

    return convert


def _list_value_conversion(message_class: Any) -> Convert:
    def convert(value: Any, depth: int) -> Message:
        if type(value) is not list:
            raise OddError
        message: Any = message_class()
        fill_list(message, value, depth + 1)
        return message  # type: ignore[no-any-return]

    return convert


def _value_conversion(message_class: Any) -> Convert:
    def convert(value: Any, depth: int) -> Any:
        if type(value) is str:
            return {"string_value": value}
        message = message_class()
        fill_value(message, value, depth)
        return message

    return convert


def _json_string_conversion(message_class: Any) -> Convert:
    def convert(value: Any, _depth: int) -> Any:
        message = message_class()
        message.FromJsonString(value)
        return message

    return convert


def _timestamp_conversion(message_class: Any) -> Convert:
    def convert(value: Any, _depth: int) -> Any:
        message = message_class()
        fill_timestamp(message, value)
        return message

    return convert


def _any_conversion(_message_class: Any) -> Convert:
    # What it holds is named in the JSON, so there is nothing to compile.
    return _refuse


_SPECIAL: dict[str, Callable[[Any], Convert]] = {
    "google.protobuf.Any": _any_conversion,
    "google.protobuf.Duration": _json_string_conversion,
    "google.protobuf.FieldMask": _json_string_conversion,
    "google.protobuf.ListValue": _list_value_conversion,
    "google.protobuf.Struct": _struct_conversion,
    "google.protobuf.Timestamp": _timestamp_conversion,
    "google.protobuf.Value": _value_conversion,
}
