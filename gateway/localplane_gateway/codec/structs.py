"""`google.protobuf.Struct`, `Value` and `ListValue` from JSON and to JSON."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from localplane_gateway.codec.fields import DEEPEST

EXACT_INTEGERS = 2.0**53
"""Every integral number below this is one integer; above, a double stands for several."""


class NestingError(ValueError):
    """JSON that nests too deep to be read without counting exactly."""


def fill_struct(struct: Struct, value: dict[str, Any], depth: int) -> None:
    """Set the fields of an empty struct."""
    if depth >= DEEPEST:
        raise NestingError
    fields = struct.fields
    for name, item in value.items():
        fill_value(fields[name], item, depth)
    if not value:
        struct.SetInParent()


def fill_list(values: ListValue, value: list[Any], depth: int) -> None:
    """Set the elements of an empty list."""
    if depth >= DEEPEST:
        raise NestingError
    add = values.values.add
    for item in value:
        fill_value(add(), item, depth)
    if not value:
        values.SetInParent()


def fill_value(message: Value, value: Any, depth: int) -> None:
    """Set an empty value from what orjson made of its JSON."""
    kind = type(value)
    if kind is str:
        message.string_value = value
    elif kind is dict:
        # A value and the struct in it are two messages deep.
        fill_struct(message.struct_value, value, depth + 2)
    elif kind is list:
        fill_list(message.list_value, value, depth + 2)
    elif kind is bool:
        message.bool_value = value
    elif value is None:
        message.null_value = 0  # type: ignore[assignment]
    else:
        message.number_value = value


def struct_object(struct: Struct) -> dict[str, Any]:
    """Turn a struct into what orjson writes."""
    fields = struct.fields
    result = {}
    for name in fields:
        value = fields[name]
        # Most values are strings, and this costs less than to ask which member is set.
        result[name] = value.string_value or value_object(value)
    return result


def value_object(message: Value) -> Any:
    """Turn a value into what orjson writes.

    Raises:
        ValueError: If it is a number that JSON does not have.
    """
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return message.string_value
    if kind == "struct_value":
        return struct_object(message.struct_value)
    if kind == "list_value":
        return [value_object(item) for item in message.list_value.values]
    if kind == "number_value":
        return _number(message.number_value)
    if kind == "bool_value":
        return message.bool_value
    return None


def list_object(values: ListValue) -> list[Any]:
    """Turn a list of values into what orjson writes."""
    return [value_object(item) for item in values.values]


def _number(number: float) -> float:
    if number.is_integer():
        return int(number) if -EXACT_INTEGERS < number < EXACT_INTEGERS else number
    if number - number != 0.0:
        msg = "a Value holds no NaN and no infinity"
        raise ValueError(msg)
    return number
