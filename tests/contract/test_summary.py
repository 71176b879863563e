"""The summary over every transport, and who gets how much of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio

from contract.conftest import programs, write_models
from contract.transports import GrpcTransport, Transport
from localplane.v1 import backend_pb2, backend_service_pb2, summary_pb2
from localplane.v1 import system_service_pb2 as pb
from localplane_gateway.document import load_document
from localplane_gateway.page.examples import Place, make_examples
from localplane_server import __version__
from localplane_server.app import App, running
from localplane_server.config import Settings
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.keeper_handle import start_keeper

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = {
    "Title",
    "Version",
    "BaseURL",
    "Models",
    "ModelsConfig",
    "GalleryConfig",
    "IsP2PEnabled",
    "ApplicationConfig",
    "ProcessingModels",
    "TaskTypes",
    "LoadedModels",
    "InstalledBackends",
}
BROWSER = {"accept": "text/html"}
SECRETS = ("boss-key", "guest-key", "pass-word")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def locked(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> AsyncGenerator[App]:
    """A service with a key for each role, a public URL and a model with a password."""
    data_dir = tmp_path_factory.mktemp("locked")
    write_models(data_dir / "models", tiny_gguf)
    proxy = "name: proxy\nbackend: fake\noptions: ['api_key:pass-word']\n"
    (data_dir / "models" / "proxy.yaml").write_text(proxy)
    key_file = data_dir / "keys"
    key_file.write_text("guest-key user\n")
    key_file.chmod(0o600)
    anywhere = Endpoint("127.0.0.1", 0)
    settings = Settings(
        data_dir=data_dir,
        grpc_listen=anywhere,
        http_listen=anywhere,
        api_key=("boss-key",),
        api_key_file=key_file,
        public_url="https://models.example/llm",
        shutdown_grace=1.0,
    )
    async with running(
        settings, start_keeper(), programs=programs(), environment=dict(os.environ)
    ) as app:
        yield app


async def summary_of(transport: Transport) -> summary_pb2.Summary:
    answer: summary_pb2.Summary = await transport.call(
        "SystemService.GetSummary", pb.GetSummaryRequest()
    )
    return answer


async def load(transport: Transport, model: str) -> None:
    request = backend_service_pb2.LoadModelRequest(model=model)
    await transport.call("BackendService.LoadModel", request)


async def test_open(app: App, transport: Transport) -> None:
    """Without keys everybody sees everything, and what there is not is empty, not missing."""
    await load(transport, "tiny")
    summary = await summary_of(transport)

    assert (f"Localplane v{__version__}", f"v{__version__}") == (summary.title, summary.version)
    assert ["tiny", "vectors"] == [
        one.name for one in summary.models_config.models if one.file == "tiny.gguf"
    ]
    assert "tiny.gguf" not in summary.models.names
    loaded = summary.loaded_models.by_model["tiny"]
    assert ("llama-cpp", backend_pb2.BACKEND_STATE_READY) == (loaded.backend, loaded.state)
    assert ["fake", "llama"] == [one.name for one in summary.installed_backends.backends]
    assert (str(app.grpc), str(app.http)) == (
        summary.application_config.grpc_listen,
        summary.application_config.http_listen,
    )
    assert not summary.application_config.requires_key
    assert (True, False) == (summary.HasField("is_p2p_enabled"), summary.is_p2p_enabled)
    for name in ("gallery_config", "processing_models", "task_types"):
        assert summary.HasField(name)


async def test_json(app: App) -> None:
    """The keys of JSON are LocalAI's, each there, none null, and the base is the address that was called."""
    async with httpx.AsyncClient(base_url=f"http://{app.http}") as client:
        summary = (await client.get("/")).json()

    assert KEYS == summary.keys()
    assert None not in summary.values()
    assert f"http://{app.http}/" == summary["BaseURL"]
    assert ({}, {}, {}) == tuple(
        summary[key] for key in ("GalleryConfig", "ProcessingModels", "TaskTypes")
    )


