"""A download survives the sudden end of its process and of its disk's room, and reaches no forbidden place."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import file_server
from file_server import FileServer
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.credentials import Credentials
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.patience import Patience
from localplane_server.downloads.ranges import ByteRanges
from localplane_server.downloads.transfer import BLOCK_BYTES, CONNECTIONS
from localplane_server.errors import DownloadFailedError, SourceRefusedError

pytestmark = pytest.mark.faults

PROGRAM = Path(__file__).with_name("download_program.py")
MIB = 1024 * 1024
KILLS = 20
HURRY = Patience(attempts=2, first_delay_seconds=0.01)
CHUNK_BYTES = 2 * CONNECTIONS * BLOCK_BYTES
"""What a kill may cost: a block of each connection, and as much that was on its way and nobody had taken."""


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server without files."""
    with file_server.serving() as server:
        yield server


def program(staging: Path, uri: str, sha256: str, *more: str) -> subprocess.Popen[str]:
    argv = [sys.executable, str(PROGRAM), str(staging), uri, sha256, *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str]) -> dict[str, str]:
    with process:
        output, _ = process.communicate(timeout=100)
    assert 0 == process.returncode
    told: dict[str, str] = json.loads(output)
    return told


@pytest.mark.timeout(300)
def test_killed_twenty_times(server: FileServer, tmp_path: Path) -> None:
    """The digest is right in the end, and each kill costs a chunk at most."""
    dice = random.Random(12)  # noqa: S311 - no secret
    content = b"".join(dice.randbytes(32 * MIB) for _ in range(4))
    served = server.put("/m.gguf", content, etag='"a"')
    uri = f"{server.url}/m.gguf"
    sent_before = ByteRanges()
    again = 0
    seen = 0

    def account() -> None:
        """Add up what this run was sent of what an earlier one had been sent."""
        nonlocal again, seen
        spans = [(one.start, one.start + one.sent) for one in server.asked[seen:] if one.sent]
        seen = len(server.asked)
        for start, stop in spans:
            again += sum(max(0, min(stop, one.stop) - max(start, one.start)) for one in sent_before)
        for start, stop in spans:
            sent_before.add(start, stop)

    for _ in range(KILLS):
        point = server.sent + dice.randrange(64 * 1024, 8 * MIB)
        server.allow(point + 4 * MIB)
        process = program(tmp_path / "staging", uri, served.sha256)
        server.wait_for(point)
        process.kill()
        with process:
            process.wait()
        server.wait_until_idle()
        account()

    server.allow(None)
    told = outcome(program(tmp_path / "staging", uri, served.sha256))
    account()

    assert served.sha256 == hashlib.sha256(Path(told["path"]).read_bytes()).hexdigest()
    assert again <= KILLS * CHUNK_BYTES
    assert server.sent <= len(served.content) + KILLS * CHUNK_BYTES


def test_two_processes(server: FileServer, tmp_path: Path) -> None:
    """Two processes that fetch the same do not spoil it for each other: the second waits for the first."""
    served = server.put("/m", random.Random(1).randbytes(8 * MIB), etag='"a"')  # noqa: S311
    server.allow(MIB)
    first = program(tmp_path, f"{server.url}/m", served.sha256)
    server.wait_for(MIB)
    second = program(tmp_path, f"{server.url}/m", served.sha256)
    server.allow(None)

    assert served.sha256 == outcome(first)["sha256"]
    assert served.sha256 == outcome(second)["sha256"]
    assert len(served.content) == server.sent


def test_disk_full(server: FileServer, tmp_path: Path) -> None:
    """A disk that takes no more in the middle of a write ends the download at once, with the cause."""
    served = server.put("/m", bytes(8 * MIB), etag='"a"')
    told = outcome(program(tmp_path, f"{server.url}/m", served.sha256, str(3 * MIB + 5)))

    assert "INSUFFICIENT_STORAGE" == told["reason"]
    assert 1 == len(server.fetched("/m"))

    again = outcome(program(tmp_path, f"{server.url}/m", served.sha256))
    assert served.sha256 == again["sha256"]
    assert 3 * MIB + 5 == server.fetched("/m")[-1].start


