"""What an operation of the document stands for: a method, and how HTTP is bound to it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

import localplane.v1
from localplane.v1 import options_pb2
from localplane_gateway.document import Spec

Access = Literal["user", "admin"]

HTTP_BODY = "google.api.HttpBody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A method as a channel wants it."""

    path: str
    """`/package.Service/Method`."""
    request_class: type[Message]
    """Class of its request."""
    response_class: type[Message]
    """Class of its answer, or of the messages of its stream."""
    is_stream: bool
    """Whether it streams."""
    ends_with_done: bool
    """Whether its events end with `[DONE]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One operation."""

    verb: str
    """Lower-case verb of HTTP."""
    call: Call
    """The method."""
    stream: Call | None
    """The streaming method that answers instead when the request's field `stream` is true."""
    access: Access | None
    """Who may call it; None is everybody."""
    statuses: Mapping[str, int]
    """Statuses by reason that differ from the common table."""
    reasons: Mapping[str, str]
    """Reasons by the JSON name of a field of the request, for a wrong value there."""
    required: tuple[str, ...]
    """JSON names of single fields that the path, the query or the body must give."""
    query: Mapping[str, FieldDescriptor]
    """Fields that the query may give, by their names in JSON and in the proto."""
    answer_field: str
    """Name of the field that the answer consists of; empty is the whole message."""
    produces: tuple[str, ...]
    """Media types of the answer. Empty is JSON."""
    is_page: bool
    """Whether the answer is a page for people."""
    is_tagged: bool
    """Whether the answer has a tag that changes when the answer does."""


def import_services() -> None:
    """Import our generated services, so that their descriptors are known."""
    for module in pkgutil.iter_modules(localplane.v1.__path__):
        if module.name.endswith("_service_pb2"):
            importlib.import_module(f"localplane.v1.{module.name}")


def bind(verb: str, operation: Spec) -> Binding:
    """Find out what an operation stands for."""
    pool = descriptor_pool.Default()
    name: str = operation["x-localplane-method"]
    method = pool.FindMethodByName(name.lstrip("/").replace("/", "."))
    options = _options(method)
    rule = options.Extensions[annotations_pb2.http]
    _, _, number = operation["operationId"].partition(f"{method.name}.")
    if number:
        rule = rule.additional_bindings[int(number) - 1]
    streaming = options.Extensions[options_pb2.stream_method]
    fields: list[FieldDescriptor] = list(method.input_type.fields)
    query = [field for field in fields if _fits_query(field)]
    return Binding(
        verb=verb,
        call=_call(method),
        stream=_call(method.containing_service.methods_by_name[streaming]) if streaming else None,
        access=_access(options.Extensions[options_pb2.access]),
        statuses={
            special.reason: special.status
            for special in options.Extensions[options_pb2.http_status]
        },
        reasons={
            json_name(field): reason
            for field in fields
            if (reason := _options(field).Extensions[options_pb2.invalid_reason])
        },
        required=tuple(
            json_name(field) for field in query if _is_required(field) and not field.is_repeated
        ),
        query={name: field for field in query for name in (field.name, json_name(field))},
        answer_field=rule.response_body,
        produces=tuple(options.Extensions[options_pb2.produces]),
        is_page=options.Extensions[options_pb2.static_page],
        is_tagged=options.Extensions[options_pb2.tagged],
    )


def json_name(field: FieldDescriptor) -> str:
    """Name of a field in JSON."""
    name: str = _options(field).Extensions[options_pb2.rest_name]
    return name or field.name


def _call(method: MethodDescriptor) -> Call:
    options = _options(method)
    return Call(
        path=f"/{method.containing_service.full_name}/{method.name}",
        request_class=message_factory.GetMessageClass(method.input_type),
        response_class=message_factory.GetMessageClass(method.output_type),
        is_stream=method.server_streaming,
        ends_with_done=options.Extensions[options_pb2.sse_done],
    )


def _access(declared: int) -> Access | None:
    if declared == options_pb2.ACCESS_PUBLIC:
        return None
    # A forgotten option closes a method.
    return "user" if declared == options_pb2.ACCESS_USER else "admin"


def _options(descriptor: FieldDescriptor | MethodDescriptor) -> Any:
    # Types of extensions differ between google.api and protobuf, so nobody can check their use.
    return descriptor.GetOptions()


def _is_required(field: FieldDescriptor) -> bool:
    behaviors = _options(field).Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behaviors


def _fits_query(field: FieldDescriptor) -> bool:
    return field.type not in (
        FieldDescriptor.TYPE_MESSAGE,
        FieldDescriptor.TYPE_GROUP,
        FieldDescriptor.TYPE_BYTES,
    )
