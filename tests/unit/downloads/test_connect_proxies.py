"""Downloads over TLS through a proxy that makes tunnels, and what may be reached through it."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

import file_server
from connect_proxy import ConnectProxy, certify, proxying
from file_server import FileServer
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.credentials import Credentials, bearer
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.proxies import Proxies
from localplane_server.errors import DownloadFailedError, SourceRefusedError
from unit.downloads.conftest import Make

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="there is no openssl to make a certificate with"
)

NAME = "models.example"
URL = f"https://{NAME}/m.gguf"
CONTENT = bytes(range(256)) * 8000


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[FileServer]:
    """A server that speaks TLS under its name, and whose certificate the system trusts."""
    certificate, tls = certify(tmp_path, NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with file_server.serving(tls) as server:
        server.put("/m.gguf", CONTENT, etag='"m"')
        yield server


@pytest.fixture
def proxy(behind: FileServer) -> Generator[ConnectProxy]:
    """A proxy that knows where the server is."""
    with proxying() as proxy:
        proxy.routes[f"{NAME}:443"] = ("127.0.0.1", behind.port)
        yield proxy


async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
    """Find this machine alone, and one of its neighbours by a name."""
    if host == "127.0.0.1":
        return [host]
    if host == "neighbour.example":
        return ["192.168.1.7"]
    raise OSError


@pytest.fixture
def downloader(make: Make, proxy: ConnectProxy) -> Downloader:
    """A downloader that may reach nothing private, behind the proxy."""
    environment = {"HTTPS_PROXY": proxy.url.replace("//", "//me:secret@")}
    return make(
        policy=AddressPolicy(),
        proxies=Proxies.from_environment(environment),
        credentials=Credentials().bound(f"https://{NAME}", bearer("key")),
        find=find,
    )


async def test_tunnel(downloader: Downloader, proxy: ConnectProxy) -> None:
    """The proxy is asked by the name alone; what goes through it is between us and the server."""
    staged = await downloader.fetch(URL)

    assert staged.path.read_bytes() == CONTENT
    assert {f"{NAME}:443"} == set(proxy.targets())
    assert [] == proxy.others
    # A greeting of TLS: nothing that the proxy could read.
    assert {b"\x16\x03"} == {one[:2] for one in proxy.first_bytes}


async def test_keys(downloader: Downloader, proxy: ConnectProxy, behind: FileServer) -> None:
    """The proxy's key goes to the proxy and the server's to the server, each to nobody else."""
    await downloader.fetch(URL)

    assert {"Basic bWU6c2VjcmV0"} == {one.authorization for one in proxy.asked}
    assert {"Bearer key"} == {one.headers["authorization"] for one in behind.asked}
    assert not any("proxy-authorization" in one.headers for one in behind.asked)


async def test_looks(downloader: Downloader, behind: FileServer) -> None:
    """Facts and beginnings come the same way."""
    assert len(CONTENT) == (await downloader.facts(URL)).size_bytes
    assert CONTENT[:9] == await downloader.beginning(URL, most_bytes=9)
    assert 2 == len(behind.asked)


async def test_large(
    downloader: Downloader, proxy: ConnectProxy, behind: FileServer, large: bytes
) -> None:
    """Several connections are several tunnels, and one that breaks is made anew."""
    behind.put("/m.gguf", large, etag='"large"')
    proxy.cut_after = [3_000_000]

    assert behind.files["/m.gguf"].sha256 == (await downloader.fetch(URL)).sha256
    assert len(proxy.asked) > 2
    assert behind.sent < 1.2 * len(large)


async def test_certificate(downloader: Downloader, proxy: ConnectProxy, behind: FileServer) -> None:
    """The certificate has to be that of the name that was asked for, whoever the proxy connects to."""
    proxy.routes["other.example:443"] = ("127.0.0.1", behind.port)

    with pytest.raises(DownloadFailedError, match="certificate is not trusted: Hostname mismatch"):
        await downloader.fetch("https://other.example/m.gguf")
    assert [] == behind.asked


@pytest.mark.parametrize(
    "url",
    [
        "https://neighbour.example/m",
        "https://192.168.1.7/m",
        "https://169.254.169.254/m",
        "https://[::1]/m",
    ],
)
async def test_private(downloader: Downloader, proxy: ConnectProxy, url: str) -> None:
    """What is known here to be private is not even asked for."""
    proxy.routes |= {f"{host}:443": ("127.0.0.1", 1) for host in ("neighbour.example", "[::1]")}

    with pytest.raises(SourceRefusedError):
        await downloader.fetch(url)
    assert [] == proxy.asked


async def test_redirect(downloader: Downloader, proxy: ConnectProxy, behind: FileServer) -> None:
    """A redirect out of the tunnel is looked at the same way, and so is one without TLS."""
    for target in ("https://neighbour.example/m", "https://10.0.0.1/m", f"http://{NAME}/m.gguf"):
        behind.redirect("/away", target)
        with pytest.raises(SourceRefusedError):
            await downloader.fetch(f"https://{NAME}/away")
    assert {f"{NAME}:443"} == set(proxy.targets())


async def test_proxy_alone(downloader: Downloader, proxy: ConnectProxy) -> None:
    """The proxy may be at a private address as a proxy, and as nothing else."""
    with pytest.raises(SourceRefusedError):
        await downloader.fetch(f"https://127.0.0.1:{proxy.port}/m")
    assert [] == proxy.asked


async def test_refused_there(downloader: Downloader, proxy: ConnectProxy) -> None:
    """A host that the proxy does not let through is told of as the proxy's doing."""
    with pytest.raises(DownloadFailedError, match="the proxy does not let it through: 403"):
        await downloader.fetch("https://elsewhere.example/m")
    assert {"elsewhere.example:443"} == set(proxy.targets())


async def test_not_there(make: Make, proxy: ConnectProxy) -> None:
    """A proxy that does not answer is told of, and not gone around."""
    with file_server.serving() as server:
        gone = server.url
    downloader = make(
        policy=AddressPolicy(), proxies=Proxies.from_environment({"ALL_PROXY": gone}), find=find
    )

    with pytest.raises(DownloadFailedError, match="no connection"):
        await downloader.fetch(URL)
    assert [] == proxy.asked


async def test_without(make: Make, proxy: ConnectProxy, behind: FileServer) -> None:
    """What is not to go through the proxy goes directly, with the whole policy."""
    environment = {"HTTPS_PROXY": proxy.url, "NO_PROXY": ".example"}

    async def here(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        return ["127.0.0.1"]

    url = URL.replace(NAME, f"{NAME}:{behind.port}")
    for policy in (AddressPolicy.of([f"{NAME}:{behind.port}"]), AddressPolicy()):
        downloader = make(policy=policy, proxies=Proxies.from_environment(environment), find=here)
        if policy == AddressPolicy():
            with pytest.raises(SourceRefusedError):
                await downloader.facts(url)
        else:
            assert len(CONTENT) == (await downloader.facts(url)).size_bytes
    assert [] == proxy.asked