def test_too_large(server: FileServer, tmp_path: Path) -> None:
    """What the disk has no room for is not begun."""
    head = {"Content-Range": f"bytes 0-1023/{2**50}"}
    server.routes["/m"] = lambda _asked: (206, head, bytes(1024))
    told = outcome(program(tmp_path, f"{server.url}/m", ""))

    assert "INSUFFICIENT_STORAGE" == told["reason"]
    assert str(2**50 + 64 * MIB) == told["needed"]
    assert [] == list(tmp_path.iterdir())


HOSTS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0.0.0.0",  # noqa: S104 - asked, not listened on
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "localhost",
    "LOCALHOST.",
]


class TestForbiddenPlaces:
    """No packet goes to an address that is not public, however a URL, a redirect or a name leads there."""

    @pytest.fixture
    def canary(self) -> Iterator[FileServer]:
        """A server that nobody may reach."""
        with file_server.serving() as canary:
            yield canary
            # Connections are taken in the order in which they came, so this is the first and only one.
            httpx.get(f"{canary.url}/own", timeout=30)
            assert ["/own"] == [one.path for one in canary.asked]
            assert 1 == canary.connections

    @staticmethod
    async def refused(downloader: Downloader, uri: str) -> None:
        for attempt in (
            downloader.fetch(uri),
            downloader.facts(uri),
            downloader.read(uri, most_bytes=1000),
        ):
            with pytest.raises((SourceRefusedError, DownloadFailedError)) as caught:
                await attempt
            # This machine may not know the name at all, or have no IPv6.
            known = isinstance(caught.value, SourceRefusedError)
            assert known or "no connection" in caught.value.message

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("host", HOSTS)
    async def test_url(self, canary: FileServer, tmp_path: Path, scheme: str, host: str) -> None:
        """A URL."""
        async with open_downloader(tmp_path, AddressPolicy.of(allow_http=True)) as downloader:
            await self.refused(downloader, f"{scheme}://{host}:{canary.port}/m")

    @pytest.mark.parametrize("host", HOSTS[1:])
    async def test_redirect(
        self, server: FileServer, canary: FileServer, tmp_path: Path, host: str
    ) -> None:
        """A redirect of a server that may be reached."""
        server.redirect("/m", f"http://{host}:{canary.port}/m")
        policy = AddressPolicy.of([f"127.0.0.1:{server.port}"], allow_http=True)
        async with open_downloader(tmp_path, policy) as downloader:
            await self.refused(downloader, f"{server.url}/m")

    async def test_rebinding(self, canary: FileServer, tmp_path: Path) -> None:
        """A name that is public when it is looked at first, and is not when it is connected to."""
        answers = itertools.cycle([["203.0.113.1"], ["127.0.0.1"], ["::ffff:127.0.0.1"]])

        async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
            return next(answers)

        policy = AddressPolicy.of(allow_http=True)
        async with open_downloader(tmp_path, policy, find=find) as downloader:
            await self.refused(downloader, f"http://models.example:{canary.port}/m")

    @pytest.mark.parametrize(
        "uri",
        [
            "oci://{host}/o/m",
            "ollama://{host}/o/m:t",
            "hf://o/r/m",
            "github:o/r/m",
            "file:///etc/hostname",
        ],
    )
    async def test_other_sources(self, canary: FileServer, tmp_path: Path, uri: str) -> None:
        """Sources with names of their own, and endpoints that somebody set wrongly."""
        host = f"127.0.0.1:{canary.port}"
        endpoints = Endpoints(hugging_face=f"https://{host}", github_raw=f"https://{host}")
        async with open_downloader(tmp_path, AddressPolicy(), endpoints=endpoints) as downloader:
            await self.refused(downloader, uri.format(host=host))


def open_downloader(staging: Path, policy: AddressPolicy, **how: Any) -> Downloader:
    settings = {"endpoints": Endpoints(), "credentials": Credentials(), "patience": HURRY, **how}
    return Downloader(staging, policy=policy, **settings)
