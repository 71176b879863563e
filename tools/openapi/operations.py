"""Operations: what one HTTP route of a method takes and answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from localplane.v1 import options_pb2
from openapi.descriptors import Descriptors, GeneratorError
from openapi.schemas import (
    HTTP_BODY,
    Direction,
    Schema,
    Schemas,
    fits_query,
    is_repeated,
    is_required,
    json_name,
)

_VERBS = ("get", "put", "post", "delete", "patch")
_HTML = "text/html"
_JSON = "application/json"
_STREAMS = ("text/event-stream", "application/x-ndjson")
_TEXT = "text/plain"
_LAST_EVENT_ID: Schema = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "`id` of the last event that was received; the stream goes on behind it. Browsers send it"
    " by themselves when they connect again.",
    "schema": {"type": "string"},
}
_ERROR_RESPONSES = {
    "400": "BadRequest",
    "401": "Unauthenticated",
    "403": "Forbidden",
    "413": "BodyTooLarge",
    "415": "UnsupportedMediaType",
    "default": "Error",
}


class Method(NamedTuple):
    """A method that has routes."""

    service_name: str
    service: ServiceDescriptorProto
    proto: MethodDescriptorProto

    @property
    def rules(self) -> list[http_pb2.HttpRule]:
        """Its bindings, the main one first."""
        # The types of google.api say FieldDescriptor where those of protobuf want its stand-in.
        options: Any = self.proto.options
        rule = options.Extensions[annotations_pb2.http]
        return [rule, *rule.additional_bindings]

    @property
    def answers(self) -> list[MethodDescriptorProto]:
        """The method, and the streaming one that answers the same routes, if there is one."""
        name = self.proto.options.Extensions[options_pb2.stream_method]
        if not name:
            return [self.proto]
        for other in self.service.method:
            if other.name == name and other.server_streaming:
                if other.input_type != self.proto.input_type:
                    message = f"cannot stream {self.proto.name} with {name}: its request differs"
                    raise GeneratorError(message)
                return [self.proto, other]
        message = f"cannot stream {self.proto.name} with {name}: no such streaming method"
        raise GeneratorError(message)


class Route(NamedTuple):
    """One operation and where it is found."""

    path: str
    verb: str
    operation: Schema


def methods_with_routes(descriptors: Descriptors, files: list[str]) -> Iterator[Method]:
    """Iterate over the methods of the files that have HTTP bindings."""
    for file in files:
        for service_name, service in descriptors.services.get(file, []):
            for proto in service.method:
                options: Any = proto.options
                if options.HasExtension(annotations_pb2.http):
                    yield Method(service_name, service, proto)


def routes(method: Method, descriptors: Descriptors, schemas: Schemas) -> Iterator[Route]:
    """Iterate over the operations of a method, one for each of its bindings."""
    for number in range(len(method.rules)):
        builder = _Operation(method, descriptors, schemas, number)
        yield Route(builder.path, builder.verb, builder.build())


class _Operation:
    """Builds one operation."""

    def __init__(
        self, method: Method, descriptors: Descriptors, schemas: Schemas, number: int
    ) -> None:
        rule = method.rules[number]
        self.verb = rule.WhichOneof("pattern") or ""
        if self.verb not in _VERBS:
            message = f"cannot route {method.proto.name}: a binding needs a verb"
            raise GeneratorError(message)
        self.path: str = getattr(rule, self.verb)
        self._method = method
        self._number = number
        self._descriptors = descriptors
        self._schemas = schemas
        self._rule = rule
        self._options = method.proto.options.Extensions
        self._request_name = method.proto.input_type.lstrip(".")
        self._request = descriptors.messages[self._request_name]
        self._is_public = self._options[options_pb2.access] == options_pb2.ACCESS_PUBLIC
        if rule.body not in ("", "*"):
            message = f"cannot route {self.path}: the body must be the whole request"
            raise GeneratorError(message)
        self._has_body = rule.body == "*" or (
            self.verb == "get" and self._options[options_pb2.body_on_get]
        )

    def build(self) -> Schema:
        """Build the operation."""
        service_name, service, proto = self._method
        operation: Schema = {
            "operationId": f"{service.name}.{proto.name}"
            + (f".{self._number}" if self._number else ""),
            "tags": [service.name],
            "x-localplane-method": f"/{service_name}/{proto.name}",
        }
        if comment := self._descriptors.comment(f"{service_name}.{proto.name}"):
            operation["summary"] = re.split(r"(?<=[^.])\.(?:\s|$)|:\s|\n", comment, maxsplit=1)[0]
            operation["description"] = comment
        if parameters := list(self._parameters()):
            operation["parameters"] = parameters
        if self._has_body:
            operation["requestBody"] = self._body()
        operation["responses"] = self._responses()
        if self._is_public:
            operation["security"] = []
        return operation

    def _parameters(self) -> Iterator[Schema]:
        fields = {field.name: field for field in self._request.field}
        in_path = re.findall(r"\{([^}]*)\}", self.path)
        for name in in_path:
            if name not in fields or is_repeated(fields[name]) or not fits_query(fields[name]):
                message = f"cannot route {self.path}: {{{name}}} must be a field with one value"
                raise GeneratorError(message)
            yield self._parameter(fields[name], "path", is_needed=True)
        for name, field in fields.items():
            # The query can carry all of them; beside a body only a model's name is worth a line.
            if name in in_path or not fits_query(field):
                continue
            if not self._has_body or name == "model" or not self._rule.body:
                is_needed = is_required(field) and not self._has_body
                yield self._parameter(field, "query", is_needed=is_needed)
        if any(self._has(answer, options_pb2.event_id) for answer in self._method.answers):
            yield _LAST_EVENT_ID

    def _has(self, answer: MethodDescriptorProto, option: Any) -> bool:
        """Whether a stream is made of messages that have a field with an option."""
        fields = self._descriptors.messages[answer.output_type.lstrip(".")].field
        return answer.server_streaming and any(field.options.Extensions[option] for field in fields)

    def _parameter(self, field: FieldDescriptorProto, where: str, *, is_needed: bool) -> Schema:
        parameter: Schema = {"name": json_name(field), "in": where, "required": is_needed}
        if comment := self._descriptors.comment(f"{self._request_name}.{field.name}"):
            parameter["description"] = comment
        parameter["schema"] = self._schemas.of_query(field)
        return parameter

    def _body(self) -> Schema:
        schema = self._schemas.of_message(self._request_name, Direction.REQUEST)
        needs_body = any(
            is_required(field) and (is_repeated(field) or not fits_query(field))
            for field in self._request.field
        )
        return {"required": needs_body, "content": {_JSON: {"schema": schema}}}

    def _responses(self) -> Schema:
        content: Schema = {}
        for answer in self._method.answers:
            content |= self._content(answer)
        responses: Schema = {"200": {"description": "The answer.", "content": content}}
        for status, name in _ERROR_RESPONSES.items():
            if (status == "401" and self._is_public) or (
                status in ("413", "415") and not self._has_body
            ):
                continue
            responses[status] = {"$ref": f"#/components/responses/{name}"}
        for special in self._options[options_pb2.http_status]:
            responses[str(special.status)] = {
                "description": f"Among others: `{special.reason}`.",
                "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
            }
        return dict(sorted(responses.items()))

    def _content(self, answer: MethodDescriptorProto) -> Schema:
        name = answer.output_type.lstrip(".")
        schema = self._answer_schema(name)
        content: Schema
        if answer.server_streaming:
            if name == HTTP_BODY:
                message = f"cannot route {self.path}: a stream of bytes has no events"
                raise GeneratorError(message)
            content = {media_type: {"schema": schema} for media_type in _STREAMS}
            if self._has(answer, options_pb2.plain_line):
                content[_TEXT] = {"schema": {"type": "string"}}
            return content
        media_types = list(answer.options.Extensions[options_pb2.produces])
        if (name == HTTP_BODY) != bool(media_types):
            message = f"cannot route {self.path}: HttpBody and the option produces go together"
            raise GeneratorError(message)
        content = {media_type: {"schema": schema} for media_type in media_types or [_JSON]}
        if answer.options.Extensions[options_pb2.static_page] and not media_types:
            content[_HTML] = {"schema": {"type": "string"}}
        return content

    def _answer_schema(self, name: str) -> Schema:
        part = self._rule.response_body
        if not part:
            return self._schemas.of_message(name, Direction.RESPONSE)
        field = _field(self._descriptors.messages[name], part)
        if field is None:
            message = f"cannot route {self.path}: {name} has no field {part}"
            raise GeneratorError(message)
        return self._schemas.of_field(name, field)


def _field(message: DescriptorProto, name: str) -> FieldDescriptorProto | None:
    return next((field for field in message.field if field.name == name), None)
