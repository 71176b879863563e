"""Unpacking archives of strangers: plain files only, below one folder, and no more than was to be expected."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from localplane_server.downloads.zips import (
    MOST_DICTIONARY,
    is_folder,
    open_member,
    opened,
    told_as_one,
)
from localplane_server.errors import ArchiveRefusedError, InvalidArgumentError
from localplane_server.gallery.installs.file_names import check_file_name, shown

CHUNK_BYTES = 1 << 20
LARGEST_HEADER = 1 << 20
"""Bytes of the largest header of a member."""
MOST_MEMBERS = 10_000
MOST_TIMES = 100
"""How many times as large as an archive what is in it may be."""
ALWAYS_ALLOWED = 64 << 20
"""Bytes that what is in it may have however small the archive is: text packs well."""

ZIPS = (".zip",)
TARS = (
    *(".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz"),
    *(".tar.lzma", ".tlz"),
)


class Readable(Protocol):
    """Bytes, one after the other."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most so many; none at the end."""


class Unpacked(NamedTuple):
    """A file that came out of an archive."""

    name: str
    """Where it belongs, below the models folder."""

    path: Path
    """Where it is."""

    size_bytes: int
    """Its size."""


def is_archive(name: str) -> bool:
    """Whether a file is unpacked when it is installed, by its name."""
    return name.lower().endswith((*ZIPS, *TARS))


def is_zip(name: str) -> bool:
    """Whether an archive has a list of what is in it, by its name."""
    return name.lower().endswith(ZIPS)


def is_left_out(member: str) -> bool:
    """Whether a file in an archive is left out when that is unpacked."""
    return any(part.startswith(".") for part in member.split("/") if part != ".")


