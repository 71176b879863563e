"""Lines for curl, grpcurl and Python that call each method, made from the descriptors of the services."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

import localplane.v1
from localplane.v1 import options_pb2
from localplane_gateway.document import Document
from localplane_gateway.page.samples import Sampler

KEY_VARIABLE = "LOCALPLANE_API_KEY"
"""Variable of the environment that the lines take the key from."""

_VERBS = ("get", "post", "put", "delete", "patch")
_ACCESS = {options_pb2.ACCESS_PUBLIC: "public", options_pb2.ACCESS_USER: "user"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the service is and what it has: what the lines are filled with."""

    base_url: str
    """URL of REST, without a slash at its end."""
    grpc: str
    """Address of gRPC."""
    model: str
    """A model to name."""
    requires_key: bool
    """Whether a key is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """How one method is called."""

    method: str
    """Its name."""
    summary: str
    """What it does. Empty when the document does not say."""
    access: str
    """`public`, `user` or `admin`: who may call it where keys are set."""
    route: str
    """Verb and path over REST. Empty when it has none."""
    is_stream: bool
    """Whether it streams."""
    curl: str
    """How curl calls it. Empty when it has no route."""
    grpcurl: str
    """How grpcurl calls it."""
    python: str
    """How Python calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceExamples:
    """How the methods of one service are called."""

    service: str
    """Full name of the service."""
    examples: list[Example]
    """One for each method, in the order of the proto."""


def make_examples(document: Document, place: Place) -> list[ServiceExamples]:
    """Make the lines for every method of every service, by the service's name.

    Args:
        document: Says what each method does: descriptors have no comments.
        place: What the lines are filled with.
    """
    summaries = {
        operation["operationId"]: operation.get("summary", "")
        for item in document.raw["paths"].values()
        for operation in item.values()
    }
    return [
        ServiceExamples(
            service=service.full_name,
            examples=[
                _example(method, place, summaries.get(f"{service.name}.{method.name}", ""))
                for method in service.methods
            ],
        )
        for service in _services()
    ]


def _services() -> Iterator[ServiceDescriptor]:
    for found in sorted(module.name for module in pkgutil.iter_modules(localplane.v1.__path__)):
        if found.endswith("_service_pb2"):
            module = importlib.import_module(f"localplane.v1.{found}")
            yield from module.DESCRIPTOR.services_by_name.values()


def _example(method: MethodDescriptor, place: Place, summary: str) -> Example:
    access = _ACCESS.get(_options(method).Extensions[options_pb2.access], "admin")
    needs_key = place.requires_key and access != "public"
    routed = _routed(method)
    rule = _options(routed).Extensions[annotations_pb2.http] if routed else None
    verb = next((verb for verb in _VERBS if rule is not None and getattr(rule, verb)), "")
    path: str = getattr(rule, verb) if verb else ""
    is_switch = routed is not None and routed is not method
    return Example(
        method=method.name,
        summary=summary,
        access=access,
        route=f"{verb.upper()} {path}".strip(),
        is_stream=method.server_streaming,
        curl=_curl(method, verb, path, place, needs_key=needs_key, is_switch=is_switch)
        if path
        else "",
        grpcurl=_grpcurl(method, place, needs_key=needs_key),
        python=_python(method, place, needs_key=needs_key),
    )


def _routed(method: MethodDescriptor) -> MethodDescriptor | None:
    """Find the method whose route leads to this one: itself, or the one that it streams for."""
    if _options(method).HasExtension(annotations_pb2.http):
        return method
    for other in method.containing_service.methods:
        if _options(other).Extensions[options_pb2.stream_method] == method.name:
            return other
    return None


def _curl(
    method: MethodDescriptor,
    verb: str,
    path: str,
    place: Place,
    *,
    needs_key: bool,
    is_switch: bool,
) -> str:
    values = Sampler(place.model, is_rest=True).sample(method.input_type)
    for field in method.input_type.fields:
        if f"{{{field.name}}}" in path:
            value = str(values.pop(field.name, field.name))
            path = path.replace(f"{{{field.name}}}", quote(value, safe=""))
    words = ["curl"]
    if method.server_streaming:
        words.append("-N")
    produces = list(_options(method).Extensions[options_pb2.produces])
    if produces and not produces[0].startswith("text/"):
        words += ["-o", "answer"]
    if needs_key:
        words += ["-H", f'"Authorization: Bearer ${KEY_VARIABLE}"']
    if verb == "get":
        query = f"?{urlencode(values, doseq=True)}" if values else ""
        return " ".join([*words, shlex.quote(f"{place.base_url}{path}{query}")])
    if is_switch:
        values["stream"] = True
    if values:
        words += ["-H", shlex.quote("Content-Type: application/json")]
        words += ["-d", shlex.quote(json.dumps(values))]
    if verb != "post" or not values:
        words += ["-X", verb.upper()]
    return " ".join([*words, shlex.quote(f"{place.base_url}{path}")])


def _grpcurl(method: MethodDescriptor, place: Place, *, needs_key: bool) -> str:
    values = Sampler(place.model, is_rest=False).sample(method.input_type)
    words = ["grpcurl", "-plaintext"]
    if needs_key:
        words += ["-H", f'"authorization: Bearer ${KEY_VARIABLE}"']
    if values:
        words += ["-d", shlex.quote(json.dumps(values))]
    name = f"{method.containing_service.full_name}/{method.name}"
    return " ".join([*words, shlex.quote(place.grpc), name])


def _python(method: MethodDescriptor, place: Place, *, needs_key: bool) -> str:
    values = Sampler(place.model, is_rest=False).sample(method.input_type)
    service = method.containing_service
    stubs = _module(service.file.name)
    messages = _module(method.input_type.file.name)
    request = f"{messages}.{method.input_type.name}()"
    metadata = ""
    if values:
        request = f"ParseDict({_literal(values)}, {request})"
    if needs_key:
        key = f'"Bearer " + os.environ["{KEY_VARIABLE}"]'
        metadata = f', metadata=[("authorization", {key})]'
    call = f"stub.{method.name}(request{metadata})"
    lines = [
        *(["import os", ""] if needs_key else []),
        "import grpc",
        *(["from google.protobuf.json_format import ParseDict"] if values else []),
        f"from localplane.v1 import {', '.join(sorted({messages, f'{stubs}_grpc'}))}",
        "",
        f"channel = grpc.insecure_channel({_literal(place.grpc)})",
        f"stub = {stubs}_grpc.{service.name}Stub(channel)",
        f"request = {request}",
    ]
    if method.server_streaming:
        lines += [f"for message in {call}:", "    print(message)"]
    else:
        lines.append(f"print({call})")
    return "\n".join(lines)


def _module(proto: str) -> str:
    return proto.rpartition("/")[2].removesuffix(".proto") + "_pb2"


def _literal(value: object) -> str:
    """Write a value as Python, in ASCII, with JSON's quotes where they mean the same."""
    return ascii(value) if not isinstance(value, str) else json.dumps(value)


def _options(descriptor: MethodDescriptor | FieldDescriptor) -> Any:
    # Types of extensions differ between google.api and protobuf, so nobody can check their use.
    return descriptor.GetOptions()
