"""Input that nobody should send, made from descriptors: messages, JSON, bytes."""

from __future__ import annotations

import copy
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

from google.protobuf import message_factory, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from contract.surface import good_values, json_name

IS_THOROUGH = "LOCALPLANE_FUZZ_EXAMPLES" in os.environ
"""Whether the walk takes its time, as `make fuzz` does, or leaves out what is much like the rest."""
DEEPEST = 3
"""How many messages the walk goes down."""
LONG = 1_000_000 if IS_THOROUGH else 100_000
"""Bytes of a long text: more than fits any header, and less than any limit of bodies."""

TEXTS = {
    "empty": "",
    "blank": " \t ",
    "control": "a\x00b\x1b[31m\r\nc",
    "parent": "../../../etc/passwd",
    "absolute": "/etc/passwd",
    "template": "{{.Input}} ${HOME} %s %n",
    "unicode": "\u202e\ufeff日本語\U0001f600\u0000",
    "number": "-1e999",
    "words": "null",
    "long": "x" * LONG,
    "many words": "a " * 20_000,
}
"""Strings."""

_SIGNED_32 = (-(2**31), -1, 0, 2**31 - 1)
_SIGNED_64 = (-(2**63), -1, 0, 2**63 - 1)
_FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, -0.0, 3.4e38, 1e-45)

FRAGMENTS = {
    "null": b"null",
    "true": b"true",
    "false": b"false",
    "zero": b"0",
    "minus": b"-1",
    "over 32 bits": b"2147483648",
    "over 64 bits": b"18446744073709551616",
    "long integer": b"-" + b"9" * 5000,
    "fraction": b"1.5",
    "large": b"1e308",
    "over a double": b"1e400",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "NaN text": b'"NaN"',
    "infinite text": b'"-Infinity"',
    "integer text": b'"-5"',
    "empty": b'""',
    "blank": b'" "',
    "text": b'"some text"',
    "control": b'"a\\u0000\\u001b\\r\\n"',
    "raw control": b'"a\x01b"',
    "lone surrogate": b'"\\ud800"',
    "swapped surrogates": b'"\\udc00\\ud800"',
    "raw surrogate": b'"\xed\xa0\x80"',
    "not UTF-8": b'"\xff\xfe"',
    "long": b'"' + b"x" * LONG + b'"',
    "list": b"[]",
    "list of lists": b"[[],[[]]]",
    "list of nulls": b"[null,null]",
    "mixed list": b'[1,"a",true,{},[1.5]]',
    "long list": b"[" + b"0," * 5000 + b"0]",
    "object": b"{}",
    "other object": b'{"type":"x","a":{"b":[{"c":null}]}}',
    "lists of depth": b"[" * 500 + b"]" * 500,
    "objects of depth": b'{"a":' * 500 + b"1" + b"}" * 500,
}
"""JSON, or what is nearly JSON, to stand in the place of any value."""

INNER_FRAGMENTS = (
    "null",
    "minus",
    "infinite text",
    "text",
    "lone surrogate",
    "mixed list",
    "object",
    "objects of depth",
)
"""The fragments that stand in the place of a value inside another, unless the walk is thorough."""

BODIES = {
    "nothing": b"",
    "blank": b" \n",
    "open": b"{",
    "closed": b"}",
    "cut": b'{"model": "echo", "prompt": ["a',
    "cut after colon": b'{"model":',
    "list": b"[]",
    "list of objects": b'[{"model":"echo"}]',
    "null": b"null",
    "true": b"true",
    "number": b"123",
    "text": b'"model"',
    "single quotes": b"{'model': 'echo'}",
    "bare names": b"{model: 1}",
    "comma": b'{"model":"echo",}',
    "two documents": b'{"model":"echo"}{"model":"echo"}',
    "comment": b'{"model":"echo"} // please',
    "form": b"model=echo&prompt=hello",
    "mark": b"\xef\xbb\xbf" + b'{"model":"echo"}',
    "UTF-16": '{"model":"echo"}'.encode("utf-16"),
    "not UTF-8": b'{"model":"\xff\xfe"}',
    "not UTF-8 in a name": b'{"\xff":1}',
    "zeros": bytes(100),
    "protobuf": b"\x0a\x04echo",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and closed": b'{"model":' + b"[" * 900 + b"]" * 900 + b"}",
    "duplicates": b'{"model":"echo","model":5,"model":null,"model":"nobody"}',
    "unknown fields": b'{"nothing":1,"__proto__":{},"":2,"MODEL":"x","model ":"y"}',
    "many names": b"{" + b",".join(b'"k%d":%d' % (n, n) for n in range(20_000)) + b"}",
    "long name": b'{"' + b"k" * LONG + b'":1}',
}
"""Whole bodies."""

WIRE = {
    "not a message": b"\xff" * 16,
    "cut": b"\x0a\xff\x01abc",
    "endless number": b"\x08" + b"\x80" * 11,
    "field zero": b"\x00\x01",
    "open group": b"\x0b",
    "groups of depth": b"\x0b" * 10_000,
    "unknown fields": b"\xf8\xff\xff\xff\x0f\x01" * 1000,
}
"""Bytes that are no message, or hardly one."""


def messages(start: Message, depth: int = DEEPEST) -> Iterator[tuple[str, Message]]:
    """Yield a message in which nothing is set, and then copies with one value changed each."""
    yield "nothing set", type(start)()
    yield from _changes(start, depth)


