"""Asking a hub about repositories: what refuses a model, and what does not."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

import file_server
from file_server import Fault, FileServer
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.patience import Patience
from localplane_server.downloads.progress import Document
from localplane_server.errors import UnsafeFilesError
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.installation import Installer
from localplane_server.gallery.installs.scanning import (
    LARGEST_ANSWER,
    SECONDS,
    Repository,
    Scanner,
    repository_of,
)
from workshop import Workshop

PUBLIC = "https://huggingface.co"
MIRROR = Endpoints(hugging_face="https://mirror.example:8443/hub")
UNSAFE = json.dumps({"hasUnsafeFile": True}).encode()
SAFE = json.dumps({"hasUnsafeFile": False}).encode()
PATH = "/api/models/owner/repo/scan"


@pytest.fixture
def hub() -> Generator[FileServer]:
    """A hub that knows no repository."""
    with file_server.serving() as server:
        yield server


@pytest.fixture
def environment(hub: FileServer) -> dict[str, str]:
    """Variables that name the hub, and a key for it."""
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": "t"}


@pytest.fixture
async def downloader(
    environment: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncGenerator[Downloader]:
    """A downloader that may reach the hub. A parameter has more of its settings."""
    endpoints = Endpoints.from_environment(environment)
    settings: dict[str, Any] = {"patience": Patience(attempts=1), **getattr(request, "param", {})}
    async with Downloader(
        tmp_path / "staging",
        policy=AddressPolicy.of(["127.0.0.1"]),
        endpoints=endpoints,
        credentials=endpoints.credentials(environment),
        **settings,
    ) as downloader:
        yield downloader


@pytest.fixture
def scanner(downloader: Downloader, environment: dict[str, str]) -> Scanner:
    """A scanner that asks the hub."""
    return Scanner(downloader, Endpoints.from_environment(environment))


def files(*uris: str) -> list[GalleryFile]:
    return [GalleryFile(filename=f"{number}.bin", uri=uri) for number, uri in enumerate(uris)]


FILES = files("hf://owner/repo/a.gguf")


class TestRepositories:
    @pytest.mark.parametrize(
        "uri",
        [
            "huggingface://owner/repo/a.gguf",
            "hf://owner/repo/folder/a.gguf@refs/pr/1",
            "hf.co/owner/repo/a.gguf",
            " hf:owner/repo/a.gguf ",
            "https://huggingface.co/owner/repo/resolve/main/a.gguf?download=true",
            "HTTPS://HuggingFace.co:443/owner/%72epo/%72esolve/refs%2Fpr%2F1/folder/a.gguf",
            "https://huggingface.co/owner/repo/raw/main/config.json",
        ],
    )
    def test_forms(self, uri: str) -> None:
        """Every way to write that a file is in a repository leads to the repository."""
        assert Repository(PUBLIC, "owner/repo") == repository_of(uri, Endpoints())

    @pytest.mark.parametrize(
        ("uri", "hub"),
        [
            ("hf://owner/repo/a.gguf", MIRROR.hugging_face),
            (f"{MIRROR.hugging_face}/owner/repo/resolve/main/a", MIRROR.hugging_face),
            (f"{PUBLIC}/owner/repo/resolve/main/a", PUBLIC),
        ],
    )
    def test_hubs(self, uri: str, hub: str) -> None:
        """The hub that is asked is the one that the file comes from."""
        assert Repository(hub, "owner/repo") == repository_of(uri, MIRROR)

    @pytest.mark.parametrize(
        "uri",
        [
            "https://example.org/owner/repo/resolve/main/a.gguf",
            "https://huggingface.co.example.org/owner/repo/resolve/main/a.gguf",
            "http://huggingface.co/owner/repo/resolve/main/a.gguf",
            "https://huggingface.co:8443/owner/repo/resolve/main/a.gguf",
            "https://huggingface.co/datasets/owner/repo/resolve/main/a.bin",
            "https://huggingface.co/owner/repo",
            "https://huggingface.co/owner/repo/resolve",
            "https://huggingface.co/../repo/resolve/main/a.gguf",
            "https://huggingface.co/owner/a%2Fb/resolve/main/a.gguf",
            "https://huggingface.co:port/owner/repo/resolve/main/a.gguf",
            "https://[/owner/repo/resolve/main/a.gguf",
            "hf://owner/repo",
            "hf://owner/re po/a.gguf",
            "pypi://a==1/m.gguf",
            "ollama://m",
            "file:///m.gguf",
            "nothing",
            "",
        ],
    )
    def test_none(self, uri: str) -> None:
        """What comes from elsewhere, or is no URI, has none, and never fails."""
        assert repository_of(uri, Endpoints()) is None


class TestCheck:
    async def test_unsafe(self, hub: FileServer, scanner: Scanner) -> None:
        """A repository with an unsafe file refuses the model, and is named; the hub gets its key."""
        hub.put(PATH, UNSAFE, key="Bearer t")
        hub.put("/api/models/owner/other/scan", SAFE)

        with pytest.raises(UnsafeFilesError, match=r"unsafe files found in owner/repo$") as caught:
            await scanner.check("m", [*files("hf://owner/other/b"), *FILES])

        assert {"model": "m", "repository": "owner/repo"} == caught.value.metadata

    async def test_safe(
        self, hub: FileServer, scanner: Scanner, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One without lets it pass, and there is nothing to log."""
        caplog.set_level(logging.DEBUG, logger="localplane_server")
        hub.put(PATH, SAFE)

        await scanner.check("m", FILES)

        assert 1 == len(hub.asked)
        assert [] == caplog.records

    async def test_once(self, hub: FileServer, scanner: Scanner) -> None:
        """A repository is asked about once, however many files come from it and however that is written."""
        hub.put(PATH, SAFE)
        url = f"{hub.url}/owner/repo/resolve/main/c"

        await scanner.check("m", files("hf://owner/repo/a", "hf.co/owner/repo/b@v1", url))

        assert [PATH] == [one.path for one in hub.asked]

    async def test_sources(self, hub: FileServer, scanner: Scanner) -> None:
        """What a file is made of counts, every piece of it."""
        hub.put(PATH, UNSAFE)
        sources = tuple(files("hf://owner/other/a", "hf://owner/repo/b"))
        made = GalleryFile(filename="made", uri=sources[0].uri, sources=sources)

        with pytest.raises(UnsafeFilesError):
            await scanner.check("m", [made])

    async def test_elsewhere(self, hub: FileServer, scanner: Scanner) -> None:
        """Nobody is asked about files that come from elsewhere."""
        await scanner.check("m", files(f"{hub.url}/m.gguf", "pypi://a==1/m.gguf"))

        assert [] == hub.asked

    @pytest.mark.parametrize(
        ("content", "cause"),
        [
            (None, "404"),
            (b"", "no JSON"),
            (b"\xff", "no JSON"),
            (b"[" * 200_000, "no JSON"),
            (b"<html>", "web page"),
            (UNSAFE.ljust(LARGEST_ANSWER + 1), "larger than"),
            (b"[]", "does not tell"),
            (b"{}", "does not tell"),
            (b'{"hasUnsafeFile": "true"}', "does not tell"),
            (b'{"hasUnsafeFile": 1}', "does not tell"),
        ],
    )
    async def test_no_answer(
        self,
        hub: FileServer,
        scanner: Scanner,
        content: bytes | None,
        cause: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """What is no answer refuses nothing, and the log has why."""
        caplog.set_level(logging.DEBUG, logger="localplane_server")
        if content is not None:
            hub.put(PATH, content)

        await scanner.check("m", FILES)

        (record,) = caplog.records
        assert (logging.DEBUG, "owner/repo") == (record.levelno, vars(record)["repository"])
        assert cause in vars(record)["cause"]

    async def test_stall(
        self,
        hub: FileServer,
        downloader: Downloader,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A hub that stalls is not waited for long; what it says of another repository counts."""
        loop = asyncio.get_running_loop()
        time, passed = loop.time, [0.0]
        monkeypatch.setattr(loop, "time", lambda: time() + passed[0])

        class Documents:
            """The downloader's; once it has something, the time for all is over."""

            async def read(self, uri: str, *, most_bytes: int) -> Document | None:
                document = await downloader.read(uri, most_bytes=most_bytes)
                loop.call_soon(passed.__setitem__, 0, SECONDS)
                return document

        caplog.set_level(logging.DEBUG, logger="localplane_server")
        hub.put(PATH, SAFE, faults=deque([Fault(stall_after=0)]))
        hub.put("/api/models/owner/other/scan", UNSAFE)
        scanner = Scanner(Documents(), Endpoints(hugging_face=hub.url))

        with pytest.raises(UnsafeFilesError, match=r"found in owner/other$"):
            await scanner.check("m", [*FILES, *files("hf://owner/other/b")])

        assert ["it took too long"] == [vars(one)["cause"] for one in caplog.records]

    @pytest.mark.parametrize("downloader", [{"offline": True}], indirect=True)
    async def test_offline(
        self, hub: FileServer, scanner: Scanner, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A service that stays off the network asks nobody."""
        caplog.set_level(logging.DEBUG, logger="localplane_server")
        hub.put(PATH, UNSAFE)

        await scanner.check("m", FILES)

        assert [] == hub.asked
        (record,) = caplog.records
        assert "--offline is set" in vars(record)["cause"]


class TestInstall:
    """What a hub says goes before everything that an installation fetches."""

    def request(self, workshop: Workshop) -> dict[str, Any]:
        uri = "hf://owner/repo/m.gguf"
        sha256 = workshop.source.offer(uri, b"GGUF")
        file = {"filename": "m.gguf", "uri": uri, "sha256": sha256}
        return {"config_file": {"name": "m", "backend": "llama"}, "files": [file]}

    def installer(self, workshop: Workshop, scanner: Scanner | None) -> Installer:
        return Installer(
            workshop.changes,
            workshop.resolver,
            workshop.source,
            workshop.catalog,
            workshop.loaded,
            scanner=scanner,
        )

    async def test_unsafe(self, hub: FileServer, scanner: Scanner, workshop: Workshop) -> None:
        """Nothing is fetched of a model that is refused, and nothing is installed."""
        hub.put(PATH, UNSAFE)
        workshop.installer = self.installer(workshop, scanner)

        with pytest.raises(UnsafeFilesError):
            await workshop.install(**self.request(workshop))

        assert ([], []) == (workshop.source.fetched, workshop.files())
        assert 1 == len(hub.asked)

    async def test_switched_off(self, hub: FileServer, workshop: Workshop) -> None:
        """Without a scanner nobody is asked."""
        hub.put(PATH, UNSAFE)
        workshop.installer = self.installer(workshop, None)

        await workshop.install(**self.request(workshop))

        assert ["m"] == workshop.models()
        assert [] == hub.asked
