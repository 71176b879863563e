"""Zips of strangers: opened within bounds, and whatever is wrong with one told as one kind of error."""

from __future__ import annotations

import errno
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO

from localplane_server.downloads.web import LARGEST_FILE

MOST_DIRECTORY_BYTES = 8 * 1024 * 1024
"""Bytes of the list of what is in a zip. What is kept of it takes about ten times as much memory."""
MOST_DICTIONARY = 256 * 1024 * 1024
"""Memory that unpacking a file may take, in bytes."""

_LONGEST_CAUSE = 200
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, IndexError, OverflowError, ValueError),
)
_NO_TROUBLE_OF_DISKS = frozenset({None, errno.EINVAL})
"""Numbers of errors that the library has where packed data are wrong, or lead before the beginning of the file."""
_HEAD = struct.Struct("<26xHH")
"""What stands before a file in a zip: at its end, the lengths of the name and of what is added to it."""
_LZMA_HEAD = struct.Struct("<5xL")
"""How data begin that are packed with LZMA: at its end, the size of the dictionary."""


@contextmanager
def told_as_one() -> Generator[None]:
    """Have what the library raises about damage of many kinds be `zipfile.BadZipFile`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_TROUBLE_OF_DISKS:
            raise
        raise zipfile.BadZipFile(_said(error)) from error
    except _DAMAGE as error:
        raise zipfile.BadZipFile(_said(error)) from error


def _said(error: Exception) -> str:
    """Return what the library says, which may repeat names of any length."""
    said = str(error)
    return said if len(said) <= _LONGEST_CAUSE else f"{said[:_LONGEST_CAUSE]}..."


@contextmanager
def opened(file: IO[bytes]) -> Generator[zipfile.ZipFile]:
    """Have an open file be a zip for as long as the context is open.

    Raises:
        zipfile.BadZipFile: If it is none, or the list of what is in it is too long.
    """
    with told_as_one():
        archive = zipfile.ZipFile(_Bounded(file))
    with archive:
        check_sizes(archive)
        yield archive


def check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuse a zip that says that more is in it than any disk holds.

    Raises:
        zipfile.BadZipFile: If so.
    """
    size = sum(one.file_size for one in archive.infolist())
    if size > LARGEST_FILE:
        raise zipfile.BadZipFile(f"it is said to hold {size} bytes")


def is_folder(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a folder. The library fails at one without a name."""
    return entry.filename.endswith("/")


def open_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    """Open a file in a zip.

    Raises:
        zipfile.BadZipFile: If it is damaged, or unpacking it takes too much memory.
        RuntimeError: If it is encrypted, or packed in a way that nobody here knows.
    """
    with told_as_one():
        if entry.compress_type == zipfile.ZIP_LZMA:
            _check_dictionary(archive, entry)
        return archive.open(entry)


def _check_dictionary(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Look at what the packed data ask for: the library gives it whatever it is."""
    file = archive.fp
    if file is None:
        raise ValueError("it is closed")
    file.seek(entry.header_offset)
    file.seek(sum(_HEAD.unpack(file.read(_HEAD.size))), io.SEEK_CUR)
    (wanted,) = _LZMA_HEAD.unpack(file.read(_LZMA_HEAD.size))
    if wanted > MOST_DICTIONARY:
        raise zipfile.BadZipFile(f"unpacking it takes {wanted} bytes of memory")


class _Bounded(io.RawIOBase):
    """A file of which no more is read at once than a directory may have."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere."""
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            zipfile.BadZipFile: If they are too many.
        """
        if size > MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory has more than {MOST_DIRECTORY_BYTES} bytes")
        return self._file.read(size)