def unpack(
    archive: Path, name: str, into: Path, *, free_bytes: int, advance: Callable[[int], None]
) -> list[Unpacked]:
    """Unpack an archive into an empty folder and return what came out, whole and on disk.

    Hidden files in it, such as those that macOS adds, are left out. Everything else that is no plain file or folder
    is refused, and the archive with it.

    Args:
        archive: Where it is.
        name: Where it belongs, below the models folder. What is in it belongs beside it.
        into: The folder.
        free_bytes: What may be written.
        advance: Is told how many more bytes of the archive were read; what it raises ends the work.

    Raises:
        ArchiveRefusedError: If it is damaged, or holds what it may not.
    """
    allowance = _Allowance(name, archive.stat().st_size, free_bytes)
    found: list[Unpacked] = []
    names: set[str] = set()
    try:
        with archive.open("rb") as file:
            reading = _Reading(file, advance)
            for member, content in _members(file, name, allowance):
                if is_left_out(member):
                    continue
                target = _place(name, member)
                if target in names or target == name:
                    raise ArchiveRefusedError(name, f"it holds {shown(member)} twice")
                names.add(target)
                path = into / member
                size = _write(content, path, allowance, reading)
                found.append(Unpacked(target, path, size))
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveRefusedError(name, "it holds a file and a folder of one name") from error
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ArchiveRefusedError(name, f"it is damaged: {error}") from error
    except (gzip.BadGzipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArchiveRefusedError(name, f"it cannot be read: {error}") from error
    return found


class _Reading:
    """How far an archive was read."""

    def __init__(self, file: IO[bytes], advance: Callable[[int], None]) -> None:
        self._file = file
        self._advance = advance
        self._furthest = 0

    def move(self) -> None:
        """Tell how much further it is."""
        at = max(self._furthest, self._file.tell())
        more, self._furthest = at - self._furthest, at
        self._advance(more)


class _Allowance:
    """How much may come out of an archive."""

    def __init__(self, name: str, archive_bytes: int, free_bytes: int) -> None:
        self._name = name
        self._most = max(ALWAYS_ALLOWED, archive_bytes * MOST_TIMES)
        self._free = free_bytes
        self._read = 0
        self._written = 0
        self._members = 0

    def member(self) -> None:
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise ArchiveRefusedError(self._name, f"it holds more than {MOST_MEMBERS} files")

    def read(self, size: int) -> None:
        self._read += size
        if self._read > self._most:
            raise ArchiveRefusedError(
                self._name, f"it holds more than {MOST_TIMES} times its own size"
            )

    def write(self, size: int) -> None:
        self._written += size
        if self._written > self._free:
            raise ArchiveRefusedError(
                self._name, f"what it holds does not fit into the {self._free} bytes that are free"
            )


def _place(archive: str, member: str) -> str:
    folder, slash, _ = archive.rpartition("/")
    try:
        return check_file_name(f"{folder}{slash}{member}", field="files")
    except InvalidArgumentError as error:
        raise ArchiveRefusedError(archive, error.message) from error


def _write(content: Readable, path: Path, allowance: _Allowance, reading: _Reading) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    size = 0
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            allowance.write(len(chunk))
            file.write(chunk)
            size += len(chunk)
            reading.move()
        file.flush()
        os.fsync(file.fileno())
    return size


def _members(
    archive: IO[bytes], name: str, allowance: _Allowance
) -> Iterator[tuple[str, Readable]]:
    if is_zip(name):
        return _zip_members(archive, name, allowance)
    return _tar_members(archive, name, allowance)


def _zip_members(
    archive: IO[bytes], name: str, allowance: _Allowance
) -> Iterator[tuple[str, Readable]]:
    with opened(archive) as content:
        for one in content.infolist():
            allowance.member()
            # The library cuts a name at a NUL, and what it cuts off says something, too.
            member = _checked(name, one.orig_filename)
            kind = stat.S_IFMT(one.external_attr >> 16)
            if is_folder(one):
                continue
            if kind not in (0, stat.S_IFREG):
                raise ArchiveRefusedError(name, f"{shown(member)} in it is a link or a device")
            with open_member(content, one) as file:
                yield member, _Counted(file, allowance)


def _tar_members(
    archive: IO[bytes], name: str, allowance: _Allowance
) -> Iterator[tuple[str, Readable]]:
    with (
        _decompressed(archive, name) as stream,
        tarfile.open(fileobj=_Forward(stream, name, allowance), mode="r:") as content,  # type: ignore[call-overload]
    ):
        # One after the other, and forgotten: a list of all of them could be as long as the archive likes.
        while (one := content.next()) is not None:
            content.members = []
            allowance.member()
            member = _checked(name, one.name)
            if one.isdir():
                continue
            if not one.isreg() or one.issparse():
                raise ArchiveRefusedError(name, f"{shown(member)} in it is a link or a device")
            file = content.extractfile(one)
            if file is None:
                raise ArchiveRefusedError(name, f"{shown(member)} in it is no file")
            yield member, file


def _checked(archive: str, member: str) -> str:
    """Return the name of a member without what says only `here`; the rest is checked where it is used."""
    if member.startswith("/") or "\\" in member or "\0" in member or ".." in member.split("/"):
        raise ArchiveRefusedError(archive, f"{shown(member)} in it leads elsewhere")
    return "/".join(part for part in member.split("/") if part not in ("", "."))


@contextmanager
def _decompressed(archive: IO[bytes], name: str) -> Generator[Readable]:
    lower = name.lower()
    if lower.endswith((".gz", ".tgz")):
        with gzip.GzipFile(fileobj=archive) as stream:
            yield stream
    elif lower.endswith((".bz2", ".tbz2", ".tbz")):
        with bz2.BZ2File(archive) as stream:
            yield stream
    elif lower.endswith((".xz", ".txz", ".lzma", ".tlz")):
        yield io.BufferedReader(_Lzma(archive))
    else:
        yield archive


class _Lzma(io.RawIOBase):
    """What an xz file holds, with a limit on the memory that it takes, which the library's own reader lacks."""

    def __init__(self, file: Readable) -> None:
        super().__init__()
        self._file = file
        self._decompressor = lzma.LZMADecompressor(memlimit=MOST_DICTIONARY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decompressor.eof:
            given = self._file.read(CHUNK_BYTES) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not given:
                raise EOFError("it ends too early")
            data = self._decompressor.decompress(given, max_length=len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0


class _Counted:
    """A file in an archive, of which everything that is read is counted."""

    def __init__(self, file: Readable, allowance: _Allowance) -> None:
        self._file = file
        self._allowance = allowance

    def read(self, size: int) -> bytes:
        with told_as_one():
            data = self._file.read(size)
        self._allowance.read(len(data))
        return data


class _Forward:
    """A stream that the library may read and skip in, but not swallow at once."""

    def __init__(self, stream: Readable, name: str, allowance: _Allowance) -> None:
        self._stream = stream
        self._name = name
        self._allowance = allowance
        self._at = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if size > LARGEST_HEADER:
            raise ArchiveRefusedError(self._name, "a header in it is too large")
        try:
            data = self._stream.read(size)
        except OSError as error:
            # Not the disk: the library says so of packed data that are damaged.
            if error.errno is not None:
                raise
            raise ArchiveRefusedError(self._name, f"it is damaged: {error}") from error
        self._at += len(data)
        self._allowance.read(len(data))
        return data

    def seek(self, position: int) -> int:
        if position < self._at:
            raise ArchiveRefusedError(self._name, "its headers lead backwards")
        while self._at < position and self.read(min(CHUNK_BYTES, position - self._at)):
            pass
        return self._at
