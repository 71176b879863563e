"""What the codec knows of messages and fields: their descriptors, names in JSON and options."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from localplane.v1 import options_pb2

DEEPEST = 100
"""How deep messages may nest, as for `json_format` and on the wire."""

INTEGER_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}
"""The integer types, each with the smallest and the largest number that it holds."""

LARGEST_FLOAT = float.fromhex("0x1.fffffep+127")
"""Largest 32-bit float. What would be rounded down to it is out of range."""

WRAPPERS_FILE = "google/protobuf/wrappers.proto"

WELL_KNOWN = frozenset(
    f"google.protobuf.{name}"
    for name in ("Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value")
)
"""Messages with a JSON form of their own, the wrappers aside."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field and the options that say how it looks in JSON."""

    descriptor: FieldDescriptor
    """The field, or the value of a map's entries."""

    name: str
    """Its name in the proto."""

    json_name: str
    """Its name in JSON."""

    canonical_name: str
    """Its name in proto3 JSON without the profile."""

    has_presence: bool
    """Whether unset differs from zero."""

    in_oneof: bool
    """Whether it is a member of a oneof that the proto declares."""

    is_repeated: bool
    """Whether it is a list. Maps are not."""

    map_key: FieldDescriptor | None
    """The key of a map's entries; None when it is no map."""

    is_shared: bool
    """Whether another field of the message has the same name in JSON."""

    text: bool
    """Whether bytes are UTF-8 text instead of base64."""

    one_or_many: bool
    """Whether a single value may stand for a list of one."""

    omit_unset: bool
    """Whether it is left out when unset or empty."""

    enum_as_number: bool
    """Whether an enum is written as a number."""

    invalid_reason: str
    """Reason of the error when the value is wrong; empty for the usual one."""

    @property
    def type(self) -> int:
        """The type of the value, or of the values of a list or a map."""
        return self.descriptor.type

    @property
    def is_message(self) -> bool:
        """Whether the value, or the values of a list or a map, are messages."""
        return self.descriptor.message_type is not None

    @property
    def message_type(self) -> Any:
        """The message type of the value; `is_message` tells whether there is one."""
        return self.descriptor.message_type

    @property
    def enum_type(self) -> Any:
        """The enum of the value, where its type is one."""
        return self.descriptor.enum_type

    @property
    def takes_null(self) -> bool:
        """Whether null is a value instead of the lack of one."""
        kind = self.descriptor.message_type or self.descriptor.enum_type
        return kind is not None and kind.full_name in {
            "google.protobuf.Value",
            "google.protobuf.NullValue",
        }

    @property
    def is_vector(self) -> bool:
        """Whether it is a list of floating-point numbers."""
        return self.is_repeated and self.type in {
            FieldDescriptor.TYPE_FLOAT,
            FieldDescriptor.TYPE_DOUBLE,
        }

    @property
    def is_list_of_lists(self) -> bool:
        """Whether it is a list of messages that are lists in JSON."""
        if not (self.is_repeated and self.is_message):
            return False
        bare = shape_of(self.message_type).bare
        return bare is not None and bare.is_repeated


@dataclass(frozen=True, slots=True)
class Shape:
    """A message type as JSON shows it."""

    descriptor: Descriptor
    """The message type."""

    fields: tuple[Field, ...]
    """Its fields in the order of the proto."""

    inputs: dict[str, Field]
    """Its fields by every name that is read."""

    bare: Field | None
    """The only field, when the message is written as that field's bare value."""

    oneofs: tuple[tuple[str, ...], ...]
    """Names of the members of each oneof."""

    aliases: tuple[tuple[str, str], ...]
    """The two names in JSON of each field that is read under two."""

    @property
    def message_class(self) -> type[Message]:
        """The class of such messages."""
        return GetMessageClass(self.descriptor)

    @property
    def is_well_known(self) -> bool:
        """Whether it has a JSON form of its own."""
        return self.descriptor.full_name in WELL_KNOWN or self.is_wrapper

    @property
    def is_wrapper(self) -> bool:
        """Whether it wraps a scalar to give it presence."""
        return self.descriptor.file.name == WRAPPERS_FILE


