"""The models folder, as whoever changes it sees it: nothing outside it is read, written or deleted."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from localplane_server.errors import InstallFailedError

CHUNK_BYTES = 1 << 20
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Place(NamedTuple):
    """Where a file is: an open folder, and the name in it."""

    folder: int
    name: str


class ModelsFolder:
    """The models folder.

    Every path is walked from it folder by folder, and a folder that is a symbolic link is not entered: it may be
    exchanged at any moment for one that leads elsewhere. The models folder itself may be a link. A link in the place
    of a file is replaced or removed itself, and never followed.

    All of it blocks.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        """The folder."""

    @contextmanager
    def place(self, path: str, *, is_made: bool = False) -> Generator[Place]:
        """Open the folder that a path below this one leads to.

        Args:
            path: The path of a file, checked before.
            is_made: Whether folders on the way are made where there are none.

        Raises:
            FileNotFoundError: If a folder is missing.
            InstallFailedError: If what should be a folder is something else.
        """
        *folders, name = path.split("/")
        folder = os.open(self.root, FOLDER)
        try:
            for one in folders:
                below = _entered(folder, one, path, is_made=is_made)
                os.close(folder)
                folder = below
            yield Place(folder, name)
        finally:
            os.close(folder)

    def stat(self, path: str) -> os.stat_result | None:
        """Return what is at a path, itself and not what it links to, or None."""
        try:
            with self.place(path) as place:
                return os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def size(self, path: str) -> int | None:
        """Return the size of the regular file at a path, or None where there is none."""
        found = self.stat(path)
        return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None

    def read_text(self, path: str, *, most_bytes: int) -> str | None:
        """Return the text of a regular file, or None when there is none, it is too large or no UTF-8."""
        try:
            with self.place(path) as place:
                descriptor = os.open(
                    place.name,
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                    dir_fd=place.folder,
                )
            # Of a folder no file object can be made, which would leave the descriptor open.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                return None
            with os.fdopen(descriptor, "rb") as file:
                content = file.read(most_bytes + 1)
            return content.decode() if len(content) <= most_bytes else None
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        except OSError as error:
            # A link, or a socket.
            if error.errno in (errno.ELOOP, errno.ENXIO):
                return None
            raise

    def sha256(self, path: str, advance: Callable[[int], None]) -> str | None:
        """Return the SHA-256 of the regular file at a path, or None where there is none.

        Args:
            path: Of the file.
            advance: Is told how many more bytes were read; what it raises ends the reading.
        """
        if self.size(path) is None:
            return None
        with self.place(path) as place:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(place.name, flags, dir_fd=place.folder)
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                advance(len(chunk))
        return digest.hexdigest()

    def configurations(self) -> Iterator[str]:
        """Return the names of the files that are, or may be, models' configurations, in order."""
        return (one for one in self._names() if one.endswith((".yaml", ".yml")) and one[0] != ".")

    def gallery_files(self) -> Iterator[str]:
        """Return the names of the files that say how models were installed, in order."""
        return (one for one in self._names() if one.startswith("._gallery_"))

    def remove_empty_folders(self, path: str) -> None:
        """Remove the folders on the way to a file that is gone, as far as nothing else is in them."""
        parts = path.split("/")[:-1]
        while parts:
            try:
                with self.place("/".join(parts)) as place:
                    os.rmdir(place.name, dir_fd=place.folder)
            except (OSError, InstallFailedError):
                return
            parts.pop()

    def _names(self) -> list[str]:
        try:
            return sorted(one.name for one in os.scandir(self.root))
        except FileNotFoundError:
            return []


def _entered(folder: int, name: str, path: str, *, is_made: bool) -> int:
    try:
        try:
            return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            if not is_made:
                raise
            os.mkdir(name, 0o755, dir_fd=folder)
            os.fsync(folder)
            return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        message = f"cannot use {path} below the models folder: {name} is not a folder of its own"
        raise InstallFailedError(message, file=path) from error
