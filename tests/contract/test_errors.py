"""Every method, with missing, wrong and conflicting input, over gRPC and in the process.

The methods come from the descriptors, so a new one is walked as soon as it is declared. Whatever it is sent, it answers
well, or with an error of the table, in time, and tells nothing of its inside; and the service is unharmed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from contract.conftest import CONFIGURATIONS
from contract.error_table import check_call_error
from contract.hostile import messages, wire_of
from contract.surface import METHODS, good_request
from contract.transports import _error
from contract.walk import LONGEST_SECONDS, Walk
from localplane_server.app import App
from localplane_server.setting_values import MEBIBYTE

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("unharmed")]

SETTINGS = {"max_body_size": 2 * MEBIBYTE}

ALL = sorted(METHODS)
WITH_MODEL = [name for name in ALL if "model" in METHODS[name].input_type.fields_by_name]
LONG_WORKING = {"slow"}
"""Models whose answers take long on purpose."""

IN_TIME_OR_NOT = {
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAVAILABLE,
}
"""How a call may end that has no time: overdue, or, if it was fast, with an answer. A model may just be stopping."""


@pytest.fixture
def channel(transports: dict[str, Any]) -> Any:
    """A real connection."""
    return transports["grpc"]._channel


def path_of(method: str) -> str:
    return f"/{METHODS[method].containing_service.full_name}/{METHODS[method].name}"


async def refusal(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    check_call_error(_error(caught.value))
    return caught.value.code()


class TestFields:
    @pytest.mark.parametrize("transport_name", ["inprocess", "grpc"])
    @pytest.mark.parametrize("method", ALL)
    async def test_every_field(
        self, transports: dict[str, Any], transport_name: str, method: str
    ) -> None:
        """Whatever stands in a field, the answer is one of the table."""
        walk = Walk(method)
        for label, request in messages(good_request(method)):
            await walk.message(label, transports[transport_name], request)

        walk.finish()
        assert walk.count > len(METHODS[method].input_type.fields)

    @pytest.mark.parametrize("method", WITH_MODEL)
    async def test_every_field_with_an_engine(
        self, transports: dict[str, Any], method: str
    ) -> None:
        """What a real engine cannot work with is the caller's mistake, never the engine's failure."""
        walk = Walk(method)
        start: Any = good_request(method)
        start.model = "tiny"
        for label, request in messages(start):
            await walk.message(label, transports["inprocess"], request)

        walk.finish()
        assert walk.reasons <= {
            "INVALID_ARGUMENT",
            "INVALID_MODEL_NAME",
            "MODEL_NOT_FOUND",
            "MODEL_NOT_LOADED",
            "NOT_SUPPORTED_BY_BACKEND",
            "OK",
        }

    @pytest.mark.parametrize("model", [*sorted(CONFIGURATIONS.keys() - LONG_WORKING), "nobody"])
    async def test_every_model(self, transports: dict[str, Any], model: str) -> None:
        """A model that cannot be loaded, dies, or does not answer is told as such, by whatever asks for it."""
        for method in WITH_MODEL:
            walk = Walk(method)
            request: Any = good_request(method)
            request.model = model
            await walk.message(method, transports["grpc"], request)
            walk.finish()


class TestWire:
    @pytest.mark.parametrize("method", ALL)
    async def test_bytes(self, channel: Any, method: str) -> None:
        """Bytes that are no message are refused as such, or read as far as they are one."""
        walk = Walk(method)
        for label, request in wire_of(METHODS[method].input_type):
            await walk.wire(label, channel, request)

        walk.finish()
        assert "INVALID_ARGUMENT" in walk.reasons

    async def test_too_large(self, channel: Any) -> None:
        """A message over the limit is refused before it is read."""
        for method in ALL:
            call = channel.unary_unary(path_of(method))(bytes(3 * MEBIBYTE))
            assert grpc.StatusCode.RESOURCE_EXHAUSTED is await refusal(call)

    @pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-3])
    async def test_no_time(self, channel: Any, seconds: float) -> None:
        """A call whose time is over as it begins ends as such, unless it was fast."""
        for method in ALL:
            request = good_request(method).SerializeToString()
            make = channel.unary_stream if METHODS[method].server_streaming else channel.unary_unary
            call = make(path_of(method))(request, timeout=seconds)
            async with asyncio.timeout(LONGEST_SECONDS):
                assert (await call.code()) in IN_TIME_OR_NOT, (method, await call.details())

    @pytest.mark.parametrize("method", ["SystemService.GetVersion", "InferenceService.ChatStream"])
    async def test_no_request(self, channel: Any, method: str) -> None:
        """A call without a request ends with its deadline; the library does not tell the service of it."""
        call = channel.stream_stream(path_of(method))(timeout=0.5)
        await call.done_writing()

        assert grpc.StatusCode.DEADLINE_EXCEEDED is await refusal(call.read())

    @pytest.mark.parametrize(
        "path",
        [
            "/localplane.v1.Nothing/Nothing",
            "/localplane.v1.SystemService/Nothing",
            "/localplane.v1.SystemService/getversion",
            "/SystemService/GetVersion",
            "/localplane.v1.SystemService/GetVersion/",
            "//",
            "/",
        ],
    )
    async def test_unknown_method(self, app: App, channel: Any, path: str) -> None:
        """What there is not is said to be not there, over a connection and in the process."""
        for one in (channel, app.channel):
            assert grpc.StatusCode.UNIMPLEMENTED is await refusal(one.unary_unary(path)(b""))

    async def test_metadata(self, channel: Any) -> None:
        """Metadata that mean something to the gateway mean nothing from outside, whatever they hold."""
        mad = [
            ("x-request-id", "x" * 4000),
            ("x-http-base-url", "http://evil.example/"),
            ("authorization", "Bearer " + "k" * 2000),
            ("authorization", ""),
            ("grpc-status-details-bin", b"\xff"),
            ("some-bin", bytes(range(256))),
        ]
        request = good_request("SystemService.GetVersion").SerializeToString()
        call = channel.unary_unary(path_of("SystemService.GetVersion"))(request, metadata=mad)
        trailing = dict(await call.trailing_metadata())

        assert grpc.StatusCode.OK is await call.code()
        assert len(trailing["x-request-id"]) < 100

    async def test_much_metadata(self, channel: Any) -> None:
        """More metadata than the library takes are refused by it."""
        metadata = [("authorization", "k" * 20_000)]
        call = channel.unary_unary(path_of("SystemService.GetVersion"))(b"", metadata=metadata)

        assert grpc.StatusCode.RESOURCE_EXHAUSTED is await refusal(call)