@pytest.mark.parametrize("path", ["/", "/v1/models", "/api/resources", "/api/p2p"])
async def test_lines_of_the_page_work(app: App, path: str) -> None:
    """What the page tells to copy is answered."""
    place = Place(
        base_url=f"http://{app.http}", grpc=str(app.grpc), model="tiny", requires_key=False
    )
    (line,) = [
        example.curl
        for service in make_examples(load_document(), place)
        for example in service.examples
        if example.route == f"GET {path}"
    ]
    async with httpx.AsyncClient() as client:
        response = await client.get(shlex.split(line)[-1])

    assert 200 == response.status_code


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            (None, {"Title", "Version"}),
            ("wrong", {"Title", "Version"}),
            ("guest-key", {"Title", "Version", "BaseURL", "Models", "ModelsConfig"}),
            ("boss-key", KEYS),
        ],
    )
    async def test_json(self, locked: App, key: str | None, expected: set[str]) -> None:
        """Each caller gets the keys of its role, and nobody a secret."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(base_url=f"http://{locked.http}", headers=headers) as client:
            response = await client.get("/")
            page = await client.get("/", headers=BROWSER)

        assert (200, 200) == (response.status_code, page.status_code)
        assert expected == response.json().keys()
        assert "https://models.example/llm/" == response.json().get(
            "BaseURL", "https://models.example/llm/"
        )
        for secret in SECRETS:
            assert secret not in response.text
            assert secret not in page.text

    @pytest.mark.parametrize(("key", "fields"), [(None, 2), ("guest-key", 5), ("boss-key", 12)])
    async def test_grpc(self, locked: App, key: str | None, fields: int) -> None:
        """The same over gRPC."""
        async with grpc.aio.insecure_channel(str(locked.grpc)) as channel:
            summary = await summary_of(GrpcTransport(channel, key))

        assert fields == len(summary.ListFields())

    async def test_page(self, locked: App) -> None:
        """The page of a caller without a key shows nothing of what the service has."""
        async with httpx.AsyncClient(base_url=f"http://{locked.http}") as client:
            page = await client.get("/", headers=BROWSER)

        assert f"v{__version__}" in page.text
        assert "tiny" not in page.text
        assert str(locked.grpc) not in page.text


class TestMetadata:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            ("http://box.lan:8080", "http://box.lan:8080/"),
            ("https://box.lan/llm/", "https://box.lan/llm/"),
            ("http://[::1]:8080", "http://[::1]:8080/"),
            ("javascript:alert(1)", ""),
            ('http://box.lan/"><script>', ""),
            ("http://user:pass@box.lan", ""),
            ("http://box.lan?a=b", ""),
            ("http://" + "x" * 3000, ""),
            ("", ""),
        ],
    )
    async def test_base_url(self, app: App, sent: str, expected: str) -> None:
        """Anybody can send an address over gRPC: a URL is repeated to the sender, anything else is ignored."""
        async with grpc.aio.insecure_channel(str(app.grpc)) as channel:
            call = channel.unary_unary(
                "/localplane.v1.SystemService/GetSummary",
                request_serializer=pb.GetSummaryRequest.SerializeToString,
                response_deserializer=summary_pb2.Summary.FromString,
            )
            metadata = (("x-http-base-url", sent), ("x-http-accept", "text/html"))
            summary = await call(pb.GetSummaryRequest(), metadata=metadata)

        assert expected == summary.base_url
        assert f"Localplane v{__version__}" == summary.title

    async def test_public_url_wins(self, locked: App) -> None:
        """Where the operator set the address, what is sent changes nothing."""
        async with grpc.aio.insecure_channel(str(locked.grpc)) as channel:
            call = channel.unary_unary(
                "/localplane.v1.SystemService/GetSummary",
                request_serializer=pb.GetSummaryRequest.SerializeToString,
                response_deserializer=summary_pb2.Summary.FromString,
            )
            metadata = (
                ("authorization", "Bearer boss-key"),
                ("x-http-base-url", "http://evil.example"),
            )
            summary = await call(pb.GetSummaryRequest(), metadata=metadata)

        assert "https://models.example/llm/" == summary.base_url
