"""The figures over every transport, of a service that works."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from contract.conftest import programs, write_models
from contract.transports import CallError, GrpcTransport, Transport
from localplane.v1 import backend_service_pb2, inference_service_pb2
from localplane.v1 import metrics_service_pb2 as pb
from localplane_gateway.app import build_app
from localplane_gateway.settings import GatewaySettings
from localplane_gateway.upstream import UpstreamAuthenticator, open_channel
from localplane_server.app import App, running
from localplane_server.config import Settings
from localplane_server.rpc.metrics_service import GET_METRICS
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.keeper_handle import start_keeper

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPENMETRICS = "application/openmetrics-text"


async def lines_of(transport: Transport) -> list[str]:
    """Series and values, as they are written."""
    answer = await transport.call("MetricsService.GetMetrics", pb.GetMetricsRequest())
    return [line for line in answer.data.decode().splitlines() if not line.startswith("#")]


def total(lines: list[str], *parts: str) -> float:
    """Sum of the series that have all of these in their line."""
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in parts)
    )


async def test_format(transport: Transport) -> None:
    """Prometheus' own format unless somebody prefers another."""
    answer = await transport.call("MetricsService.GetMetrics", pb.GetMetricsRequest())

    assert "text/plain; version=0.0.4; charset=utf-8" == answer.content_type
    assert b'localplane_backends{state="ready"}' in answer.data
    assert b"\nprocess_resident_memory_bytes " in answer.data


async def test_openmetrics(app: App, transports: dict[str, Any]) -> None:
    """OpenMetrics for those who prefer it: by header over REST, by metadata over gRPC."""
    async with httpx.AsyncClient() as client:
        over_rest = [
            await client.get(f"{base}/metrics", headers={"accept": OPENMETRICS})
            for base in (f"http://{app.http}", transports["rest-upstream"]._client.base_url)
        ]
    async with grpc.aio.insecure_channel(str(app.grpc)) as channel:
        call: Any = channel.unary_unary(GET_METRICS)
        over_grpc = await call(b"", metadata=(("x-http-accept", OPENMETRICS),))

    expected = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
    assert [(200, expected)] * 2 == [
        (one.status_code, one.headers["content-type"]) for one in over_rest
    ]
    assert expected.encode() in over_grpc
    assert over_rest[0].content.endswith(b"# EOF\n")


async def test_work_is_counted(transport: Transport) -> None:
    """A load and a streamed chat are seen, with the model's name however it was called."""
    await transport.call(
        "BackendService.LoadModel", backend_service_pb2.LoadModelRequest(model="tiny")
    )
    before = await lines_of(transport)
    request = inference_service_pb2.ChatRequest(model="gpt-tiny", max_tokens=4)
    # The tokens that it likes best: others may have no text, and so no first piece.
    request.temperature = 0
    request.messages.add(role="user").content.string_value = "Hello."
    async for _ in transport.stream("InferenceService.ChatStream", request):
        pass
    after = await lines_of(transport)

    def grown(*parts: str) -> float:
        return total(after, *parts) - total(before, *parts)

    assert 1 == total(after, "localplane_backend_loads_total{", 'model="tiny"', 'outcome="ok"')
    assert 1 == total(after, "localplane_backend_state{", 'model="tiny"', 'state="ready"')
    assert 1 == grown("localplane_predictions_total{", 'model="tiny"', 'outcome="ok"')
    assert 4 == grown("localplane_tokens_total{", 'model="tiny"', 'kind="completion"')
    assert 0 < grown("localplane_tokens_total{", 'model="tiny"', 'kind="prompt"')
    assert 1 == grown("localplane_time_to_first_token_seconds_count{", 'model="tiny"')
    assert 1 == grown("localplane_grpc_calls_total{", 'InferenceService/ChatStream"', 'code="OK"')
    assert [] == [line for line in after if "gpt-tiny" in line]


