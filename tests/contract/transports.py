"""Three ways to call the service: in its process, over gRPC, and over REST."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
from google.api import httpbody_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from localplane.v1 import options_pb2
from localplane_gateway.codec import codec_for
from localplane_gateway.document import load_document

PACKAGE = "localplane.v1"


class CallError(Exception):
    """The service answered with an error. Code and status are of the transport, the reason is of all."""

    def __init__(
        self, reason: str, message: str, metadata: dict[str, str], code: grpc.StatusCode | int
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = metadata
        self.code = code


class Transport(Protocol):
    """A way to call the service. A method is `Service.Method`."""

    async def call(self, method: str, request: Message) -> Any:
        """Return the answer, or raise CallError."""

    def stream(self, method: str, request: Message) -> AsyncGenerator[Any]:
        """Yield the answers, or raise CallError."""


def _descriptor(method: str) -> Any:
    service, _, name = method.partition(".")
    found = descriptor_pool.Default().FindServiceByName(f"{PACKAGE}.{service}")
    return found.methods_by_name[name]


def _answer_class(method: str) -> type[Message]:
    return message_factory.GetMessageClass(_descriptor(method).output_type)


class GrpcTransport:
    """Any channel with the interface of grpc.aio's."""

    def __init__(self, channel: Any, key: str | None = None) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()

    async def call(self, method: str, request: Message) -> Any:
        try:
            return await self._make(method, "unary_unary")(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error

    async def stream(self, method: str, request: Message) -> AsyncGenerator[Any]:
        call = self._make(method, "unary_stream")(request, metadata=self._metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error
        finally:
            call.cancel()

    def _make(self, method: str, kind: str) -> Any:
        service, _, name = method.partition(".")
        return getattr(self._channel, kind)(
            f"/{PACKAGE}.{service}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=_answer_class(method).FromString,
        )


def _error(error: grpc.aio.AioRpcError) -> CallError:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # the error has what it reads
    info = error_details_pb2.ErrorInfo()
    if status is not None and status.details:
        status.details[0].Unpack(info)
    return CallError(info.reason, error.details() or "", dict(info.metadata), error.code())


class RestTransport:
    """The routes of the generated document, by method."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._routes: dict[str, tuple[str, str, dict[str, Any]]] = {}
        for path, item in load_document().raw["paths"].items():
            for verb, operation in item.items():
                name = operation.get("operationId", "")
                if name.count(".") == 1 and "x-localplane-method" in operation:
                    self._routes[name] = (verb.upper(), path, operation)

    async def call(self, method: str, request: Message) -> Any:
        response = await self._client.request(**self._request(method, request))
        if response.status_code != httpx.codes.OK:
            raise _rest_error(response.status_code, response.content)
        answer_class = _answer_class(method)
        if answer_class is httpbody_pb2.HttpBody:
            return httpbody_pb2.HttpBody(
                content_type=response.headers["content-type"], data=response.content
            )
        content = response.content
        wrapped = self._routes[method][2].get("x-localplane-response-body")
        if response.json() is not None and isinstance(response.json(), list):
            # A route that answers the bare list of its only list.
            field = wrapped or answer_class.DESCRIPTOR.fields[0].name
            content = json.dumps({field: response.json()}).encode()
        if method == "JobService.ListJobs":
            content = b'{"jobs":' + content + b"}"
        if method == "InferenceService.Embed":
            # Two fields share a name in JSON: text is the one, a list the other.
            content = content.replace(b'"embedding":"', b'"embedding_base64":"')
        return codec_for(answer_class).decode(content)

    async def stream(self, method: str, request: Message) -> AsyncGenerator[Any]:
        if method in self._routes:  # it streams whatever is asked for
            options = self._request(method, request)
            options["headers"] = {"accept": "text/event-stream"}
        else:
            options = self._request(method.removesuffix("Stream"), request)
            body = {**json.loads(options["content"]), "stream": True}
            options["content"] = json.dumps(body).encode()
        codec = codec_for(_answer_class(method))
        async with self._client.stream(**options) as response:
            if response.status_code != httpx.codes.OK:
                raise _rest_error(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                record = line.removeprefix("data: ").encode()
                if b'"error"' in record and "error" in json.loads(record):
                    raise _rest_error(0, record)
                yield codec.decode(record)

    def _request(self, method: str, request: Message) -> dict[str, Any]:
        verb, path, _ = self._routes[method]
        values = json.loads(codec_for(type(request)).encode(request))
        set_fields = {field.name for field, _ in request.ListFields()}
        names = {field.name: _rest_name(field) for field in request.DESCRIPTOR.fields}
        values = {name: values[name] for name in (names[field] for field in set_fields)}
        for name in [part.strip("{}") for part in path.split("/") if part.startswith("{")]:
            path = path.replace(f"{{{name}}}", quote(str(values.pop(name, "")), safe=""))
        if verb == "GET":
            return {"method": verb, "url": path, "params": values}
        return {"method": verb, "url": path, "content": json.dumps(values).encode()}


def _rest_name(field: Any) -> str:
    return field.GetOptions().Extensions[options_pb2.rest_name] or str(field.name)


def _rest_error(status: int, content: bytes) -> CallError:
    error = json.loads(content)["error"]
    assert {"code", "message", "type", "reason", "metadata"} == error.keys()
    assert status in (error["code"], 0)
    return CallError(error["reason"], error["message"], error["metadata"], status or error["code"])
