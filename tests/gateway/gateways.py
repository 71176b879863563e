"""Gateways under test, over the channel of the test that runs."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import httpx
from starlette.types import ASGIApp

from localplane_gateway.app import build_app
from localplane_gateway.channel import Channel
from localplane_gateway.server import serving
from localplane_gateway.settings import GatewaySettings

SMALL_LIMIT = 64 * 1024


class CurrentChannel:
    """The channel of the test that runs. Building an application for each takes too long."""

    def __init__(self) -> None:
        self.channel: Channel | None = None

    def unary_unary(self, path: str, /, **serializers: Any) -> Callable[..., Any]:
        def call(request: Any, **options: Any) -> Any:
            return self._channel().unary_unary(path, **serializers)(request, **options)

        return call

    def unary_stream(self, path: str, /, **serializers: Any) -> Callable[..., Any]:
        def call(request: Any, **options: Any) -> Any:
            return self._channel().unary_stream(path, **serializers)(request, **options)

        return call

    def _channel(self) -> Channel:
        assert self.channel is not None
        return self.channel


CURRENT = CurrentChannel()


@cache
def app_for(settings: GatewaySettings) -> ASGIApp:
    """The application of some settings, over the channel of the test that runs."""
    return build_app(CURRENT, settings)


def client_of(app: ASGIApp, base_url: str = "http://127.0.0.1:8080") -> httpx.AsyncClient:
    """A client of an application, without sockets."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url)


@asynccontextmanager
async def live_server(app: ASGIApp) -> AsyncGenerator[str]:
    """Serve an application on a free port and give its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        async with serving(app, [listener], grace_seconds=1):
            yield f"http://127.0.0.1:{port}"


def error_of(response: httpx.Response) -> Mapping[str, Any]:
    """The error in an answer, whose shape is the same for all."""
    body = response.json()
    assert ["error"] == list(body)
    error: Mapping[str, Any] = body["error"]
    assert ["code", "message", "type", "reason", "metadata"] == list(error)
    assert (response.status_code, "") == (error["code"], error["type"])
    return error
