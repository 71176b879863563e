"""What is in a zip, and how its files begin, from parts of it."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Mapping
from contextlib import suppress

import pytest

from localplane_server.downloads import zip_parts
from localplane_server.downloads.patience import TransferError
from localplane_server.downloads.zip_parts import ZipMember, ZipParts, members_of
from localplane_server.errors import DownloadFailedError

NOISE = random.Random(3).randbytes(2 << 20)  # noqa: S311 - no secret
TEXT = b"GGUF and so on, again and again. " * 50_000


class Far:
    """A zip that is elsewhere, and what was read of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []
        self.parts = ZipParts(len(content))

    async def read(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.content)
        self.asked.append((start, stop))
        return self.content[start:stop]

    @property
    def read_bytes(self) -> int:
        return sum(stop - start for start, stop in self.asked)

    async def members(self) -> list[ZipMember]:
        return await self.parts.members(self.read)

    async def beginning(self, member: str, most_bytes: int = 1000) -> bytes:
        return await self.parts.beginning(self.read, member, most_bytes)


def packed(members: Mapping[str, bytes], *, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


async def test_members() -> None:
    """Names and sizes come from the end of it, folders left out, and are asked for once."""
    far = Far(packed({"noise": NOISE, "folder/": b"", "folder/text": TEXT}))

    found = await far.members()

    assert [ZipMember("noise", len(NOISE)), ZipMember("folder/text", len(TEXT))] == found
    assert [(len(far.content) - zip_parts.TAIL_BYTES, len(far.content))] == far.asked
    assert len(TEXT) == await far.parts.size_of(far.read, "folder/text")
    assert 1 == len(far.asked)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("most_bytes", [1, 1000, 70_000, 1 << 20, 4 << 20])
async def test_beginning(kind: int, most_bytes: int) -> None:
    """The first bytes of a file are read and unpacked, and hardly more than them."""
    far = Far(packed({"first": NOISE, "text": TEXT, "noise": NOISE}, kind=kind))
    await far.members()
    listed = far.read_bytes

    assert TEXT[:most_bytes] == await far.beginning("text", most_bytes)
    assert NOISE[:most_bytes] == await far.beginning("noise", most_bytes)
    assert far.read_bytes - listed <= 2 * (max(most_bytes, 4096) + 2048)


async def test_long_names() -> None:
    """What stands before a file may be larger than it mostly is."""
    name = "n" * 60_000
    far = Far(packed({name: TEXT}, kind=zipfile.ZIP_STORED))

    assert TEXT[:9] == await far.beginning(name, 9)

    info = zipfile.ZipInfo("x")
    info.extra = b"\xfe\xca\xf0\xf0" + bytes(0xF0F0)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(info, TEXT)

    assert TEXT[:9] == await Far(content.getvalue()).beginning("x", 9)


async def test_many_files() -> None:
    """A directory that is longer than what is read first is read whole; one without end is not."""
    far = Far(packed({f"{number:0100}": b"" for number in range(2000)}))

    assert 2000 == len(await far.members())
    assert 2 == len(far.asked)

    many = packed({f"{number:060000}": b"" for number in range(150)})
    with pytest.raises(TransferError, match="more than 8388608 bytes") as caught:
        await Far(many).members()
    assert caught.value.is_lasting


@pytest.mark.parametrize("size", [0, 1, 21, 22, 100_000])
async def test_no_zip(size: int) -> None:
    """What is none is told as such, and not asked for again."""
    with pytest.raises(TransferError, match="no zip that can be read") as caught:
        await Far(NOISE[:size]).members()
    assert caught.value.is_lasting


async def test_refused() -> None:
    """A file that is not there, or of which nobody knows how much comes out of a part."""
    content = packed({"x": TEXT}, kind=zipfile.ZIP_LZMA)

    with pytest.raises(TransferError, match="no file y in it"):
        await Far(content).beginning("y")
    with pytest.raises(TransferError, match="as a whole only"):
        await Far(content).beginning("x")


async def test_strange_entries() -> None:
    """A file without a name is one; sizes that no disk has are not believed."""
    whole = packed({"x": TEXT})
    assert [ZipMember("", len(TEXT))] == await Far(whole.replace(b"x", b"\0")).members()

    at = whole.index(b"PK\x01\x02")
    entry = bytearray(whole[at : whole.index(b"PK\x05\x06")])
    entry[24:28], entry[30:32] = b"\xff" * 4, b"\x0c\0"
    entry += b"\x01\0\x08\0" + (1 << 63).to_bytes(8, "little")
    end = bytearray(whole[whole.index(b"PK\x05\x06") :])
    end[12:16] = len(entry).to_bytes(4, "little")
    lying = whole[:at] + bytes(entry) + bytes(end)

    with pytest.raises(TransferError, match="said to hold 9223372036854775808 bytes") as caught:
        await Far(lying).members()
    assert caught.value.is_lasting
    with pytest.raises(DownloadFailedError, match="said to hold"):
        members_of(io.BytesIO(lying), "y")


@pytest.mark.parametrize("seed", range(150))
async def test_damaged(seed: int) -> None:
    """However it is damaged, it is read or refused, within bounds."""
    rolled = random.Random(seed)  # noqa: S311 - no secret
    content = bytearray(packed({"x": TEXT, "noise": NOISE[:100_000]}))
    for _ in range(rolled.choice([1, 3, 30])):
        place = rolled.choice([rolled.randrange(len(content)), -rolled.randrange(1, 200)])
        content[place] = rolled.randrange(256)
    far = Far(bytes(content))

    with suppress(TransferError):
        assert len(await far.beginning("x", 5000)) <= 5000
    assert len(far.asked) <= 2 * zip_parts.MOST_PIECES
    assert far.read_bytes <= 2 * zip_parts.MOST_BYTES


def test_local() -> None:
    """One of this machine is looked into the same way."""
    assert [ZipMember("x", 3)] == members_of(io.BytesIO(packed({"x": b"abc"})), "y")
    with pytest.raises(DownloadFailedError, match="cannot download y: it is no zip"):
        members_of(io.BytesIO(b"none"), "y")