@functools.cache
def shape_of(descriptor: Descriptor) -> Shape:
    """Describe a message type.

    Raises:
        TypeError: If a field has `unwrap` and is not the only one.
    """
    fields = [(field, _options_of(field)) for field in descriptor.fields]
    names = [_json_name(field, options) for field, options in fields]
    # Only the proto tells a oneof from the one that stands for the word `optional`.
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    described = tuple(
        _describe(
            field,
            options,
            json_name=name,
            in_oneof=field.containing_oneof is not None and not declared.proto3_optional,
            is_shared=names.count(name) > 1,
        )
        for (field, options), name, declared in zip(fields, names, proto.field, strict=True)
    )
    is_bare = any(options.Extensions[options_pb2.unwrap] for _, options in fields)
    if is_bare and len(fields) > 1:
        msg = f"cannot unwrap {descriptor.full_name}: it has more than one field"
        raise TypeError(msg)
    # Names of the profile win over the proto's names; of two equal ones the first is read.
    inputs: dict[str, Field] = {}
    for field in described:
        inputs.setdefault(field.json_name, field)
    for field in described:
        inputs.setdefault(field.name, field)
    return Shape(
        descriptor=descriptor,
        fields=described,
        inputs=inputs,
        bare=described[0] if is_bare or descriptor.file.name == WRAPPERS_FILE else None,
        oneofs=tuple(
            tuple(member.name for member in oneof.fields)
            for oneof in descriptor.oneofs
            if len(oneof.fields) > 1
        ),
        aliases=tuple(
            (field.json_name, field.name)
            for field in described
            if field.json_name != field.name
            and inputs[field.json_name] is inputs[field.name] is field
        ),
    )


@functools.cache
def enum_names(enum: EnumDescriptor) -> dict[int, str]:
    """Name the values of an enum as JSON does, by number."""
    prefix = "".join(
        f"_{letter}" if index and letter.isupper() else letter
        for index, letter in enumerate(enum.name)
    )
    prefix = f"{prefix.upper()}_"
    short = {
        number: _without_prefix(value.name, prefix).lower()
        for number, value in enum.values_by_number.items()
    }
    unique = list(short.values())
    return {
        number: name if unique.count(name) == 1 else enum.values_by_number[number].name
        for number, name in short.items()
    }


@functools.cache
def enum_numbers(enum: EnumDescriptor) -> dict[str, int]:
    """Number the values of an enum by every name that is read."""
    numbers = {name: number for number, name in enum_names(enum).items()}
    return numbers | {name: value.number for name, value in enum.values_by_name.items()}


def _without_prefix(name: str, prefix: str) -> str:
    """Strip the enum's prefix unless the rest is empty or reads as a number."""
    rest = name.removeprefix(prefix)
    return rest if rest and not rest[0].isdigit() else name


def _options_of(field: FieldDescriptor) -> FieldOptions:
    # Parsed anew: descriptors of another pool, or parsed before the options were known, would keep
    # them as unknown fields.
    return FieldOptions.FromString(field.GetOptions().SerializeToString())


def _json_name(field: FieldDescriptor, options: FieldOptions) -> str:
    return options.Extensions[options_pb2.rest_name] or field.name


def _describe(
    descriptor: FieldDescriptor,
    options: FieldOptions,
    *,
    json_name: str,
    in_oneof: bool,
    is_shared: bool,
) -> Field:
    kind = descriptor.message_type
    entry = kind.fields_by_name if kind is not None and kind.GetOptions().map_entry else None
    field = Field(
        descriptor=descriptor,
        name=descriptor.name,
        json_name=json_name,
        canonical_name=descriptor.json_name,
        has_presence=descriptor.has_presence,
        in_oneof=in_oneof,
        is_repeated=descriptor.is_repeated and entry is None,
        map_key=None,
        is_shared=is_shared,
        text=options.Extensions[options_pb2.text],
        one_or_many=options.Extensions[options_pb2.one_or_many],
        omit_unset=options.Extensions[options_pb2.omit_unset],
        enum_as_number=options.Extensions[options_pb2.enum_as_number],
        invalid_reason=options.Extensions[options_pb2.invalid_reason],
    )
    if entry is not None:
        return replace(field, descriptor=entry["value"], map_key=entry["key"])
    return field
