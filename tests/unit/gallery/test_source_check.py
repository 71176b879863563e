"""URLs that lead where they may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.errors import SourceRefusedError
from localplane_server.gallery.source_check import SourceCheck

ADDRESSES = {"public": ["93.184.216.34"], "private": ["10.0.0.7"], "both": ["10.0.0.7", "8.8.8.8"]}


async def find(host: str, _port: int) -> list[str]:
    """Resolve names as the table above has them."""
    if host not in ADDRESSES:
        raise OSError(host)
    return ADDRESSES[host]


def check(root: Path, *hosts: str, offline: bool = False) -> SourceCheck:
    return SourceCheck(
        AddressPolicy.of(hosts), Endpoints(), file_roots=[root], offline=offline, find=find
    )


@pytest.mark.parametrize(
    "uri",
    ["https://public/x", "https://both/x", "https://nowhere/x", "file:///{root}/index.yaml"],
)
async def test_taken(tmp_path: Path, uri: str) -> None:
    """Public hosts, hosts that nobody knows yet, and files in the folder."""
    await check(tmp_path)(uri.format(root=tmp_path))


@pytest.mark.parametrize(
    "uri",
    [
        "https://private/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://169.254.169.254/latest",
        "https://a..example/x",
        "http://public/x",
        "https://user:secret@public/x",
        "file:///etc/passwd",
        "file://{root}/../x",
        "file://{root}/link/passwd",
        "github:one",
        "nothing",
        "",
    ],
)
async def test_refused(tmp_path: Path, uri: str) -> None:
    """Private addresses whatever they are called, what has no TLS, and files elsewhere."""
    root = tmp_path / "models"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    with pytest.raises(SourceRefusedError):
        await check(root)(uri.format(root=root))


async def test_allowed(tmp_path: Path) -> None:
    """The operator can name a host."""
    await check(tmp_path, "private")("http://private/x")


async def test_offline(tmp_path: Path) -> None:
    """Offline no name is resolved; what an address itself tells counts."""
    await check(tmp_path, offline=True)("https://private/x")
    with pytest.raises(SourceRefusedError):
        await check(tmp_path, offline=True)("https://10.0.0.7/x")
