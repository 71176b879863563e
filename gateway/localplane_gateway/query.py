"""Values from the query, as JSON would have them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import FieldDescriptor

from localplane_gateway.bindings import json_name
from localplane_gateway.errors import InvalidRequestError

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_TRUE = frozenset({"true", "1"})
_FALSE = frozenset({"false", "0"})


def read_query(
    query: bytes, fields: Mapping[str, FieldDescriptor], reasons: Mapping[str, str]
) -> dict[str, Any]:
    """Read the parameters that stand for fields; others are ignored.

    Raises:
        InvalidRequestError: If a value is not one of its field's type, or the query is not UTF-8.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        message = "cannot read the query: it is not UTF-8"
        raise InvalidRequestError(message) from error
    values: dict[str, Any] = {}
    for name, text in pairs:
        field = fields.get(name)
        if field is None:
            continue
        key = json_name(field)
        try:
            value = _CONVERTERS.get(field.cpp_type, str)(text)
        except ValueError as error:
            message = f"cannot read query parameter {name}: {error}"
            raise InvalidRequestError(message, field=key, reason=reasons.get(key, "")) from error
        if value is None:
            continue
        if field.is_repeated:
            values.setdefault(key, []).append(value)
        else:
            values[key] = value
    return values


def _integer(text: str) -> int | None:
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        message = "not an integer"
        raise ValueError(message)
    return int(text)


def _number(text: str) -> float | None:
    if not text:
        return None
    message = "not a number"
    try:
        value = float(text)
    except ValueError:
        raise ValueError(message) from None
    if not math.isfinite(value):
        raise ValueError(message)
    return value


def _boolean(text: str) -> bool | None:
    lower = text.lower()
    if not lower:
        return None
    if lower in _TRUE:
        return True
    if lower in _FALSE:
        return False
    message = "neither true nor false"
    raise ValueError(message)


def _enum(text: str) -> str | int | None:
    return int(text) if _INTEGER.fullmatch(text) else text or None


_CONVERTERS: Mapping[int, Callable[[str], Any]] = {
    FieldDescriptor.CPPTYPE_INT32: _integer,
    FieldDescriptor.CPPTYPE_INT64: _integer,
    FieldDescriptor.CPPTYPE_UINT32: _integer,
    FieldDescriptor.CPPTYPE_UINT64: _integer,
    FieldDescriptor.CPPTYPE_FLOAT: _number,
    FieldDescriptor.CPPTYPE_DOUBLE: _number,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_ENUM: _enum,
}
