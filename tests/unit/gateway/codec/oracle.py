"""What the codec should do, said a second time with `json_format` and without options.

The profile is taken off a document before `json_format` reads it, and put on what it wrote.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

WELL_KNOWN_FILES = frozenset(
    f"google/protobuf/{name}.proto"
    for name in ("any", "duration", "field_mask", "struct", "timestamp", "wrappers")
)

ENUM_NAMES = {
    "COLOR_UNSPECIFIED": "unspecified",
    "COLOR_RED": "red",
    "COLOR_DARK_BLUE": "dark_blue",
    "COLOR_2": "color_2",
    "GREEN": "green",
    "COLOR_NEGATIVE": "negative",
    "OK": "ok",
    "SO_SO": "so_so",
    "NULL_VALUE": "null_value",
}
"""Names of all values of the sample's enums: in the proto, and in JSON."""

FULL_NAMES = {short: full for full, short in ENUM_NAMES.items()}

INTEGERS_64 = {
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64,
}


class Refused(Exception):  # noqa: N818 - an outcome, not a failure
    """The document is no such message."""


def read(message_class: Any, document: Any) -> Any:
    """Read a document with json_format."""
    try:
        return json_format.ParseDict(
            _canonical(document, message_class.DESCRIPTOR), message_class()
        )
    except Exception as error:
        raise Refused from error


def written(message: Any) -> Any:
    """Say what the codec's JSON of a message is."""
    plain = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _profile(plain, message.DESCRIPTOR)


def is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def is_regular(descriptor: Descriptor | None) -> bool:
    return descriptor is not None and descriptor.file.name not in WELL_KNOWN_FILES


def _canonical(document: Any, descriptor: Descriptor) -> Any:
    if not is_regular(descriptor):
        return document
    if not isinstance(document, dict):
        raise Refused
    result = {}
    for field in descriptor.fields:
        if field.name in document:
            value = document[field.name]
            is_list = field.is_repeated and not is_map(field)
            if value is None and is_list:
                continue
            result[field.name] = _canonical_field(value, field)
    # In the order of the document, which decides between the members of a oneof.
    return {name: result[name] for name in document if name in result}


def _canonical_field(value: Any, field: FieldDescriptor) -> Any:
    if is_map(field):
        assert field.message_type is not None
        element = field.message_type.fields_by_name["value"]
        if isinstance(value, dict):
            return {key: _canonical_element(item, element) for key, item in value.items()}
    elif field.is_repeated and isinstance(value, list):
        return [_canonical_element(item, field) for item in value]
    elif not field.is_repeated and value is not None:
        return _canonical_element(value, field)
    return value


def _canonical_element(value: Any, field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return _canonical(value, field.message_type)
    if field.enum_type is not None and isinstance(value, str):
        return FULL_NAMES.get(value, value)
    return value


def _profile(value: Any, descriptor: Descriptor) -> Any:
    if descriptor.file.name == "google/protobuf/wrappers.proto":
        return _profile_element(value, descriptor.fields_by_name["value"])
    if descriptor.file.name == "google/protobuf/struct.proto":
        return _integers(value)
    if not is_regular(descriptor):
        return value
    result = {}
    for field in descriptor.fields:
        if field.name in value:
            result[field.name] = _profile_field(value[field.name], field)
        elif field.containing_oneof is None or field.containing_oneof.name == f"_{field.name}":
            result[field.name] = None
    return result


def _profile_field(value: Any, field: FieldDescriptor) -> Any:
    if is_map(field):
        assert field.message_type is not None
        element = field.message_type.fields_by_name["value"]
        return {key: _profile_element(item, element) for key, item in value.items()}
    if field.is_repeated:
        return [_profile_element(item, field) for item in value]
    return _profile_element(value, field)


def _profile_element(value: Any, field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return _profile(value, field.message_type)
    if field.cpp_type in INTEGERS_64:
        return int(value)
    if field.enum_type is not None:
        return ENUM_NAMES.get(value, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT and isinstance(value, float):
        # json_format does not write subnormal numbers as shortly as can be.
        return orjson.loads(orjson.dumps(np.float32(value), option=orjson.OPT_SERIALIZE_NUMPY))
    return value


def _integers(value: Any) -> Any:
    match value:
        case dict():
            return {key: _integers(item) for key, item in value.items()}
        case list():
            return [_integers(item) for item in value]
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case _:
            return value