async def test_unknown_names(app: App) -> None:
    """Paths, verbs, models and methods that callers make up add no series, however many there are."""
    chance = random.Random(2)  # noqa: S311 - names, no secrets
    transport = GrpcTransport(app.channel)
    counts = []
    lines = await lines_of(transport)  # from here on this very call has its series
    async with (
        httpx.AsyncClient(base_url=f"http://{app.http}") as client,
        grpc.aio.insecure_channel(str(app.grpc)) as channel,
    ):
        for _ in range(2):
            for _ in range(100):
                name = f"{chance.getrandbits(64):x}"
                await client.get(f"/{name}")
                await client.request("PROPFIND", f"/{name}")
                await client.get("/backend/monitor", params={"model": name})
                await client.get(f"/api/models/{name}")
                await client.post("/v1/chat/completions", json={"model": name, "messages": []})
                call: Any = channel.unary_unary(f"/localplane.v1.ModelService/{name}")
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(b"")
            lines = await lines_of(transport)
            # Those of backends come and go with samples.
            counts.append(sum(not line.startswith("localplane_backend") for line in lines))

    assert counts[0] == counts[1]
    assert 200 == total(lines, "localplane_grpc_calls_total{", 'method=""')
    assert 200 == total(lines, 'api_call_count{method="GET"', 'path=""')
    assert 200 == total(lines, 'api_call_count{method="GET"', 'path="/api/models/:name"')
    assert 0 == total(lines, "localplane_metrics_dropped_total{")


async def test_promtool(transport: Transport) -> None:
    """Prometheus' own checker finds nothing to say."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    answer = await transport.call("MetricsService.GetMetrics", pb.GetMetricsRequest())

    checked = subprocess.run(  # noqa: ASYNC221 - nothing else goes on
        [promtool, "check", "metrics"], input=answer.data, capture_output=True, check=False
    )

    assert (0, b"", b"") == (checked.returncode, checked.stdout, checked.stderr)


@asynccontextmanager
async def service_with(folder: Path, tiny_gguf: Path, **given: Any) -> AsyncGenerator[App]:
    """A service of its own, with a key."""
    write_models(folder / "models", tiny_gguf)
    anywhere = Endpoint("127.0.0.1", 0)
    settings = Settings(
        data_dir=folder,
        grpc_listen=anywhere,
        http_listen=anywhere,
        shutdown_grace=1.0,
        api_key=("key",),
        **given,
    )
    async with running(
        settings, start_keeper(), programs=programs(), environment=dict(os.environ)
    ) as app:
        yield app


class TestSettings:
    async def statuses(self, app: App, path: str, **headers: str) -> list[int | str]:
        """How a route answers over the gateway in the service, and over one alone that is set alike."""
        async with open_channel(str(app.grpc)) as channel:
            alone = build_app(
                channel,
                GatewaySettings(public_methods=frozenset({GET_METRICS})),
                UpstreamAuthenticator(channel),
            )
            async with (
                httpx.AsyncClient(base_url=f"http://{app.http}") as client,
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(alone), base_url="http://127.0.0.1"
                ) as client_of_alone,
            ):
                return [
                    (await one.get(path, headers=headers)).status_code
                    for one in (client, client_of_alone)
                ]

    async def test_public(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """The operator may open the figures to everybody, and opens nothing else with them."""
        async with service_with(tmp_path / "data", tiny_gguf, public_metrics=True) as app:
            assert [200, 200] == await self.statuses(app, "/metrics")
            assert [401, 401] == await self.statuses(app, "/version")
            async with open_channel(str(app.grpc)) as channel:
                transport = GrpcTransport(channel)
                assert await lines_of(transport)

    async def test_not_public(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """Otherwise they need a key, and a gateway alone cannot open them."""
        async with service_with(tmp_path / "data", tiny_gguf) as app:
            assert [401, 401] == await self.statuses(app, "/metrics")
            assert [200, 200] == await self.statuses(app, "/metrics", authorization="Bearer key")

    async def test_disabled(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """A service that keeps no figures says that there are none."""
        async with service_with(tmp_path / "data", tiny_gguf, disable_metrics_endpoint=True) as app:
            assert [404, 404] == await self.statuses(app, "/metrics", authorization="Bearer key")
            with pytest.raises(CallError) as caught:
                await lines_of(GrpcTransport(app.channel, "key"))

        assert "METRICS_DISABLED" == caught.value.reason
