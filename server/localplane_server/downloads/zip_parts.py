"""Zips that stay where they are: what is in them, and how their files begin, from as few of their bytes as will do."""

from __future__ import annotations

import asyncio
import errno
import io
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import IO, TypeVar

from localplane_server.downloads.patience import TransferError
from localplane_server.downloads.zips import check_sizes, is_folder, opened, told_as_one
from localplane_server.errors import DownloadFailedError

TAIL_BYTES = 128 * 1024
"""How much of the end is read first: the directory of most zips is in it."""
MOST_BYTES = 8 * 1024 * 1024
"""How much is read of a zip at most to find out one thing."""
MOST_PIECES = 16
"""In how many pieces at most."""
_LEAST_BYTES = 64 * 1024
"""The least that is read at once when more is needed than was thought."""
_HEAD_BYTES = 1024
"""What stands before the data of a file, besides its name, and what packing adds to it: less than this as a rule."""
_BLOCK_BYTES = 4096
"""The least that the library reads of a file."""
_ENCRYPTED = 0x1
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, OSError)
"""What is raised about a zip that is not as it should be."""

Read = Callable[[int, int], Awaitable[bytes]]
"""Gives what a file has from one byte to before another."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in a zip, as the zip's directory has it."""

    name: str
    """Its path in the zip."""
    size_bytes: int
    """Its size once it is unpacked."""


class ZipParts:
    """A zip that is read in parts. Its directory, once it is known, is kept; other parts are not."""

    def __init__(self, size_bytes: int) -> None:
        """Set up; nothing is read before the first use.

        Args:
            size_bytes: Its size.
        """
        self.size_bytes = size_bytes
        """Its size."""
        self._file = _Parts(size_bytes)
        self._listed: zipfile.ZipFile | None = None
        self._turn = asyncio.Lock()

    async def members(self, read: Read) -> list[ZipMember]:
        """Return the files in it, without folders.

        Raises:
            TransferError: If its directory cannot be had, or is none.
        """
        async with self._turn:
            return _members(await self._archive(read))

    async def size_of(self, read: Read, member: str) -> int:
        """Return the size of a file in it.

        Raises:
            TransferError: If there is no such file, or the directory cannot be had.
        """
        async with self._turn:
            return _entry(await self._archive(read), member).file_size

    async def beginning(self, read: Read, member: str, most_bytes: int) -> bytes:
        """Return the first bytes of a file in it, unpacked.

        Raises:
            TransferError: If there is no such file, it cannot be had, or it is packed so that nobody knows how much
                comes out of a part of it.
        """
        async with self._turn:
            archive = await self._archive(read)
            entry = _entry(archive, member)
            if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _PLAIN:
                raise TransferError(
                    f"{member} is packed so that it comes as a whole only", is_lasting=True
                )

            def unpacked() -> bytes:
                with archive.open(entry) as file:
                    return file.read(min(most_bytes, entry.file_size))

            packed = min(entry.compress_size, max(most_bytes, _BLOCK_BYTES))
            start = entry.header_offset
            if start < 0:
                raise TransferError(f"{member} is said to be before its beginning", is_lasting=True)
            stop = start + _HEAD_BYTES + len(entry.orig_filename.encode()) + packed
            return await self._read(read, unpacked, start, stop)

    async def _archive(self, read: Read) -> zipfile.ZipFile:
        if self._listed is None:
            size = self._file.size_bytes
            start = max(0, size - TAIL_BYTES)
            self._listed = await self._read(read, self._list, start, size)
        return self._listed

    def _list(self) -> zipfile.ZipFile:
        archive = zipfile.ZipFile(self._file)
        check_sizes(archive)
        return archive

    async def _read(
        self, read: Read, attempt: Callable[[], _Result], start: int, stop: int
    ) -> _Result:
        """Read a part, then what else an attempt turns out to need, until it works."""
        try:
            while True:
                await self._fetch(read, start, stop)
                try:
                    with told_as_one():
                        return await asyncio.to_thread(attempt)
                except _MissingError as missing:
                    start, stop = missing.start, max(missing.stop, missing.start + _LEAST_BYTES)
        except _DAMAGE as error:
            raise TransferError(
                f"it is no zip that can be read: {error}", is_lasting=True
            ) from error
        finally:
            self._file.clear()

    async def _fetch(self, read: Read, start: int, stop: int) -> None:
        file = self._file
        stop = min(stop, file.size_bytes)
        if stop <= start:
            return
        if file.pieces >= MOST_PIECES or file.held_bytes + stop - start > MOST_BYTES:
            cause = f"more than {MOST_BYTES} bytes of it would have to be read to look into it"
            raise TransferError(cause, is_lasting=True)
        file.put(start, await read(start, stop))


def members_of(file: IO[bytes], source: str) -> list[ZipMember]:
    """Return the files in a zip of this machine, without folders. Blocks.

    Args:
        file: The zip, open.
        source: What to call it in errors.

    Raises:
        DownloadFailedError: If it is none.
    """
    try:
        with opened(file) as archive:
            return _members(archive)
    except _DAMAGE as error:
        raise DownloadFailedError(source, f"it is no zip that can be read: {error}") from error


def _members(archive: zipfile.ZipFile) -> list[ZipMember]:
    return [
        ZipMember(one.filename, one.file_size) for one in archive.infolist() if not is_folder(one)
    ]


def _entry(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(member)
    except KeyError:
        raise TransferError(f"there is no file {member} in it", is_lasting=True) from None


class _MissingError(Exception):
    """Something is to be read that is not here."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start = start
        self.stop = stop


class _Parts(io.RawIOBase):
    """A file of which only parts are here."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.size_bytes = size_bytes
        self._parts: list[tuple[int, bytes]] = []
        self._at = 0

    @property
    def pieces(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    @property
    def held_bytes(self) -> int:
        """How many bytes they are."""
        return sum(len(part) for _, part in self._parts)

    def put(self, start: int, part: bytes) -> None:
        """Add what is from some byte on."""
        self._parts.append((start, part))

    def clear(self) -> None:
        """Forget all parts."""
        self._parts.clear()

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size_bytes}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "it leads before the beginning")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes.

        Raises:
            _MissingError: If they are not here.
        """
        start = self._at
        stop = self.size_bytes if size is None or size < 0 else min(start + size, self.size_bytes)
        if stop <= start:
            return b""
        found = self._part(start, stop)
        if found is None:
            raise _MissingError(start, stop)
        self._at = stop
        return found

    def _part(self, start: int, stop: int) -> bytes | None:
        for begin, part in self._parts:
            if begin <= start and stop <= begin + len(part):
                return part[start - begin : stop - begin]
        return None