def _changes(start: Message, depth: int) -> Iterator[tuple[str, Message]]:
    descriptor: Any = start.DESCRIPTOR  # its type is not quite the one that has a name
    for field in descriptor.fields:
        for label, value in _values(field, start, depth):
            changed = copy.deepcopy(start)
            changed.ClearField(field.name)
            held: Any = getattr(changed, field.name)
            if field.is_repeated and not isinstance(value, dict):
                held.extend(value)
            elif isinstance(value, dict):
                held.update(value)
            elif isinstance(value, Message):
                held.CopyFrom(value)
            else:
                setattr(changed, field.name, value)
            yield f"{field.name}: {label}", changed


def _values(field: Any, start: Message, depth: int) -> Iterator[tuple[str, Any]]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield "empty", {}
        return
    if not field.is_repeated:
        yield from _single(field, _held(field, start), depth)
        return
    yield "empty", []
    one = None
    held = getattr(start, field.name)
    for label, value in _single(field, held[0] if len(held) else None, depth):
        one = value if one is None else one
        yield f"one, {label}", [value]
    yield "very many", [one] * 5000


def _held(field: FieldDescriptor, start: Message) -> Any:
    return getattr(start, field.name) if field.message_type is not None else None


def _single(field: FieldDescriptor, held: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if field.message_type is not None:
        yield from _message_values(field.message_type, held, depth)
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield from TEXTS.items()
    elif field.type == FieldDescriptor.TYPE_BYTES:
        yield from ((label, text.encode()) for label, text in TEXTS.items())
    elif field.type == FieldDescriptor.TYPE_ENUM:
        yield from ((str(number), number) for number in _SIGNED_32)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        yield from (("true", True), ("false", False))
    elif field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        yield from ((str(number), number) for number in _FLOATS)
    else:
        is_64 = field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
        is_unsigned = field.cpp_type in (
            FieldDescriptor.CPPTYPE_UINT32,
            FieldDescriptor.CPPTYPE_UINT64,
        )
        numbers = _SIGNED_64 if is_64 else _SIGNED_32
        yield from ((str(number), number) for number in numbers if number >= 0 or not is_unsigned)


def _message_values(
    descriptor: Descriptor, held: Message | None, depth: int
) -> Iterator[tuple[str, Message]]:
    if descriptor.full_name == "google.protobuf.Value":
        yield from _loose_values()
        return
    if descriptor.full_name == "google.protobuf.Struct":
        for label, value in _loose_values():
            yield label, struct_pb2.Struct(fields={"type": value, "": value})
        return
    start = held if held is not None else message_factory.GetMessageClass(descriptor)()
    yield "nothing set", type(start)()
    if depth:
        yield from _changes(start, depth - 1)


def _loose_values() -> Iterator[tuple[str, struct_pb2.Value]]:
    value = struct_pb2.Value
    yield "no kind", value()
    yield "null", value(null_value=struct_pb2.NULL_VALUE)
    yield "true", value(bool_value=True)
    yield from ((str(number), value(number_value=number)) for number in (*_FLOATS, 1e308))
    yield from ((label, value(string_value=text)) for label, text in TEXTS.items())
    yield "empty list", value(list_value=struct_pb2.ListValue())
    yield "empty object", value(struct_value=struct_pb2.Struct())
    deep = value(string_value="x")
    for number in range(30):
        if number % 2:
            deep = value(list_value=struct_pb2.ListValue(values=[deep]))
        else:
            deep = value(struct_value=struct_pb2.Struct(fields={"type": deep}))
    yield "deep", deep


def wire_of(method_input: Descriptor) -> Iterator[tuple[str, bytes]]:
    """Yield bytes that are no request, or a bad one."""
    yield from WIRE.items()
    for field in method_input.fields:
        for kind, content in ((0, b"\x01"), (1, bytes(8)), (2, b"\x02\xc3\x28"), (5, bytes(4))):
            yield f"{field.name} as wire type {kind}", _tag(field.number, kind) + content


def _tag(number: int, kind: int) -> bytes:
    value, tag = number << 3 | kind, b""
    while value > 0x7F:
        tag += bytes([value & 0x7F | 0x80])
        value >>= 7
    return tag + bytes([value])


def bodies_of(method: str, descriptor: Descriptor) -> Iterator[tuple[str, bytes]]:
    """Yield JSON bodies: one that works, with one value in it changed."""
    good = good_values(method)
    for path in _paths(descriptor, DEEPEST):
        body = copy.deepcopy(good)
        _put(body, path, _PLACE)
        before, _, after = json.dumps(body).partition(f'"{_PLACE}"')
        for label in FRAGMENTS if IS_THOROUGH or len(path) == 1 else INNER_FRAGMENTS:
            yield f"{'.'.join(path)}: {label}", before.encode() + FRAGMENTS[label] + after.encode()


_PLACE = "the place of the fragment"


def _paths(descriptor: Descriptor, depth: int) -> Iterator[tuple[str, ...]]:
    for field in descriptor.fields:
        name = json_name(field)
        yield (name,)
        if field.is_repeated:
            yield name, "0"
        inner = field.message_type
        if inner is None or not depth or inner.full_name.startswith("google.protobuf."):
            continue
        for rest in _paths(inner, depth - 1):
            yield (name, "0", *rest) if field.is_repeated else (name, *rest)


def _put(body: Any, path: tuple[str, ...], value: Any) -> None:
    for step, following in itertools.pairwise(path):
        inner: Any = [] if following == "0" else {}
        if step == "0":
            if not body:
                body.append(inner)
            body = body[0]
        else:
            if not isinstance(body.get(step), type(inner)):
                body[step] = inner
            body = body[step]
    if path[-1] == "0":
        body[:] = [value]
    else:
        body[path[-1]] = value
