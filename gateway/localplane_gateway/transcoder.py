"""The innermost layer: a request of HTTP to a call of a method, and its answer to HTTP.

There is one callable per operation of the document, made from descriptors; nothing here knows a
route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import Message
from starlette.types import ASGIApp, Receive, Scope, Send

from localplane.v1 import summary_pb2
from localplane_gateway.bindings import HTTP_BODY, Binding, Call
from localplane_gateway.channel import Channel
from localplane_gateway.codec import codec_for
from localplane_gateway.connexion_parts import AbstractOperation, RoutedAPI
from localplane_gateway.disconnect import DisconnectWatch, unless_gone
from localplane_gateway.docs import own_operation
from localplane_gateway.document import Document
from localplane_gateway.errors import (
    GatewayError,
    Headers,
    InternalError,
    RpcError,
    StoppingError,
)
from localplane_gateway.exchange import JSON, Exchange
from localplane_gateway.heartbeat import Heartbeat
from localplane_gateway.layers import OperationLayer
from localplane_gateway.page.welcome import HTML, NEGOTIATED, WelcomePage, wants_page
from localplane_gateway.pages import PAGE_HEADERS
from localplane_gateway.request_reader import RequestReader
from localplane_gateway.settings import GatewaySettings
from localplane_gateway.slices import SlicedField
from localplane_gateway.streams import (
    PLAIN,
    STREAM_HEADERS,
    StreamFormat,
    choose_format,
    event_id_reader,
    plain_line_reader,
)
from localplane_gateway.tagged import (
    IF_NONE_MATCH,
    Written,
    WrittenAnswers,
    answer,
    asked_with,
    has_it,
    tag_of,
)

logger = logging.getLogger(__name__)

Metadata = tuple[tuple[str, str], ...]

_HEADER_PREFIX = "x-http-header-"
_LAST_WORDS_SECONDS = 1.0
# Headers of the request that methods may want to know, and the metadata that carry them.
_FORWARDED = (
    (b"accept", "x-http-accept"),
    (b"content-type", "x-http-content-type"),
    (b"idempotency-key", "x-http-idempotency-key"),
    (b"last-event-id", "x-http-last-event-id"),
)


class UnaryOperation:
    """Calls a method that answers once."""

    def __init__(self, binding: Binding, channel: Channel, public_url: str | None) -> None:
        self._binding = binding
        self._public_url = public_url
        self._reader = RequestReader(binding)
        self._call = channel.unary_unary(binding.call.path, **_serializers(binding.call))
        self._is_bytes = binding.call.response_class.DESCRIPTOR.full_name == HTTP_BODY
        self._headers: Headers = list(PAGE_HEADERS) if binding.is_page and self._is_bytes else []
        self._encode = _encoder(binding)
        self._slices = SlicedField.of(binding.call.response_class, binding.answer_field)
        self._stream = (
            StreamOperation(binding, binding.stream, channel, public_url)
            if binding.stream
            else None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        exchange = Exchange.of(scope)
        values = self._reader.values(exchange)
        request = self._reader.read(values)
        if self._stream is not None and values.get("stream") is True:
            await self._stream.answer(exchange, request)
            return
        call = self._call(request, metadata=_metadata(exchange, self._public_url))
        try:
            response = await unless_gone(call, receive)
        except grpc.aio.AioRpcError as error:
            raise RpcError(error, self._binding.statuses) from error
        await self.respond(exchange, response, await _answer_headers(call, self._headers))

    async def respond(self, exchange: Exchange, response: Any, headers: Headers) -> None:
        """Write an answer."""
        if self._is_bytes:
            content_type = response.content_type or self._binding.produces[0]
            await exchange.respond(200, response.data, content_type.encode(), headers=headers)
        elif self._slices is not None:
            await exchange.respond(200, await self._slices.encode(response), JSON, headers=headers)
        else:
            await exchange.respond(200, self._encode(response), JSON, headers=headers)


class PageOperation(UnaryOperation):
    """Calls a method whose answer browsers get as a page."""

    def __init__(
        self, binding: Binding, channel: Channel, public_url: str | None, page: WelcomePage
    ) -> None:
        super().__init__(binding, channel, public_url)
        self._page = page

    async def respond(self, exchange: Exchange, response: Any, headers: Headers) -> None:
        """Write an answer."""
        if wants_page(exchange):
            headers = [*headers, *NEGOTIATED, *self._page.headers]
            await exchange.respond(200, self._page.render(response), HTML, headers=headers)
        else:
            headers = [*headers, *NEGOTIATED]
            await exchange.respond(200, self._encode(response), JSON, headers=headers)


class TaggedOperation(UnaryOperation):
    """Calls a method whose answers have tags, and keeps what it wrote of them."""

    def __init__(self, binding: Binding, channel: Channel, public_url: str | None) -> None:
        super().__init__(binding, channel, public_url)
        self._kept = WrittenAnswers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        exchange = Exchange.of(scope)
        request = self._reader.read(self._reader.values(exchange))
        asked = asked_with(request)
        kept = self._kept.get(asked)
        metadata = _metadata(exchange, self._public_url)
        tags = kept.tag if kept else exchange.headers.get(b"if-none-match", b"")
        if tags and _fits_grpc(text := tags.decode("latin-1")):
            metadata = (*metadata, (IF_NONE_MATCH, text))
        call = self._call(request, metadata=metadata)
        try:
            response = await unless_gone(call, receive)
        except grpc.aio.AioRpcError as error:
            raise RpcError(error, self._binding.statuses) from error
        headers = await _answer_headers(call, self._headers)
        tag = tag_of(headers)
        if not tag:
            await self.respond(exchange, response, headers)
            return
        if kept is None and has_it(exchange, tag):
            # The message is empty: the method was told what the client has.
            written = Written(tag, b"")
        elif kept is None or kept.tag != tag:
            written = await self._kept.write(asked, tag, self._encode, response)
        else:
            written = kept
        await answer(exchange, written, headers)


class StreamOperation:
    """Calls a method that answers with a stream.

    The status is the method's until its first message has come. After that it has been sent, so a
    failure is told by a last message that holds the error.
    """

    def __init__(
        self, binding: Binding, call: Call, channel: Channel, public_url: str | None
    ) -> None:
        self._binding = binding
        self._public_url = public_url
        self._reader = RequestReader(binding)
        self._call = channel.unary_stream(call.path, **_serializers(call))
        self._encode = codec_for(call.response_class).encode
        self._event_id = event_id_reader(call.response_class) or _no_event_id
        self._plain_line = plain_line_reader(call.response_class)
        self._ends_with_done = call.ends_with_done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        exchange = Exchange.of(scope)
        await self.answer(exchange, self._reader.read(self._reader.values(exchange)))

    async def answer(self, exchange: Exchange, request: Message) -> None:
        """Answer a request that has been read."""
        accept = exchange.headers.get(b"accept", b"")
        form = choose_format(accept, has_text=self._plain_line is not None)
        if exchange.is_head:  # there may be no end to what would be thrown away
            await exchange.start(200, form.content_type, headers=STREAM_HEADERS)
            await exchange.end(b"")
            return
        call = self._call(request, metadata=_metadata(exchange, self._public_url))
        try:
            with DisconnectWatch(exchange.receive), Heartbeat(exchange, form) as heart:
                await self._write(exchange, call, form, heart)
        finally:
            call.cancel()

    async def _write(
        self, exchange: Exchange, call: Any, form: StreamFormat, heart: Heartbeat
    ) -> None:
        encode = self._plain_line if form is PLAIN and self._plain_line else self._encode
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                if not exchange.started:
                    headers = await _answer_headers(call, STREAM_HEADERS)
                    await exchange.start(200, form.content_type, headers=headers)
                written = encode(message)
                if written is not None:
                    await heart.write(form.frame(written, self._event_id(message)))
        except grpc.aio.AioRpcError as error:
            failure = RpcError(error, self._binding.statuses)
            if not exchange.started:
                raise failure from error
            heart.stop()
            await _break_off(exchange, failure, form)
            return
        except asyncio.CancelledError:
            heart.stop()
            if exchange.started:
                await _break_off(exchange, StoppingError(), form)
            raise
        except Exception:
            if not exchange.started:
                raise
            logger.exception("stream failed", extra={"route": exchange.route})
            heart.stop()
            await _break_off(exchange, InternalError(), form)
            return
        heart.stop()
        if not exchange.started:  # a stream without messages
            await exchange.start(200, form.content_type, headers=STREAM_HEADERS)
        await exchange.end(form.done if self._ends_with_done else b"")


class TranscoderApi(RoutedAPI):  # type: ignore[misc] # Connexion has no types
    """Makes the callables of a document's operations."""

    def __init__(
        self,
        *args: Any,
        bindings: dict[str, Binding],
        channel: Channel,
        document: Document,
        settings: GatewaySettings,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._bindings = bindings
        self._channel = channel
        self._document = document
        self._public_url = settings.public_url.rstrip("/") if settings.public_url else None
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> ASGIApp:
        """Make the callable of one operation."""
        binding = self._bindings.get(operation.operation_id)
        if binding is None:
            return own_operation(operation.operation_id, self._document)
        if binding.call.is_stream:
            return StreamOperation(binding, binding.call, self._channel, self._public_url)
        if binding.is_page and binding.call.response_class is summary_pb2.Summary:
            page = WelcomePage(self._document)
            return PageOperation(binding, self._channel, self._public_url, page)
        if binding.is_tagged:
            return TaggedOperation(binding, self._channel, self._public_url)
        return UnaryOperation(binding, self._channel, self._public_url)


class Transcoder(OperationLayer):
    """Takes the place of Connexion's calling of Python functions."""

    api_cls = TranscoderApi


async def _break_off(exchange: Exchange, error: GatewayError, form: StreamFormat) -> None:
    exchange.outcome = error.status
    with suppress(TimeoutError):  # of a client that does not read
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await exchange.end(form.frame(error.body()))


def _no_event_id(_: Message) -> bytes:
    return b""


def _encoder(binding: Binding) -> Callable[[Message], bytes]:
    codec = codec_for(binding.call.response_class)
    name = binding.answer_field
    return (lambda message: codec.encode_field(message, name)) if name else codec.encode


def _serializers(call: Call) -> dict[str, Any]:
    return {
        "request_serializer": call.request_class.SerializeToString,
        "response_deserializer": call.response_class.FromString,
    }


def _metadata(exchange: Exchange, public_url: str | None) -> Metadata:
    """Tell a method what it may want to know of the request."""
    headers = exchange.headers
    metadata = [("x-request-id", exchange.request_id.decode())]
    base_url = public_url or _base_url(exchange)
    if _fits_grpc(base_url):
        metadata.append(("x-http-base-url", base_url))
    for header, key in _FORWARDED:
        if header in headers and _fits_grpc(text := headers[header].decode("latin-1")):
            metadata.append((key, text))
    if credentials := exchange.credentials:
        metadata.append(("authorization", f"Bearer {credentials}"))
    return tuple(metadata)


def _fits_grpc(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _base_url(exchange: Exchange) -> str:
    scheme: str = exchange.scope["scheme"]
    host = exchange.headers.get(b"host")
    if host is None:
        name, port = exchange.scope["server"]
        return f"{scheme}://{name}:{port}"
    return f"{scheme}://{host.decode('latin-1')}"


async def _answer_headers(call: Any, headers: Headers) -> Headers:
    """Add the headers that a method sets through its initial metadata."""
    metadata = await call.initial_metadata()
    if not metadata:
        return headers
    from_method = [
        (key[len(_HEADER_PREFIX) :].encode(), value.encode("latin-1", "replace"))
        for key, value in metadata
        if key.startswith(_HEADER_PREFIX)
    ]
    return [*headers, *from_method]
