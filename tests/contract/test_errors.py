"""Every method, with missing, wrong and conflicting input, over gRPC and in the process.

The methods come from the descriptors, so a new one is walked as soon as it is declared. Whatever it is sent, it answers
well, or with an error of the table, in time, and tells nothing of its inside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from contract.census import settled, stop_backends, take_census
from contract.conftest import CONFIGURATIONS
from contract.error_table import OF_THE_LIBRARY, check_call_error
from contract.hostile import messages, wire_of
from contract.surface import METHODS, good_request
from contract.transports import CallError, GrpcTransport
from localplane.v1 import system_service_pb2
from localplane_server.app import App
from localplane_server.config import MEBIBYTE

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"max_body_size": 2 * MEBIBYTE}
LONGEST_SECONDS = 20.0
"""The bound of one call. Most take milliseconds; a machine may be busy, and some calls load a model."""

WITH_MODEL = [
    name for name, method in METHODS.items() if "model" in method.input_type.fields_by_name
]


class Walk:
    """Sends input and collects what the answers break."""

    def __init__(self, transport: GrpcTransport, method: str) -> None:
        self._transport = transport
        self._method = method
        self.broken: list[str] = []
        self.calls = 0

    async def send(self, label: str, request: Message) -> str:
        """Call the method, hold the answer against the table, and return the reason, `OK` for none."""
        self.calls += 1
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                return await self._call(request)
        except (AssertionError, TimeoutError) as error:
            self.broken.append(f"{label}: {type(error).__name__} {error}"[:600])
            return "broken"

    async def _call(self, request: Message) -> str:
        try:
            if METHODS[self._method].server_streaming:
                async for _ in self._transport.stream(self._method, request):
                    pass
            else:
                await self._transport.call(self._method, request)
        except CallError as error:
            check_call_error(error)
            return error.reason
        return "OK"


@pytest.fixture(params=["inprocess", "grpc"])
def transport(request: pytest.FixtureRequest, transports: dict[str, Any]) -> GrpcTransport:
    """The two that take messages."""
    found: GrpcTransport = transports[request.param]
    return found


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    """One method after the other."""
    name: str = request.param
    return name


@pytest_asyncio.fixture(loop_scope="module")
async def unharmed(
    app: App, transports: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> AsyncGenerator[None]:
    """The service is the same after a test: ready, with as many files, tasks and processes, and nothing broke."""
    await _connect(transports)
    await stop_backends(app)
    before = take_census()
    with caplog.at_level(logging.ERROR):
        yield
    await stop_backends(app)
    app.readiness.check()
    after = await settled(before)
    assert all(new <= old for new, old in zip(after, before, strict=True)), (before, after)
    assert [] == [record for record in caplog.records if record.name.startswith("localplane")]


@pytest.mark.usefixtures("unharmed")
class TestFields:
    async def test_every_field(self, transport: GrpcTransport, method: str) -> None:
        """Whatever stands in a field, the answer is one of the table."""
        walk = Walk(transport, method)
        for label, request in messages(good_request(method)):
            await walk.send(label, request)

        assert not walk.broken, "\n".join(walk.broken)
        assert walk.calls > len(METHODS[method].input_type.fields)

    @pytest.mark.parametrize("method", WITH_MODEL)
    async def test_every_field_with_an_engine(
        self, transports: dict[str, Any], method: str
    ) -> None:
        """The same before a real model, whose engine has limits of its own."""
        walk = Walk(transports["inprocess"], method)
        start: Any = good_request(method)
        start.model = "tiny"
        reasons = set()
        for label, request in messages(start):
            reasons.add(await walk.send(label, request))

        assert not walk.broken, "\n".join(walk.broken)
        assert reasons <= {
            "OK",
            "INVALID_ARGUMENT",
            "INVALID_MODEL_NAME",
            "MODEL_NOT_FOUND",
            "MODEL_NOT_LOADED",
        }


class TestModels:
    @pytest.mark.parametrize("model", [*CONFIGURATIONS, "nobody"])
    @pytest.mark.parametrize("method", WITH_MODEL)
    async def test_every_model(
        self, unharmed: None, transport: GrpcTransport, method: str, model: str
    ) -> None:
        """A model that cannot be loaded, or dies, or refuses to answer, is told as such."""
        walk = Walk(transport, method)
        request: Any = good_request(method)
        request.model = model
        for attempt in range(2):
            await walk.send(f"attempt {attempt}", request)

        assert not walk.broken, "\n".join(walk.broken)


async def _connect(transports: dict[str, Any]) -> None:
    for transport in transports.values():
        await transport.call("SystemService.GetVersion", system_service_pb2.GetVersionRequest())
