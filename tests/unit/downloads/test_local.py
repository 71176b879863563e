"""Files of this machine come from the allowed folders, and from nowhere else however they are named."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.progress import Validators
from localplane_server.errors import (
    DigestMismatchError,
    DownloadFailedError,
    SourceRefusedError,
)
from unit.downloads.conftest import Make, names


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that may be read, with a file beside it that may not."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "m m.gguf").write_bytes(b"weights")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


@pytest.fixture
def local(make: Make, root: Path) -> Downloader:
    """A downloader that stays off the network, which needs none for these."""
    return make(offline=True, file_roots=[root])


async def test_copies(local: Downloader, root: Path) -> None:
    """A file is copied, and stays where it was."""
    uri = f"file://{root}/sub/m%20m.gguf"
    digest = hashlib.sha256(b"weights").hexdigest()
    staged = await local.fetch(uri, sha256=digest.upper())

    assert (b"weights", digest, "m m.gguf") == (
        staged.path.read_bytes(),
        staged.sha256,
        staged.file_name,
    )
    assert 7 == (await local.facts(uri)).size_bytes
    assert (root / "sub" / "m m.gguf").is_file()


async def test_wrong_digest(local: Downloader, root: Path, staging: Path) -> None:
    """A file with another digest is not given."""
    with pytest.raises(DigestMismatchError):
        await local.fetch(f"file://{root}/sub/m%20m.gguf", sha256="0" * 64)
    assert [] == names(staging)


@pytest.mark.parametrize(
    "path",
    [
        "{root}/../secret",
        "{root}/link",
        "{root}/folder/secret",
        "/etc/passwd",
        "/nowhere",
        "secret",
    ],
)
async def test_outside(local: Downloader, root: Path, path: str) -> None:
    """No path and no link leads out, and whether something is there is not told."""
    (root / "link").symlink_to(root.parent / "secret")
    (root / "folder").symlink_to(root.parent)
    uri = "file://" + path.format(root=root)

    for attempt in (local.fetch(uri), local.facts(uri), local.read(uri, most_bytes=100)):
        with pytest.raises(SourceRefusedError, match="not in the models folder"):
            await attempt


async def test_no_file(local: Downloader, root: Path) -> None:
    """Inside, a missing file is told, and so is what is no plain file."""
    os.mkfifo(root / "pipe")
    for name, cause in (("none", "no such file"), ("sub", "no plain file"), ("pipe", "no plain")):
        with pytest.raises(DownloadFailedError, match=cause):
            await local.fetch(f"file://{root}/{name}")


async def test_no_roots(make: Make, root: Path) -> None:
    """Without allowed folders nothing is."""
    with pytest.raises(SourceRefusedError):
        await make().fetch(f"file://{root}/sub/m%20m.gguf")


async def test_read(local: Downloader, root: Path) -> None:
    """A document is read once, until it changes; one that is too large is not."""
    uri = f"file://{root}/sub/m%20m.gguf"
    document = await local.read(uri, most_bytes=7)
    assert document is not None
    assert b"weights" == document.content
    assert await local.read(uri, most_bytes=7, validators=document.validators) is None

    (root / "sub" / "m m.gguf").write_bytes(b"other weights")
    with pytest.raises(DownloadFailedError, match="larger than 7 bytes"):
        await local.read(uri, most_bytes=7, validators=Validators())
