"""The way from messages to JSON, compiled per message type."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from operator import attrgetter, methodcaller
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from localplane_gateway.codec.fields import Field, Shape, enum_names, shape_of
from localplane_gateway.codec.floats import double_object, float_object, vector_object
from localplane_gateway.codec.structs import list_object, struct_object, value_object

Write = Callable[[Any], Any]
"""Turns a field's value into what orjson writes."""

Registry = dict[Descriptor, "MessageEncoder"]

WRITE_ERRORS = (ValueError, TypeError, RecursionError, json_format.Error)
"""What a value that JSON cannot express raises."""


class UnwritableError(ValueError):
    """A field has a value that JSON cannot express."""

    def __init__(self, path: str, words: str) -> None:
        super().__init__(f"cannot write {path}: {words}")
        self.path = path
        self.words = words


class MessageEncoder:
    """Turns messages of one type into what orjson writes."""

    __slots__ = ("_bare", "_converted", "_filled", "_plain", "_plain_names", "_present", "_unset")

    def __init__(self, shape: Shape, registry: Registry) -> None:
        # Before the fields are compiled, because a message may contain itself.
        registry[shape.descriptor] = self
        plain: list[Field] = []
        self._unset: dict[str, Any] = {}
        """What an empty message is, which also fixes the order of names."""
        self._converted: list[tuple[str, str, Write]] = []
        """Fields that are always written and need a conversion: name, name in JSON, conversion."""
        self._present: list[tuple[str, str, Write | None]] = []
        """Fields that are written when they are set."""
        self._filled: list[tuple[str, str, Write]] = []
        """Fields that are written when they are not empty or zero."""
        for field in shape.fields:
            write = _write_of(field, registry)
            if field.has_presence:
                self._present.append((field.name, field.json_name, write))
                if not (field.omit_unset or field.in_oneof):
                    self._unset.setdefault(field.json_name, None)
                continue
            is_many = field.is_repeated or field.map_key is not None
            if not (is_many and field.omit_unset):
                empty: Any = None if not is_many else [] if field.is_repeated else {}
                self._unset.setdefault(field.json_name, empty)
            if field.is_shared or (is_many and field.omit_unset):
                self._filled.append((field.name, field.json_name, write or _same))
            elif write is None:
                plain.append(field)
            else:
                self._converted.append((field.name, field.json_name, write))
        self._plain_names = tuple(field.json_name for field in plain)
        self._plain = _values_of(tuple(field.name for field in plain))
        self._bare: tuple[str, Write, bool] | None = None
        if shape.bare is not None:
            write = _write_of(shape.bare, registry) or _same
            self._bare = (shape.bare.name, write, shape.bare.has_presence)

    def object(self, message: Any) -> Any:
        """Turn a message into what orjson writes.

        Raises:
            UnwritableError: If JSON cannot express a value, or another of `WRITE_ERRORS`.
        """
        if self._bare is not None:
            name, write, has_presence = self._bare
            if has_presence and not message.HasField(name):
                return None
            return write(getattr(message, name))
        result = self._unset.copy()
        if self._plain_names:
            result.update(zip(self._plain_names, self._plain(message), strict=True))
        json_name = ""
        try:
            for name, json_name, write in self._converted:
                result[json_name] = write(getattr(message, name))
            has = message.HasField
            for name, json_name, convert in self._present:
                if has(name):
                    value = getattr(message, name)
                    result[json_name] = value if convert is None else convert(value)
            for name, json_name, write in self._filled:
                value = getattr(message, name)
                if value:
                    result[json_name] = write(value)
        except WRITE_ERRORS as error:
            raise _located(error, json_name) from error
        return result


def object_writer(descriptor: Descriptor, registry: Registry) -> Write:
    """Compile the way from messages of a type to what orjson writes."""
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special
    encoder = registry.get(descriptor) or MessageEncoder(shape_of(descriptor), registry)
    return encoder.object


def field_writer(field: Field, registry: Registry) -> Write:
    """Compile the way from a field's value to what orjson writes."""
    return _write_of(field, registry) or _same


def _values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Read several attributes in one call."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)


def _write_of(field: Field, registry: Registry) -> Write | None:
    """Compile the conversion of a field; None when orjson writes its values as they are."""
    write = _element_write(field, registry)
    if field.map_key is not None:
        return _map_write(field.map_key, write or _same)
    if not field.is_repeated:
        return write
    if field.is_vector:
        return vector_object
    return list if write is None else _list_write(write)


def _element_write(field: Field, registry: Registry) -> Write | None:
    match field.type:
        case FieldDescriptor.TYPE_DOUBLE:
            return double_object
        case FieldDescriptor.TYPE_FLOAT:
            return float_object
        case FieldDescriptor.TYPE_BYTES:
            return _text if field.text else _base64
        case FieldDescriptor.TYPE_ENUM if field.enum_type.full_name == _NULL_VALUE:
            return _null
        case FieldDescriptor.TYPE_ENUM if not field.enum_as_number:
            return _enum_write(enum_names(field.enum_type))
        case FieldDescriptor.TYPE_MESSAGE | FieldDescriptor.TYPE_GROUP:
            return object_writer(field.message_type, registry)
        case _:
            return None


def _same(value: Any) -> Any:
    return value


def _null(_value: int) -> None:
    return None


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        msg = "the bytes are not UTF-8"
        raise ValueError(msg) from error


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def _enum_write(names: dict[int, str]) -> Write:
    def write(number: int) -> str | int:
        return names.get(number, number)

    return write


def _list_write(write: Write) -> Write:
    def write_list(values: Any) -> list[Any]:
        try:
            return [write(value) for value in values]
        except WRITE_ERRORS as error:
            raise _located(error, f"[{_first_failing(write, values)}]") from error

    return write_list


def _map_write(key: FieldDescriptor, write: Write) -> Write:
    key_name = _key_name(key)

    def write_map(entries: Any) -> dict[str, Any]:
        return {key_name(name): write(entries[name]) for name in entries}

    return write_map


def _key_name(key: FieldDescriptor) -> Callable[[Any], str]:
    if key.type == FieldDescriptor.TYPE_BOOL:
        return lambda name: "true" if name else "false"
    return str


def _first_failing(write: Write, values: Any) -> int:
    for index, value in enumerate(values):
        try:
            write(value)
        except WRITE_ERRORS:
            return index
    return 0


def _located(error: Exception, place: str) -> UnwritableError:
    """Put a place in front of the path of an error."""
    if not isinstance(error, UnwritableError):
        words = "it nests too deep" if isinstance(error, RecursionError) else str(error)
        return UnwritableError(place, words)
    dot = "" if error.path.startswith("[") else "."
    return UnwritableError(f"{place}{dot}{error.path}", error.words)


_NULL_VALUE = "google.protobuf.NullValue"

_json_string = methodcaller("ToJsonString")

_SPECIAL: dict[str, Write] = {
    "google.protobuf.Any": json_format.MessageToDict,
    "google.protobuf.Duration": _json_string,
    "google.protobuf.FieldMask": _json_string,
    "google.protobuf.ListValue": list_object,
    "google.protobuf.Struct": struct_object,
    "google.protobuf.Timestamp": _json_string,
    "google.protobuf.Value": value_object,
}
