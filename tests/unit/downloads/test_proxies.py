"""A machine that reaches the Internet through a proxy can download, and its neighbours stay out of reach."""

from __future__ import annotations

import pytest

from file_server import FileServer
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.proxies import Proxies
from localplane_server.errors import DownloadFailedError, SourceRefusedError
from unit.downloads.conftest import Make

HTTP = AddressPolicy.of(allow_http=True)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://a/m", ""),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a/m", "http://p:1"),
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "q"}, "https://a/m", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://a/m", ""),
        ({"ALL_PROXY": "p:1"}, "http://a/m", "p:1"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "b, a"}, "http://a/m", ""),
        ({"ALL_PROXY": "p:1", "NO_PROXY": ".corp"}, "http://a.corp/m", ""),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "corp"}, "http://acorp/m", "p:1"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "a:8080"}, "http://a:8080/m", ""),
        ({"ALL_PROXY": "p:1", "no_proxy": "*"}, "https://a/m", ""),
    ],
)
def test_which(environment: dict[str, str], url: str, proxy: str) -> None:
    """The variables that other programs know, understood alike."""
    assert proxy == Proxies.from_environment(environment).of(url)


async def test_goes_through(make: Make, server: FileServer) -> None:
    """The proxy is asked, at whatever address it has, for a name that only it knows."""

    async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        if host != "127.0.0.1":
            raise OSError
        return [host]

    served = server.put("/m", b"x" * 1000)
    proxies = Proxies(by_scheme={"http": f"http://me:secret@127.0.0.1:{server.port}"})
    staged = await make(policy=HTTP, proxies=proxies, find=find).fetch("http://models.example/m")

    assert served.sha256 == staged.sha256
    assert "models.example" == server.asked[0].headers["host"]
    assert "proxy-authorization" in server.asked[0].headers


async def test_private_name(make: Make, server: FileServer) -> None:
    """A name that this machine knows to be private is not asked for."""

    async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        return ["10.0.0.1"]

    downloader = make(policy=HTTP, proxies=Proxies(by_scheme={"http": server.url}), find=find)
    for uri in ("http://inside.example/m", "http://169.254.169.254/m"):
        with pytest.raises(SourceRefusedError):
            await downloader.fetch(uri)
    assert [] == server.asked


@pytest.mark.parametrize("proxy", ["socks5://p:1", "http://", "http://p:x"])
async def test_other_kinds(make: Make, proxy: str) -> None:
    """A proxy that cannot be used is told of, and not gone around."""

    async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        raise OSError

    downloader = make(proxies=Proxies(by_scheme={"https": proxy}), find=find)
    with pytest.raises(DownloadFailedError, match="proxy"):
        await downloader.fetch("https://models.example/m")
