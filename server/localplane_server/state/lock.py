"""The lock that keeps a second service out of a data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from localplane_server import errors


class DataDirLock:
    """Holds a data directory for one service, for as long as the context is open.

    The kernel releases it when the process ends, however that comes; no child inherits it.
    """

    def __init__(self, data_dir: Path) -> None:
        """Name a data directory. It is made when it is missing."""
        self._data_dir = data_dir
        self._file = -1

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            DataDirLockedError: If another process holds it.
            StartupError: If the directory cannot be used.
        """
        path = self._data_dir / "lock"
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise errors.StartupError(
                f"cannot use data directory {self._data_dir}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(file, 32)
            os.close(file)
            pid = int(holder) if holder.strip().isdigit() else None
            raise errors.DataDirLockedError(self._data_dir, pid) from error
        os.ftruncate(file, 0)
        os.write(file, b"%d\n" % os.getpid())
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lock. The file stays, as another service may have opened it by now."""
        os.close(self._file)
