"""Sample requests, made from the descriptors of messages."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from localplane.v1 import options_pb2

_MODEL_REASON = "INVALID_MODEL_NAME"
_TEXT = "Say hello."
# What makes a sample more telling than the least that is required, by the name of the field.
_TELLING: Mapping[str, Any] = {
    "content": _TEXT,
    "input": _TEXT,
    "messages": None,
    "prompt": _TEXT,
    "role": "user",
    "tokens": 1,
}
_INTEGERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})


@dataclass(frozen=True, slots=True)
class Sampler:
    """Makes sample requests as JSON has them."""

    model: str
    """The model that they name."""
    is_rest: bool
    """Whether they are for REST, which has names and forms of its own, or protobuf's JSON."""

    def sample(self, message: Descriptor) -> dict[str, Any]:
        """Make a request with all that it must have, the model, and whatever tells what it is for."""
        return {
            self._name(field): self._value(field)
            for field in message.fields
            if _is_required(field) or _is_model(field) or field.name in _TELLING
        }

    def _name(self, field: FieldDescriptor) -> str:
        own = str(_options(field).Extensions[options_pb2.rest_name]) if self.is_rest else ""
        return own or str(field.name)

    def _value(self, field: FieldDescriptor) -> Any:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            return {}
        single = self._single(field)
        return [single] if field.is_repeated else single

    def _single(self, field: FieldDescriptor) -> Any:
        if _is_model(field):
            return self.model
        told = _TELLING.get(field.name)
        kind = field.message_type
        if kind is not None and kind.full_name != "google.protobuf.Value":
            return self._message(kind)
        if field.cpp_type in _INTEGERS:
            return 1
        if field.cpp_type in _FLOATS:
            return 0.5
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return True
        if field.enum_type is not None:
            return field.enum_type.values[-1].name
        text = told if isinstance(told, str) else field.name
        if field.type == FieldDescriptor.TYPE_BYTES:
            is_text = self.is_rest and _options(field).Extensions[options_pb2.text]
            return text if is_text else base64.b64encode(text.encode()).decode()
        return text

    def _message(self, kind: Descriptor) -> Any:
        if kind.file.package == "google.protobuf":
            return {}
        if self.is_rest and len(kind.fields) == 1:
            (field,) = kind.fields
            if _options(field).Extensions[options_pb2.unwrap]:
                return self._value(field)
        return self.sample(kind)


def _is_model(field: FieldDescriptor) -> bool:
    reason = str(_options(field).Extensions[options_pb2.invalid_reason])
    return field.name == "model" or reason == _MODEL_REASON


def _is_required(field: FieldDescriptor) -> bool:
    behaviors = _options(field).Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behaviors


def _options(field: FieldDescriptor) -> Any:
    # Types of extensions differ between google.api and protobuf, so nobody can check their use.
    return field.GetOptions()
