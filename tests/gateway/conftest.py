"""A gateway in front of a real gRPC server whose services say what they were asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager

import grpc
import httpx
import pytest

from gateway.fake_services import Services
from gateway.gateways import CURRENT, SMALL_LIMIT, app_for, client_of, live_server
from localplane_gateway.settings import GatewaySettings

Client = httpx.AsyncClient


@pytest.fixture
async def services() -> AsyncGenerator[Services]:
    """Services behind a real gRPC server, reached through a real channel."""
    server = grpc.aio.server()
    fakes = Services()
    fakes.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    CURRENT.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    yield fakes
    await CURRENT.channel.close()
    await server.stop(None)
    CURRENT.channel = None


@pytest.fixture
def client_for(
    services: Services,  # noqa: ARG001 # it opens the channel
) -> Callable[[GatewaySettings], Client]:
    """A function that makes a client of a gateway with the given settings, without sockets."""

    def make(settings: GatewaySettings) -> Client:
        return client_of(app_for(settings))

    return make


@pytest.fixture
async def api(
    client_for: Callable[[GatewaySettings], Client],
) -> AsyncGenerator[Client]:
    """A client of a gateway with its usual settings but for a small limit of bodies."""
    async with client_for(GatewaySettings(max_body_bytes=SMALL_LIMIT)) as client:
        yield client


@pytest.fixture
def live(services: Services) -> AbstractAsyncContextManager[str]:  # noqa: ARG001 # as above
    """A gateway on a real port, served while the context is open."""
    return live_server(app_for(GatewaySettings(max_body_bytes=SMALL_LIMIT)))
