"""The exact way from JSON to messages: `json_format` judges each value, with the profile around it.

It takes what the fast way refuses, so it may be slow; it knows where it is and words the errors.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import islice
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from localplane_gateway.codec.decoder import many_of
from localplane_gateway.codec.error import INVALID_ARGUMENT, CodecError
from localplane_gateway.codec.fields import (
    DEEPEST,
    INTEGER_RANGES,
    Field,
    enum_names,
    enum_numbers,
    shape_of,
)

LONGEST_INTEGER = 64
"""How many bits orjson's integers have at most."""

LONGEST_QUOTE = 40
"""How many characters of a wrong value, or of a map's key, an error repeats."""


def fill(message: Any, value: Any, path: str = "", depth: int = 1, reason: str = "") -> None:
    """Set the fields of an empty message from what orjson made of its JSON.

    Args:
        message: The message.
        value: The JSON.
        path: Where the message is in the document.
        depth: How many messages deep it is, itself included.
        reason: Reason of an error, when the value is no such message.

    Raises:
        CodecError: If the JSON is no such message.
    """
    shape = shape_of(message.DESCRIPTOR)
    if depth > DEEPEST:
        raise CodecError(path, f"cannot read {_place(path)}: more than {DEEPEST} levels deep")
    if shape.is_well_known:
        if not _parses(value, message, depth):
            raise _error(path, _message_words(message.DESCRIPTOR), value, reason)
    elif shape.bare is not None:
        if value is None:
            raise _error(path, _words(shape.bare), value, reason or shape.bare.invalid_reason)
        _fill_field(message, shape.bare, value, path, depth)
    elif type(value) is not dict:
        raise _error(path, "an object", value, reason)
    else:
        _fill_fields(message, value, path, depth)


def _fill_fields(message: Any, value: dict[str, Any], path: str, depth: int) -> None:
    inputs = shape_of(message.DESCRIPTOR).inputs
    given: set[str] = set()
    oneofs: dict[str, str] = {}
    for key, item in value.items():
        field = inputs.get(key)
        if field is None:
            continue
        where = _join(path, key)
        if field.name in given:
            raise CodecError(where, f"cannot read {where}: it is given under two names")
        given.add(field.name)
        if item is None:
            _set_null(message, field)
            continue
        if field.in_oneof:
            oneof = message.DESCRIPTOR.fields_by_name[field.name].containing_oneof.name
            other = oneofs.setdefault(oneof, key)
            if other != key:
                raise CodecError(where, f"cannot read {where}: {other} excludes it")
        _fill_field(message, field, item, where, depth)


def _set_null(message: Any, field: Field) -> None:
    if not field.takes_null or field.is_repeated or field.map_key is not None:
        message.ClearField(field.name)
    elif field.is_message:
        getattr(message, field.name).null_value = 0
    else:
        setattr(message, field.name, 0)


def _fill_field(message: Any, field: Field, value: Any, path: str, depth: int) -> None:
    if field.map_key is not None:
        _fill_map(message, field, value, path, depth)
    elif field.is_repeated:
        if field.one_or_many:
            value = many_of(value, of_lists=field.is_list_of_lists)
        _fill_list(message, field, value, path, depth)
    elif field.is_message:
        child = getattr(message, field.name)
        child.SetInParent()
        fill(child, value, path, depth + 1, field.invalid_reason)
    elif not _parses({field.canonical_name: _canonical(field, value)}, message, depth):
        raise _error(path, _words(field), value, field.invalid_reason)


def _fill_list(message: Any, field: Field, value: Any, path: str, depth: int) -> None:
    if type(value) is not list:
        raise _error(path, "a list", value, field.invalid_reason)
    if field.is_message:
        children = getattr(message, field.name)
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            if item is None and not field.takes_null:
                raise _error(where, _words(field), item, field.invalid_reason)
            fill(children.add(), item, where, depth + 1, field.invalid_reason)
        return
    items = [_canonical(field, item) for item in value]
    if _parses({field.canonical_name: items}, message, depth):
        return
    index = _first_refused(
        len(items),
        lambda low, high: _parses({field.canonical_name: items[low:high]}, type(message)(), depth),
    )
    raise _error(f"{path}[{index}]", _words(field), value[index], field.invalid_reason)


