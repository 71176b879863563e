"""What operations do that no route of today uses."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.fake_services import Services
from gateway.gateways import CURRENT, client_of
from localplane_gateway.bindings import Binding, bind, import_services
from localplane_gateway.document import load_document
from localplane_gateway.exchange import Exchange
from localplane_gateway.transcoder import StreamOperation, UnaryOperation


def binding_of(path: str, verb: str) -> Binding:
    import_services()
    return bind(verb, load_document().operation(path, verb))


def served(operation: ASGIApp) -> httpx.AsyncClient:
    """A client of one operation, without the layers around it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        Exchange(scope, receive, send)
        await operation(scope, receive, send)

    return client_of(app)


@pytest.fixture
def watch(services: Services) -> ASGIApp:
    """A route of its own for a method that streams."""
    services.pieces = 2
    chat = binding_of("/v1/chat/completions", "post")
    assert chat.stream is not None
    binding = replace(chat, verb="get", call=chat.stream, stream=None)
    return StreamOperation(binding, binding.call, CURRENT, None)


class TestStreams:
    async def test_get(self, watch: ASGIApp, services: Services) -> None:
        """A method that streams does so without being asked, and takes the query."""
        async with served(watch) as client:
            response = await client.get("/watch?model=m")

        assert ("text/event-stream", 3) == (
            response.headers["content-type"],
            response.text.count("data: "),
        )
        assert "m" == services.request.model

    async def test_head(self, watch: ASGIApp, services: Services) -> None:
        """HEAD begins no stream that nobody would read."""
        async with served(watch) as client:
            response = await client.head("/watch?model=m")

        assert (200, "text/event-stream", b"") == (
            response.status_code,
            response.headers["content-type"],
            response.content,
        )
        assert services.request is None


class TestPages:
    async def test_headers(self, services: Services) -> None:
        """A page for people comes with what keeps other pages out of it."""
        page = replace(binding_of("/healthz", "get"), is_page=True)
        async with served(UnaryOperation(page, CURRENT, None)) as client:
            response = await client.get("/")

        assert b"OK" == response.content
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert services.request is not None
