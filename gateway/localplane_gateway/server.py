"""Serves the gateway over HTTP in the event loop of whoever calls."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from localplane_gateway.connection import Connection

SETTINGS: dict[str, Any] = {
    "ws": "none",
    "lifespan": "off",
    "log_config": None,
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "timeout_keep_alive": 75,
}
"""What uvicorn is told."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, and with an event for its start."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield  # signals are the caller's

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()


@asynccontextmanager
async def serving(
    app: ASGIApp, sockets: Sequence[socket.socket], *, grace_seconds: float
) -> AsyncGenerator[None]:
    """Serve for as long as the context is open.

    On leaving, no new connections are accepted, requests in flight may end within the grace period,
    and the sockets are closed.

    Args:
        app: What to serve.
        sockets: Bound sockets to listen on.
        grace_seconds: How long requests in flight may still run.
    """
    config = uvicorn.Config(
        _ending_quietly(app),
        **SETTINGS,
        http=Connection,
        timeout_graceful_shutdown=max(1, math.ceil(grace_seconds)),
    )
    server = _Server(config)
    started = asyncio.ensure_future(server.has_started.wait())
    served = asyncio.ensure_future(server.serve(list(sockets)))
    try:
        await asyncio.wait({started, served}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            yield
    finally:
        started.cancel()
        server.should_exit = True
        await served


def _ending_quietly(app: ASGIApp) -> ASGIApp:
    """Let a request end that uvicorn cancels, which it does for no reason but its own end."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return call