def _fill_map(message: Any, field: Field, value: Any, path: str, depth: int) -> None:
    if type(value) is not dict:
        raise _error(path, "an object", value, field.invalid_reason)
    name = field.canonical_name
    if field.is_message and not shape_of(field.message_type).is_well_known:
        for key, item in value.items():
            where = _join(path, key[:LONGEST_QUOTE])
            # Entries of messages that may have a profile; the key alone is json_format's.
            keys = type(message)()
            if not _parses({name: {key: {}}}, keys, depth):
                raise _error(where, _key_words(field), key, field.invalid_reason)
            (converted,) = getattr(keys, field.name)
            entry = getattr(message, field.name)[converted]
            entry.Clear()
            fill(entry, item, where, depth + 1, field.invalid_reason)
        return
    items = {key: _canonical(field, item) for key, item in value.items()}
    if _parses({name: items}, message, depth):
        return
    index = _first_refused(
        len(items),
        lambda low, high: _parses(
            {name: dict(islice(items.items(), low, high))}, type(message)(), depth
        ),
    )
    key, item = next(islice(value.items(), index, None))
    words = _words(field)
    if field.map_key is not None and field.map_key.type != FieldDescriptor.TYPE_STRING:
        words = f"{_key_words(field)} as the name and {words}"
    raise _error(_join(path, key[:LONGEST_QUOTE]), words, item, field.invalid_reason)


def _canonical(field: Field, value: Any) -> Any:
    """Take the profile out of a scalar; what is wrong stays wrong."""
    if type(value) is str:
        if field.type == FieldDescriptor.TYPE_ENUM:
            return enum_numbers(field.enum_type).get(value, value)
        if field.type == FieldDescriptor.TYPE_BYTES and field.text:
            try:
                return base64.b64encode(value.encode()).decode()
            except UnicodeEncodeError:
                return value  # which is no base64 either
    return value


def _parses(value: Any, message: Message, depth: int) -> bool:
    """Let json_format set a message that is `depth` deep, and tell whether it accepts the value."""
    try:
        json_format.ParseDict(value, message, max_recursion_depth=DEEPEST - depth + 1)
    except Exception:  # noqa: BLE001 - its own Parse catches the same, because any type can come out
        return False
    return True


def _first_refused(count: int, accepts: Callable[[int, int], bool]) -> int:
    """Find an element that is refused, reading each element about once."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        if accepts(low, middle):
            low = middle
        else:
            high = middle
    return low


def _error(path: str, expected: str, value: Any, reason: str) -> CodecError:
    message = f"cannot read {_place(path)}: expected {expected}, not {_quote(value)}"
    return CodecError(path, message, reason or INVALID_ARGUMENT)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _place(path: str) -> str:
    return path or "the JSON"


def _quote(value: Any) -> str:
    """Name a wrong value without repeating much of it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            quoted = value[:LONGEST_QUOTE].encode(errors="replace").decode()
            return f'"{quoted}"' if len(value) <= LONGEST_QUOTE else f'"{quoted}..."'
        case int() if value.bit_length() > LONGEST_INTEGER:
            return "a larger number"
        case _:
            return str(value)


def _words(field: Field) -> str:
    """Name what a field, or an element of it, takes."""
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return "a string"
        case FieldDescriptor.TYPE_BOOL:
            return "true or false"
        case FieldDescriptor.TYPE_FLOAT:
            return "a number that fits 32 bits"
        case FieldDescriptor.TYPE_DOUBLE:
            return "a number"
        case FieldDescriptor.TYPE_BYTES:
            return "a string" if field.text else "a string in base64"
        case FieldDescriptor.TYPE_ENUM:
            return f"one of {', '.join(enum_names(field.enum_type).values())}"
        case kind if kind in INTEGER_RANGES:
            low, high = INTEGER_RANGES[kind]
            return f"an integer from {low} to {high}"
        case _:
            return _message_words(field.message_type)


def _message_words(descriptor: Any) -> str:
    shape = shape_of(descriptor)
    if shape.bare is not None:
        return "a list" if shape.bare.is_repeated else _words(shape.bare)
    return _MESSAGE_WORDS.get(descriptor.full_name, "an object")


_MESSAGE_WORDS = {
    "google.protobuf.Any": 'an object with a known "@type"',
    "google.protobuf.Duration": "a duration such as 1.5s",
    "google.protobuf.FieldMask": "names of fields with commas between them",
    "google.protobuf.ListValue": f"a list at most {DEEPEST} messages deep",
    "google.protobuf.Struct": f"an object at most {DEEPEST} messages deep",
    "google.protobuf.Timestamp": "a time such as 2030-01-31T12:00:00Z",
    "google.protobuf.Value": f"JSON at most {DEEPEST} messages deep",
}


def _key_words(field: Field) -> str:
    if field.map_key is None or field.map_key.type == FieldDescriptor.TYPE_STRING:
        return "a string"
    if field.map_key.type == FieldDescriptor.TYPE_BOOL:
        return "true or false"
    low, high = INTEGER_RANGES[field.map_key.type]
    return f"an integer from {low} to {high}"
