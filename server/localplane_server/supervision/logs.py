"""The logs of all backends: where each is, how long they are kept, and the last lines of one."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from localplane_server.supervision.log_files import (
    DEFAULT_LIMITS,
    LogLimits,
    existing,
    last_record,
)
from localplane_server.supervision.log_reader import LogReader
from localplane_server.supervision.log_record import ERRORS, MORE, OUTPUT, STARTED

_logger = logging.getLogger(__name__)

KEEP_SECONDS = 30 * 86400.0
"""How long a log is kept to which nothing is written."""
KEEP_LOGS = 100
"""How many logs are kept; beyond, the ones go that were not written to for the longest time."""

_TAIL_RECORDS = 256
_LINE_CHARACTERS = 4096
_LONGEST_FILE_NAME = 200
_FILE = re.compile(r"(.+\.log)(?:\.\d+|\.new)?")
_SEQUENCE_FILE = "first-sequence"


class LogArchive:
    """The logs in one folder, one for each model that ever had a backend.

    Args:
        folder: The folder. It is made with the first log.
        limits: How large each log may get.
        now: The clock, in seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        limits: LogLimits = DEFAULT_LIMITS,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._now = now

    def path(self, model: str) -> Path:
        """Return where the output of a model's backend goes."""
        name = quote(model, safe=" ")
        if len(name) > _LONGEST_FILE_NAME:
            name = f"{name[:_LONGEST_FILE_NAME]}-{hashlib.sha256(model.encode()).hexdigest()[:16]}"
        return self._folder / f"{name}.log"

    def limits(self) -> LogLimits:
        """Return how large a log may get, and where its sequence begins."""
        return self._limits._replace(first_sequence=self._first_sequence())

    def has(self, model: str) -> bool:
        """Whether a backend of the model has ever written anything that is still there."""
        return bool(existing(os.fspath(self.path(model))))

    def remove_old(self) -> list[str]:
        """Remove logs that were kept long enough, and return their names. Those in use stay."""
        written = self._written()
        names = sorted(written, key=lambda name: (-written[name], name))
        old = self._now() - KEEP_SECONDS
        surplus = [name for at, name in enumerate(names) if at >= KEEP_LOGS or written[name] < old]
        return [name for name in surplus if self._remove(name)]

    def _written(self) -> dict[str, float]:
        """Return when each log was written to for the last time."""
        written: dict[str, float] = {}
        try:
            files = list(os.scandir(self._folder))
        except FileNotFoundError:
            return {}
        for file in files:
            found = _FILE.fullmatch(file.name)
            if found is not None:
                with suppress(FileNotFoundError):
                    at = file.stat().st_mtime
                    written[found[1]] = max(at, written.get(found[1], 0.0))
        return written

    def _remove(self, name: str) -> bool:
        path = os.fspath(self._folder / name)
        try:
            with Path(path).open("rb") as current:
                # Whoever writes it holds the lock, however long it has had nothing to write.
                fcntl.flock(current, fcntl.LOCK_EX | fcntl.LOCK_NB)
                last = last_record(current.fileno())
                if last is not None:
                    self._go_on_after(last.sequence)
                # The oldest first: what is left after an interruption is still a log.
                for file in reversed(existing(path)):
                    Path(file).unlink()
        except BlockingIOError:
            return False
        except OSError:
            _logger.warning("cannot remove an old log", exc_info=True, extra={"log": name})
            return False
        return True

    def _first_sequence(self) -> int:
        try:
            return int((self._folder / _SEQUENCE_FILE).read_text())
        except (OSError, ValueError):
            return 1  # no log was ever removed

    def _go_on_after(self, sequence: int) -> None:
        """Have logs begin behind every sequence of a log that is removed, so that none means two records."""
        if sequence >= self._first_sequence():
            new = self._folder / f"{_SEQUENCE_FILE}.new"
            new.write_text(str(sequence + 1))
            new.replace(self._folder / _SEQUENCE_FILE)


def tail(
    path: str | os.PathLike[str], *, lines: int = 20, spawn_id: str | None = None
) -> list[str]:
    """Return the last lines that were written to a log, oldest first, without the marks between them.

    Looks at the last 256 records. Bytes that are not UTF-8 are replaced, long lines are cut. A log
    that does not exist is empty.

    Args:
        path: The log.
        lines: How many lines at most.
        spawn_id: Return only output of this spawn, however little that is.
    """
    if not lines:
        return []
    found: list[bytes] = []
    unfinished: dict[str, int] = {}
    with closing(LogReader(path)) as reader:
        reader.seek_last(_TAIL_RECORDS)
        while records := reader.read():
            for record in records:
                stream = record.kind.removesuffix(MORE)
                if stream == STARTED:
                    unfinished.clear()
                    if spawn_id is not None and record.text.endswith(spawn_id.encode()):
                        found.clear()
                elif stream in (OUTPUT, ERRORS):
                    at = unfinished.pop(stream, len(found))
                    found[at:] = [b"".join((*found[at : at + 1], record.text)), *found[at + 1 :]]
                    if record.kind.endswith(MORE):
                        unfinished[stream] = at
    return [line.decode(errors="replace")[:_LINE_CHARACTERS] for line in found[-lines:]]
