"""Plans of installations over every transport, with a real server of files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format

import file_server
from contract.transports import CallError, RestTransport, Transport
from file_server import FileServer
from localplane.v1 import gallery_pb2
from localplane.v1 import gallery_service_pb2 as pb
from localplane_server.app import App
from localplane_server.gallery.checkpoints.gguf_header import HEADER_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS: dict[str, Any] = {"allow_private_hosts": ("127.0.0.1",)}

_SERVERS: list[FileServer] = []


@contextlib.contextmanager
def prepare(_request: Any, _data_dir: Path) -> Iterator[dict[str, Any]]:
    """Serve files while the service runs."""
    with file_server.serving() as server:
        _SERVERS.append(server)
        yield {}
        _SERVERS.remove(server)


@pytest.fixture
def files(app: App) -> FileServer:  # noqa: ARG001 - has it run
    """The server of files."""
    return _SERVERS[-1]


@pytest.fixture
def weights(tiny_gguf: Path) -> bytes:
    """A model file, with much behind what it says of itself."""
    return tiny_gguf.read_bytes() + bytes(4 << 20)


@pytest.fixture
def http(transport: Transport) -> httpx.AsyncClient:
    """A client of HTTP: what others say is tested above."""
    if not isinstance(transport, RestTransport):
        pytest.skip("REST alone has JSON")
    return transport._client


async def plan(transport: Transport, request: pb.PlanModelRequest) -> gallery_pb2.ModelPlan:
    answer: gallery_pb2.ModelPlan = await transport.call("GalleryService.PlanModel", request)
    return answer


def below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def request(uri: str, **more: Any) -> pb.PlanModelRequest:
    message = pb.PlanModelRequest(
        name="planned",
        files=[gallery_pb2.GalleryFile(filename="planned/w.gguf", uri=uri, sha256="ab" * 32)],
        **more,
    )
    message.config_file.update(
        {"backend": "llama", "context_size": 1024, "parameters": {"model": "planned/w.gguf"}}
    )
    return message


class TestPlanModel:
    async def test_all(
        self, transport: Transport, files: FileServer, weights: bytes, models_folder: Path
    ) -> None:
        """Everything is told, almost nothing is fetched, and nothing changes."""
        before = below(models_folder)
        files.put("/w.gguf", weights)
        sent = files.sent

        found = await plan(transport, request(f"{files.url}/w.gguf"))

        assert ("planned", False, True) == (found.name, found.installed, found.fits)
        assert len(weights) == found.total_bytes == found.fetch_bytes
        assert found.free_bytes > len(weights)
        assert ("llama", gallery_pb2.BACKEND_PRESENCE_PRESENT) == (
            found.backend,
            found.backend_presence,
        )
        assert gallery_pb2.FILE_PRESENCE_ABSENT == found.files[0].presence
        assert ["planned.yaml", "._gallery_planned.yaml"] == list(found.written)
        assert (len(weights), 1024) == (found.memory.weights_bytes, found.memory.context_size)
        assert found.memory.cache_bytes > 0
        told = json_format.MessageToDict(found.configuration)
        assert {"model": "planned/w.gguf"} == told["parameters"]
        assert before == below(models_folder)
        assert files.sent - sent <= HEADER_BYTES

    async def test_builtin(self, transport: Transport) -> None:
        """The built-in gallery tells the sizes itself; what a header would tell is unknown, with the reason."""
        found = await plan(transport, pb.PlanModelRequest(id="localplane@smollm2", name="mine"))

        assert ("mine", 98_362_432) == (found.name, found.total_bytes)
        assert not found.HasField("memory")
        assert found.memory_unknown

    async def test_installed(self, transport: Transport, models_folder: Path) -> None:
        """A model that is installed is told as such; one that was written by hand is not to be replaced."""
        message = pb.PlanModelRequest(name="tiny")
        message.config_file.update({"backend": "nowhere-else"})
        installed = models_folder / "._gallery_tiny.yaml"

        with pytest.raises(CallError) as caught:
            await plan(transport, message)
        installed.write_text("name: tiny\n")
        found = await plan(transport, message)
        installed.unlink()

        assert "ALREADY_EXISTS" == caught.value.reason
        assert "tiny.yaml" == caught.value.metadata["file"]
        assert found.installed
        assert (0, 0) == (found.total_bytes, found.fetch_bytes)
        assert gallery_pb2.BACKEND_PRESENCE_MISSING == found.backend_presence

    async def test_unknown_size(self, transport: Transport, files: FileServer) -> None:
        """A file that the server does not have is no error of a plan; its size is not known."""
        found = await plan(transport, request(f"{files.url}/none.gguf"))

        assert not found.HasField("total_bytes")
        assert not found.HasField("fits")
        assert found.memory_unknown

    @pytest.mark.parametrize(
        ("fields", "reason", "field"),
        [
            ({}, "INVALID_ARGUMENT", "id"),
            ({"id": "nowhere@none"}, "MODEL_NOT_IN_GALLERY", None),
            ({"id": "smollm2", "variant": "q8"}, "INVALID_ARGUMENT", "variant"),
            ({"id": "smollm2", "name": ".."}, "INVALID_MODEL_NAME", "name"),
            ({"url": "https://10.0.0.1/x.yaml"}, "SOURCE_REFUSED", None),
            ({"config_url": "file:///etc/passwd"}, "SOURCE_REFUSED", None),
        ],
    )
    async def test_refused(
        self, transport: Transport, fields: dict[str, Any], reason: str, field: str | None
    ) -> None:
        """What could not be installed cannot be planned."""
        with pytest.raises(CallError) as caught:
            await plan(transport, pb.PlanModelRequest(**fields))

        assert (reason, field) == (caught.value.reason, caught.value.metadata.get("field"))

    @pytest.mark.parametrize(
        "uri", ["https://127.0.0.2/x", "https://169.254.169.254/x", "file:///etc/passwd"]
    )
    async def test_private_file(self, transport: Transport, uri: str) -> None:
        """A file from where nothing may be fetched is refused as it would be by the installation."""
        with pytest.raises(CallError) as caught:
            await plan(transport, request(uri))

        assert "SOURCE_REFUSED" == caught.value.reason

    async def test_json(self, http: httpx.AsyncClient) -> None:
        """Over REST unknown figures are null, and words are small."""
        answer = await http.post(
            "/models/plan", json={"name": "x", "config_file": {"backend": "fake"}}
        )

        told = answer.json()
        assert ("present", None, True) == (told["backend_presence"], told["memory"], told["fits"])
        assert {"name": "x", "backend": "fake"} == told["configuration"]
        assert [] == told["files"]
