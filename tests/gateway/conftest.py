"""A gateway in front of a real gRPC server whose services say what they were asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import grpc
import httpx
import pytest

from gateway.fake_services import Services
from gateway.gateways import CURRENT, SMALL_LIMIT, app_for, client_of, live_server
from localplane_gateway.channel import Channel
from localplane_gateway.settings import GatewaySettings
from localplane_server.events import Events
from localplane_server.rpc.access import Keys
from localplane_server.rpc.inprocess import InProcessChannel
from localplane_server.rpc.interceptors import CallInterceptor

Client = httpx.AsyncClient


@pytest.fixture(params=["grpc", "in-process"])
async def services(request: pytest.FixtureRequest) -> AsyncGenerator[Services]:
    """Services behind a real gRPC server, or in this process as the service itself has them."""
    fakes = Services()
    async with over_grpc(fakes) if request.param == "grpc" else in_process(fakes) as channel:
        CURRENT.channel = channel
        yield fakes
    CURRENT.channel = None


@asynccontextmanager
async def over_grpc(services: Services) -> AsyncGenerator[Channel]:
    """Reach the services through a real channel."""
    server = grpc.aio.server()
    services.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


@asynccontextmanager
async def in_process(services: Services) -> AsyncGenerator[Channel]:
    """Reach the services through the channel that has no wire."""
    channel = InProcessChannel(CallInterceptor(Keys({}), Events()))
    services.add_to(channel)
    yield channel


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
