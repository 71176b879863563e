"""Files of this machine, from the folders that the operator allows."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from localplane_server.downloads.progress import Document, Validators
from localplane_server.downloads.staging import check_space, storage_error
from localplane_server.errors import DownloadFailedError, SourceRefusedError

_COPY_BYTES = 4 * 1024 * 1024


def open_inside(path: str, roots: Sequence[Path], source: str) -> IO[bytes]:
    """Open a plain file, if it is inside one of the folders once all links are followed.

    Raises:
        SourceRefusedError: If it is not.
        DownloadFailedError: If there is none, or it cannot be read.
    """
    allowed = [root.resolve() for root in roots]
    try:
        target = Path(path).resolve(strict=True) if path.startswith("/") else None
    except (OSError, RuntimeError):
        target = None
        # Whether there is such a file is nobody's business, unless it would be inside.
        if any(Path(os.path.normpath(path)).is_relative_to(root) for root in (*allowed, *roots)):
            raise DownloadFailedError(source, "there is no such file") from None
    if target is None or not any(target.is_relative_to(root) for root in allowed):
        raise SourceRefusedError(
            source, "it is not in the models folder, the only one that files come from"
        )
    try:
        # Not following a link that was put there a moment ago, nor waiting for a pipe's other end.
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise DownloadFailedError(source, os.strerror(error.errno or 0)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DownloadFailedError(source, "it is no plain file")
    return os.fdopen(descriptor, "rb")


def read_document(
    path: str,
    roots: Sequence[Path],
    source: str,
    *,
    most_bytes: int,
    validators: Validators | None,
) -> Document | None:
    """Read a small file; None if it is the one that the validators are of.

    Raises:
        SourceRefusedError: If it is outside the folders.
        DownloadFailedError: If it cannot be read or is too large.
    """
    with open_inside(path, roots, source) as file:
        facts = os.fstat(file.fileno())
        found = Validators(etag=f'"{facts.st_ino:x}-{facts.st_size:x}-{facts.st_mtime_ns:x}"')
        if found == validators:
            return None
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise DownloadFailedError(source, f"it is larger than {most_bytes} bytes")
    return Document(content, found)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(path: Path, target: Path) -> None:
    """Give a file a second name, or make a copy where the file system knows no such thing.

    Raises:
        FileNotFoundError: If there is no such file.
        InsufficientStorageError: If the disk has not enough room for a copy, or became full.
    """
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:
        with path.open("rb") as file:
            copy_file(file, target, lambda _done, _total: None)


def copy_file(
    origin: IO[bytes], target: Path, report: Callable[[int, int], None]
) -> tuple[int, str]:
    """Copy an open file to the disk; return its size and its SHA-256.

    Args:
        origin: The file.
        target: Where to. What is there is replaced.
        report: Is told how many bytes are copied, and how many there are.

    Raises:
        InsufficientStorageError: If the disk has not enough room, or became full.
    """
    total = os.fstat(origin.fileno()).st_size
    check_space(target.parent, total)
    digest = hashlib.sha256()
    done = 0
    try:
        with target.open("wb") as file:
            while piece := origin.read(_COPY_BYTES):
                file.write(piece)
                digest.update(piece)
                done += len(piece)
                report(done, max(total, done))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise storage_error(error) from error
    return done, digest.hexdigest()
