"""All that can be called, read from the descriptors of the services and the document of the routes."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, NamedTuple

import pytest
from google.api import field_behavior_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

import localplane.v1
from localplane.v1 import options_pb2
from localplane_gateway.codec import codec_for
from localplane_gateway.document import load_document

GOOD_VALUES: dict[str, Any] = {
    "content": "two words",
    "input": ["two words"],
    "max_tokens": 3,
    "messages": [{"role": "user", "content": "two words"}],
    "model": "echo",
    "name": "echo",
    "prompt": ["two words"],
    "tokens": [104, 105],
    "url": "https://host.invalid/index.yaml",
}
"""Values, by the names of fields, with which a call works. A field that is not here starts out unset, or, where it
is required, as something of its type."""


class Route(NamedTuple):
    """A path and a verb."""

    verb: str
    path: str
    method: str
    """The method that it stands for, such as `ModelService.GetModel`."""
    takes_body: bool
    """Whether it reads a body."""


def _methods() -> dict[str, MethodDescriptor]:
    found = {}
    for module in pkgutil.iter_modules(localplane.v1.__path__):
        if module.name.endswith("_service_pb2"):
            file = importlib.import_module(f"localplane.v1.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                for method in service.methods:
                    found[f"{service.name}.{method.name}"] = method
    return found


def _routes() -> list[Route]:
    found = []
    for path, item in load_document().raw["paths"].items():
        for verb, operation in item.items():
            if called := operation.get("x-localplane-method"):
                method = called.rpartition(".v1.")[2].replace("/", ".")
                found.append(Route(verb.upper(), path, method, "requestBody" in operation))
    return found


METHODS = _methods()
"""Every method of the API, by `Service.Method`."""

ENDLESS = {
    name
    for name, method in METHODS.items()
    if method.server_streaming
    and any(
        field.GetOptions().Extensions[options_pb2.event_id] for field in method.output_type.fields
    )
}
"""Methods that answer until the caller goes away."""

ROUTES = _routes()
"""Every route that stands for a method."""
FIRST = list({(route.method, route.verb): route for route in reversed(ROUTES)}.values())
"""One route of each method and verb; the others have the same layers behind another path."""
WITH_BODY = [route for route in ROUTES if route.takes_body]
FIRST_WITH_BODY = [route for route in FIRST if route.takes_body]
WITH_FIELDS = [route for route in FIRST_WITH_BODY if METHODS[route.method].input_type.fields]
STREAMED = [
    route
    for route in FIRST_WITH_BODY
    if "stream" in METHODS[route.method].input_type.fields_by_name
]
WITH_PATH = [route for route in ROUTES if "{" in route.path]


def walked(routes: list[Route], alone: list[Route] | None = None) -> pytest.MarkDecorator:
    """Have a test walk routes of the gateway inside the service, and some of the one that stands alone."""
    pairs = [("rest", route) for route in routes]
    pairs += [("rest-upstream", route) for route in alone or []]
    names = [f"{gateway} {route.verb} {route.path}" for gateway, route in pairs]
    return pytest.mark.parametrize(("gateway", "route"), pairs, ids=names)


def option(descriptor: Any, extension: Any) -> Any:
    """Return one of our options of a method or a field."""
    return descriptor.GetOptions().Extensions[extension]


def json_name(field: FieldDescriptor) -> str:
    """Return the name of a field over REST."""
    return option(field, options_pb2.rest_name) or field.name


def good_values(method: str) -> dict[str, Any]:
    """Return a request that works, as JSON has it."""
    values = {}
    for field in METHODS[method].input_type.fields:
        if field.name in GOOD_VALUES:
            values[json_name(field)] = GOOD_VALUES[field.name]
        elif field_behavior_pb2.REQUIRED in option(field, field_behavior_pb2.field_behavior):
            values[json_name(field)] = _sample(field)
    return values


def good_request(method: str) -> Message:
    """Return a request that works."""
    request_class = message_factory.GetMessageClass(METHODS[method].input_type)
    message: Message = codec_for(request_class).decode_object(good_values(method))
    return message


def good_path(route: Route) -> str:
    """Return the path of a route with values that work."""
    path = route.path
    for name, value in good_values(route.method).items():
        path = path.replace(f"{{{name}}}", str(value))
    return path


def _sample(field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        value: Any = {}
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        value = "eHg="
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        value = True
    else:
        value = 1
    return [value] if field.is_repeated else value
