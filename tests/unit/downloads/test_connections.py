"""What is connected to is what was looked at."""

from __future__ import annotations

import pytest

from file_server import FileServer
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.errors import DownloadFailedError, SourceRefusedError
from unit.downloads.conftest import Make

HTTP = AddressPolicy.of(allow_http=True)


async def test_name_of_a_private_address(make: Make, server: FileServer) -> None:
    """A public name for a private address leads nowhere, and nobody is connected to."""

    async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        return ["127.0.0.1"]

    with pytest.raises(SourceRefusedError, match=r"127\.0\.0\.1"):
        await make(policy=HTTP, find=find).fetch(f"http://models.example:{server.port}/m")
    assert [] == server.asked


async def test_name_that_changes(make: Make, server: FileServer) -> None:
    """A name that means another address each time is looked at each time, and resolved once for each connection."""
    served = server.put("/m", b"x" * 1000)
    asked: list[str] = []

    async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    policy = AddressPolicy.of(["models.example", "here.example"])
    downloader = make(policy=policy, find=find)
    staged = await downloader.fetch(f"http://models.example:{server.port}/m")

    assert served.sha256 == staged.sha256
    assert ["models.example"] == asked
    assert f"models.example:{server.port}" == server.asked[0].headers["host"]


async def test_next_address(make: Make, server: FileServer) -> None:
    """When one of a host's addresses does not answer, the next one is tried."""
    server.put("/m", b"x")

    async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        return ["127.0.0.9", "127.0.0.1"]

    downloader = make(policy=AddressPolicy.of(["models.example"]), find=find)
    assert 1 == (await downloader.fetch(f"http://models.example:{server.port}/m")).size_bytes


async def test_no_such_name(make: Make) -> None:
    """A name that nobody knows is told of."""

    async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        raise OSError

    with pytest.raises(DownloadFailedError, match=r"the name models\.example cannot be resolved"):
        await make(find=find).fetch("https://models.example/m")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "017700000001", "localhost"])
async def test_other_spellings(make: Make, server: FileServer, host: str) -> None:
    """The system knows many spellings of an address; each is looked at after it was understood."""
    with pytest.raises((SourceRefusedError, DownloadFailedError)):
        await make(policy=HTTP).fetch(f"http://{host}:{server.port}/m")
    assert [] == server.asked
