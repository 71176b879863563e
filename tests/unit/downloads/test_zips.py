"""Zips of strangers: what is wrong with one, and what would take too much memory."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Mapping
from contextlib import suppress

import pytest

from localplane_server.downloads import zips
from localplane_server.downloads.zips import is_folder, open_member, opened, told_as_one

KINDS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def packed(members: Mapping[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def read(content: bytes, member: str = "x") -> bytes:
    with (
        opened(io.BytesIO(content)) as archive,
        open_member(archive, archive.getinfo(member)) as file,
        told_as_one(),
    ):
        return file.read(1 << 20)


@pytest.mark.parametrize("kind", KINDS)
def test_reads(kind: int) -> None:
    """What is in it comes out, however it is packed."""
    assert b"weights" * 100 == read(packed({"a": b"b", "x": b"weights" * 100}, kind))


@pytest.mark.parametrize("seed", range(300))
def test_damaged(seed: int) -> None:
    """However it is damaged, there is one error for it, or two more for what nobody can read."""
    rolled = random.Random(seed)  # noqa: S311 - no secret
    content = bytearray(packed({"x": b"abc" * 100, "ü": b"y" * 50}, rolled.choice(KINDS)))
    for _ in range(rolled.choice([1, 3])):
        place = rolled.choice(
            [rolled.randrange(len(content)), len(content) - rolled.randrange(1, 120)]
        )
        content[place] = rolled.choice([0, 255, rolled.randrange(256)])

    with suppress(zipfile.BadZipFile, RuntimeError, KeyError):
        read(bytes(content))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        pytest.param(b"x\xc3", b"x\xff", id="name-that-is-no-text"),
        pytest.param(b"PK\x01\x02", b"PK\x01\x03", id="no-directory"),
    ],
)
def test_damage_is_told_as_one(place: bytes, value: bytes) -> None:
    """The library has errors of many kinds; here is one."""
    content = packed({"xü": b"abc"}).replace(place, value)
    with pytest.raises(zipfile.BadZipFile):
        read(content, "xü")


def test_trouble_of_the_disk() -> None:
    """A disk that fails is no damage of the zip."""
    with pytest.raises(OSError, match="Input/output"), told_as_one():
        raise OSError(5, "Input/output error")
    with pytest.raises(zipfile.BadZipFile, match="Invalid data stream"), told_as_one():
        raise OSError("Invalid data stream")


def test_long_names_are_not_repeated() -> None:
    """A name of any length does not make a message of any length."""
    content = packed({"n" * 60_000: b"abc"})
    with pytest.raises(zipfile.BadZipFile, match="File name") as caught:
        read(b"PK\x03\x04" + content[4:].replace(b"nnn", b"mmm", 1), "n" * 60_000)
    assert len(str(caught.value)) < 300


def test_no_name() -> None:
    """A file without a name is no folder."""
    content = packed({"x": b"abc"}).replace(b"x", b"\0")
    with opened(io.BytesIO(content)) as archive:
        assert [False] == [is_folder(one) for one in archive.infolist()]
        assert [""] == [one.filename for one in archive.infolist()]


def test_long_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of files without end is not read into memory."""
    monkeypatch.setattr(zips, "MOST_DIRECTORY_BYTES", 100_000)
    content = packed({f"{number:01000}": b"" for number in range(120)})

    with pytest.raises(zipfile.BadZipFile, match="more than 100000 bytes"):
        read(content)


def test_huge_sizes() -> None:
    """Sizes that no disk has are not believed."""
    content = packed({"x": b"abc"})
    at = content.index(b"PK\x01\x02")
    entry = bytearray(content[at : content.index(b"PK\x05\x06")])
    entry[24:28] = b"\xff" * 4
    entry[30:32] = struct.pack("<H", 12)
    entry += struct.pack("<HHQ", 1, 8, 2**63)
    end = bytearray(content[content.index(b"PK\x05\x06") :])
    end[12:16] = struct.pack("<L", len(entry))

    with pytest.raises(zipfile.BadZipFile, match="said to hold 9223372036854775808 bytes"):
        read(content[:at] + bytes(entry) + bytes(end))


def test_dictionary() -> None:
    """What would take any memory to be unpacked is not begun."""
    content = bytearray(packed({"x": b"abc" * 1000}, zipfile.ZIP_LZMA))
    at = 30 + len("x") + 5
    assert 8 << 20 == int.from_bytes(content[at : at + 4], "little")
    content[at : at + 4] = b"\xff" * 4

    with pytest.raises(zipfile.BadZipFile, match="4294967295 bytes of memory"):
        read(bytes(content))
