"""Schemas of messages, in the JSON that the gateway's codec reads and writes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from localplane.v1 import options_pb2
from openapi.descriptors import Descriptors, GeneratorError

Schema = dict[str, Any]

HTTP_BODY = "google.api.HttpBody"

_INTEGERS = {
    FieldDescriptorProto.TYPE_INT32: ("int32", False),
    FieldDescriptorProto.TYPE_SINT32: ("int32", False),
    FieldDescriptorProto.TYPE_SFIXED32: ("int32", False),
    FieldDescriptorProto.TYPE_UINT32: ("uint32", True),
    FieldDescriptorProto.TYPE_FIXED32: ("uint32", True),
    FieldDescriptorProto.TYPE_INT64: ("int64", False),
    FieldDescriptorProto.TYPE_SINT64: ("int64", False),
    FieldDescriptorProto.TYPE_SFIXED64: ("int64", False),
    FieldDescriptorProto.TYPE_UINT64: ("uint64", True),
    FieldDescriptorProto.TYPE_FIXED64: ("uint64", True),
}

_SIMPLE: dict[int, Schema] = {
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
}

# Messages whose JSON is not that of their fields.
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "description": "Seconds, such as `1.5s`."},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {"description": "Any JSON value."},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {"type": "object", "additionalProperties": True},
    HTTP_BODY: {"type": "string", "format": "binary"},
}


class Direction(Enum):
    """Which way a message goes. What is read is laxer than what is written."""

    REQUEST = "request"
    RESPONSE = "response"


def json_name(field: FieldDescriptorProto) -> str:
    """Name of a field in JSON."""
    return str(field.options.Extensions[options_pb2.rest_name]) or field.name


def is_repeated(field: FieldDescriptorProto) -> bool:
    """Whether a field is a list or a map."""
    return field.label == FieldDescriptorProto.LABEL_REPEATED


def is_message(field: FieldDescriptorProto) -> bool:
    """Whether the values of a field are messages."""
    return field.type == FieldDescriptorProto.TYPE_MESSAGE


def is_required(field: FieldDescriptorProto) -> bool:
    """Whether a request is wrong without the field."""
    # The types of google.api say FieldDescriptor where those of protobuf want its generic stand-in.
    options: Any = field.options
    return field_behavior_pb2.REQUIRED in options.Extensions[field_behavior_pb2.field_behavior]


def fits_query(field: FieldDescriptorProto) -> bool:
    """Whether a query parameter can carry a field: a single value, or a list of them."""
    return not is_message(field) and field.type != FieldDescriptorProto.TYPE_BYTES


def enum_value_name(enum_name: str, value_name: str) -> str:
    """Name of an enum's value in JSON: lower case, without the enum's own name in front."""
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", enum_name).upper()
    return value_name.removeprefix(f"{prefix}_").lower()


class Schemas:
    """Makes the schemas of messages, and collects those that are referred to by name.

    Args:
        descriptors: Where messages and enums are found.
        requests: Full names of the messages that requests are.
        responses: Full names of the messages that answers are.
    """

    def __init__(
        self, descriptors: Descriptors, requests: Iterable[str], responses: Iterable[str]
    ) -> None:
        self.components: dict[str, Schema] = {}
        """Schemas by the names under which others refer to them."""
        self._descriptors = descriptors
        self._requests = frozenset(requests)
        self._in_both = self._reachable(self._requests) & self._reachable(responses)

    def of_message(self, full_name: str, direction: Direction) -> Schema:
        """Get the schema of a message, most often a reference to it."""
        if full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[full_name])
        message = self._descriptors.messages[full_name]
        if inner := _unwrapped(message):
            return self._field_type(inner, direction)
        name = _component_name(full_name)
        if direction is Direction.REQUEST and full_name in self._in_both:
            name += "Input"
        if name not in self.components:
            self.components[name] = {}  # so that a message that contains itself ends here
            self.components[name] = self._of_fields(full_name, message, direction)
        return {"$ref": f"#/components/schemas/{name}"}

    def of_field(self, message_name: str, field: FieldDescriptorProto) -> Schema:
        """Get the schema of a field of an answer, for an answer that is only this field."""
        return self._field_type(field, Direction.RESPONSE) | self._described(message_name, field)

    def of_query(self, field: FieldDescriptorProto) -> Schema:
        """Get the schema of a query parameter that carries a field of a request."""
        single = self._single(field, Direction.REQUEST)
        return {"type": "array", "items": single} if is_repeated(field) else single

    def _reachable(self, roots: Iterable[str]) -> set[str]:
        seen: set[str] = set()
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name in seen or name in _WELL_KNOWN:
                continue
            seen.add(name)
            waiting += [
                field.type_name.lstrip(".")
                for field in self._descriptors.messages[name].field
                if is_message(field)
            ]
        return seen

    def _of_fields(self, full_name: str, message: DescriptorProto, direction: Direction) -> Schema:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for field in message.field:
            name = json_name(field)
            is_needed = self._is_needed(full_name, field, direction)
            schema = self._property(full_name, field, direction, is_needed=is_needed)
            if name in properties:
                schema = _one_of(properties[name], schema)
            properties[name] = schema
            if is_needed:
                required.append(name)
        schema = {"type": "object"}
        if comment := self._descriptors.comment(full_name):
            schema["description"] = comment
        if required:
            schema["required"] = required
        if properties:
            schema["properties"] = properties
        return schema

    def _is_needed(
        self, message_name: str, field: FieldDescriptorProto, direction: Direction
    ) -> bool:
        if direction is Direction.RESPONSE:
            return not field.options.Extensions[options_pb2.omit_unset] and not _is_in_oneof(field)
        # A single value may come from the path or the query instead; who joins the three checks it.
        from_elsewhere = message_name in self._requests and fits_query(field)
        return is_required(field) and (is_repeated(field) or not from_elsewhere)

    def _property(
        self,
        message_name: str,
        field: FieldDescriptorProto,
        direction: Direction,
        *,
        is_needed: bool,
    ) -> Schema:
        schema = self._field_type(field, direction)
        extras = self._described(message_name, field)
        # In a request, null is the same as leaving the field out.
        is_request = direction is Direction.REQUEST
        if not is_needed if is_request else _is_null_when_unset(field):
            extras["nullable"] = True
        if "$ref" in schema and extras:
            # Whatever stands beside a reference is ignored.
            return {"allOf": [schema], **extras}
        return {**schema, **extras}

    def _described(self, message_name: str, field: FieldDescriptorProto) -> Schema:
        comment = self._descriptors.comment(f"{message_name}.{field.name}")
        return {"description": comment} if comment else {}

    def _field_type(self, field: FieldDescriptorProto, direction: Direction) -> Schema:
        if entry := self._descriptors.map_entry(field):
            value = next(part for part in entry.field if part.name == "value")
            return {"type": "object", "additionalProperties": self._single(value, direction)}
        single = self._single(field, direction)
        if not is_repeated(field):
            return single
        many = {"type": "array", "items": single}
        if direction is Direction.REQUEST and field.options.Extensions[options_pb2.one_or_many]:
            return {"oneOf": [single, many]}
        return many

    def _single(self, field: FieldDescriptorProto, direction: Direction) -> Schema:
        if field.type in _SIMPLE:
            return dict(_SIMPLE[field.type])
        if field.type in _INTEGERS:
            return _integer(*_INTEGERS[field.type], direction)
        if field.type == FieldDescriptorProto.TYPE_BYTES:
            is_text = field.options.Extensions[options_pb2.text]
            return {"type": "string"} if is_text else {"type": "string", "format": "byte"}
        name = field.type_name.lstrip(".")
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            as_number = field.options.Extensions[options_pb2.enum_as_number]
            return self._enum(name, direction, as_number=as_number)
        if is_message(field):
            return self.of_message(name, direction)
        message = f"cannot describe {field.name}: groups have no JSON"
        raise GeneratorError(message)

    def _enum(self, full_name: str, direction: Direction, *, as_number: bool) -> Schema:
        enum = self._descriptors.enums[full_name]
        name = _component_name(full_name) + ("Number" if as_number else "")
        if name not in self.components:
            values: list[tuple[str | int, str]] = [
                (
                    value.number if as_number else enum_value_name(enum.name, value.name),
                    self._descriptors.comment(f"{full_name}.{value.name}"),
                )
                for value in enum.value
            ]
            lines = [f"* `{value}`: {comment}" for value, comment in values]
            self.components[name] = {
                "type": "integer" if as_number else "string",
                "enum": [value for value, _ in values],
                "description": "\n".join([self._descriptors.comment(full_name), "", *lines]),
            }
        reference: Schema = {"$ref": f"#/components/schemas/{name}"}
        if direction is Direction.RESPONSE:
            return reference
        # The value's full name and its number are read as well.
        return {"anyOf": [reference, {"type": "string"}, {"type": "integer"}]}


def _integer(form: str, is_unsigned: bool, direction: Direction) -> Schema:  # noqa: FBT001
    schema: Schema = {"type": "integer", "format": form}
    if is_unsigned:
        schema["minimum"] = 0
    if direction is Direction.REQUEST and form.endswith("64"):
        # Programs whose numbers are doubles send large ones as text.
        sign = "" if is_unsigned else "-?"
        return {"anyOf": [schema, {"type": "string", "pattern": f"^{sign}[0-9]+$"}]}
    return schema


def _unwrapped(message: DescriptorProto) -> FieldDescriptorProto | None:
    """Get the field whose bare value is written in place of the message."""
    marked = [field for field in message.field if field.options.Extensions[options_pb2.unwrap]]
    if not marked:
        return None
    if len(message.field) > 1:
        error = f"cannot unwrap {message.name}: it has other fields"
        raise GeneratorError(error)
    return marked[0]


def _component_name(full_name: str) -> str:
    return full_name.removeprefix("localplane.v1.")


def _is_in_oneof(field: FieldDescriptorProto) -> bool:
    return field.HasField("oneof_index") and not field.proto3_optional


def _is_null_when_unset(field: FieldDescriptorProto) -> bool:
    if field.options.Extensions[options_pb2.omit_unset] or is_repeated(field):
        return False
    return field.proto3_optional or (is_message(field) and not _is_in_oneof(field))


def _one_of(*schemas: Schema) -> Schema:
    """Join the schemas of fields that share a name in JSON, of which one is set at a time."""
    choices: list[Schema] = []
    comments: list[str] = []
    for schema in schemas:
        rest = dict(schema)
        comments += [rest.pop("description")] if "description" in rest else []
        choices += rest["oneOf"] if set(rest) == {"oneOf"} else [rest]
    joined: Schema = {"oneOf": choices}
    if comments:
        joined["description"] = " ".join(comments)
    return joined
