"""Random messages and documents for the codec's tests."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from protos.codec_sample import Plain
from unit.gateway.codec.oracle import is_map

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)

SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=6),
    FieldDescriptor.TYPE_ENUM: st.sampled_from([0, 1, 2, 3, 4, -1, 77]),
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
"""Anything that orjson makes of JSON."""

ODDITY_LIST: list[Any] = [
    *(None, True, False, 0, -0.0, 1, -1, 5.0, 1.5, 1e39, -1e39, 3.4028235e38, 1e300, 5e-324),
    *(2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32, 2**53 + 1, 2**63, -(2**63), 2**64 - 1),
    *("", "5", "-5", "5.0", "5.5", " 5", "5 ", "1_000", "0x5", "1e2", "٣", "--5", "+5", "9" * 30),
    *("NaN", "nan", "Infinity", "-Infinity", "inf", "1e400", "true", "false", "null"),
    *("YQ==", "YQ", "Y", "_-8=", "+/8=", "a b=", "ä", "COLOR_RED", "red", "RED", "color_2", "2"),
    *("ok", "OK", "NULL_VALUE", "null_value", "2020-02-30T00:00:00Z", "2020-02-29T12:30:45Z"),
    *("2020-01-01T00:00:00.123456789Z", "2020-01-01T00:00:00.1+01:30", "2020-1-1T0:0:0Z"),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "0000-01-01T00:00:00Z"),
    *("2020-01-01t00:00:00Z", "2020-01-01T00:00:60Z", "2020-01-01T00:00:00.0123456789Z"),
    *("2020-01-01T00:00:00.9e308Z", "2020-01-01T00:00:00Z\n", "1s", "-1.5s", "1.0000000001s"),
    *("a,b", "fooBar", "foo_bar", [], {}, [[]], [{}], [None], [1, "1"], ["a", 1], [True, 1]),
    *({"": 1}, {"a": None}, {"1": 1, "01": 2}, {"true": "YQ=="}, {"TRUE": ""}, {" 1": True}),
    *({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}, {"@type": "x"}),
    *({"@type": "type.googleapis.com/google.protobuf.Duration"}, {"@type": 5}),
    *({"@type": "type.googleapis.com/localplane.tests.Plain", "fInt32": 3}, "a" * 100),
]
"""Values at which readers of JSON differ."""

ODDITIES = st.sampled_from(ODDITY_LIST)


def arguments(descriptor: Descriptor, depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Make keyword arguments for messages of a type that JSON can express."""
    fields = {field.name: _field(field, depth) for field in descriptor.fields}
    names = sorted(name for name, values in fields.items() if not values.is_empty)
    if not names:
        return st.just({})
    return st.lists(st.sampled_from(names), max_size=8, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: fields[name] for name in chosen})
    )


def messages() -> st.SearchStrategy[Any]:
    """Make messages of the sample's biggest type."""
    return arguments(Plain.DESCRIPTOR).map(lambda given: Plain(**given))


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if is_map(field):
        assert field.message_type is not None
        entry = field.message_type.fields_by_name
        element = _element(entry["value"], depth)
        if element.is_empty:
            return st.just({})
        return st.dictionaries(_element(entry["key"], depth), element, max_size=3)
    element = _element(field, depth)
    if not field.is_repeated:
        return element
    return st.just([]) if element.is_empty else st.lists(element, max_size=3)


def _element(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is None:
        if field.enum_type is not None and field.enum_type.name == "NullValue":
            return st.just(0)
        return SCALARS[field.type]
    message_class: Any = GetMessageClass(kind)
    match kind.full_name:
        case "google.protobuf.Timestamp":
            return st.builds(
                message_class,
                seconds=st.integers(-62135596800, 253402300799),
                nanos=st.sampled_from([0, 1, 250_000_000, 999_999_999]),
            )
        case "google.protobuf.Duration":
            return st.integers(-(10**11), 10**11).map(
                lambda nanos: message_class(seconds=abs(nanos) // 10**9, nanos=abs(nanos) % 10**9)
            )
        case "google.protobuf.FieldMask":
            return st.just(message_class(paths=["a", "foo_bar.baz"]))
        case "google.protobuf.Any":
            packed = message_class()
            packed.Pack(Duration(seconds=3))
            return st.sampled_from([packed, message_class()])
        case "google.protobuf.Struct":
            return st.dictionaries(TEXT, JSON, max_size=3).map(lambda value: _struct(kind, value))
        case "google.protobuf.ListValue":
            return st.lists(JSON, max_size=3).map(lambda value: _struct(kind, value))
        case "google.protobuf.Value":
            return JSON.map(lambda value: _struct(kind, value))
        case _ if depth == 0:
            return st.nothing()
        case _:
            return arguments(kind, depth - 1).map(lambda given: message_class(**given))


def _struct(kind: Descriptor, value: Any) -> Any:
    return json_format.ParseDict(value, GetMessageClass(kind)())


def documents(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Make documents of which most are near to being messages of the sample's biggest type."""
    fields = {field.name: _near(field, depth) for field in Plain.DESCRIPTOR.fields}
    names = st.sampled_from([*sorted(fields), "unknown", "fInt32", ""])
    return st.lists(names, max_size=4, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: fields.get(name, JSON) for name in chosen})
    )


def _near(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if is_map(field):
        assert field.message_type is not None
        entry = field.message_type.fields_by_name
        keys = st.sampled_from(["", "a", "1", "-1", "01", " 1", "1.0", "true", "false", "x" * 50])
        elements = _near_element(entry["value"], depth)
        near: st.SearchStrategy[Any] = st.dictionaries(keys, elements, max_size=2)
    elif field.is_repeated:
        near = st.lists(_near_element(field, depth), max_size=3)
    else:
        return _near_element(field, depth)
    return st.one_of(near, near, ODDITIES, JSON)


def _near_element(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is Plain.DESCRIPTOR:
        return st.one_of(documents(depth - 1), ODDITIES) if depth else ODDITIES
    if field.message_type is None and field.type in (
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_BOOL,
    ):
        return st.one_of(SCALARS[field.type], ODDITIES)
    return st.one_of(ODDITIES, JSON, st.integers(-9, 9))
