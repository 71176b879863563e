"""Unfinished files on disk, each with a journal of what is in it, so that nothing is fetched twice."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from localplane_server.downloads.ranges import ByteRanges
from localplane_server.errors import InsufficientStorageError

SPARE_BYTES = 64 * 1024 * 1024
"""What a download leaves free of the disk."""

_VERSION = 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MOST_PIECES = 1024
"""How many the system writes at once: IOV_MAX, the same on every Linux."""
_PART, _JOURNAL, _WHOLE = ".part", ".journal", ".whole"


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one state of a remote file from another."""

    size_bytes: int | None = None
    """Its size."""
    etag: str = ""
    """The server's tag of it."""
    last_modified: str = ""
    """When it changed last, as the server wrote it."""

    @property
    def condition(self) -> str:
        """What `If-Range` can hold: only a tag that means these very bytes, or else a date."""
        return "" if self.etag.startswith("W/") else self.etag or self.last_modified

    def is_changed(self, other: Identity) -> bool:
        """Whether another answer is surely about another state of the file."""
        pairs = (
            (self.size_bytes, other.size_bytes),
            (self.etag, other.etag),
            # Servers behind one name can disagree in the date of what is the same.
            (self.last_modified, other.last_modified) if not self.etag else (None, None),
        )
        return any(mine and theirs and mine != theirs for mine, theirs in pairs)


def key_of(uri: str, sha256: str) -> str:
    """Return the name that a file has while it is staged."""
    return hashlib.sha256(f"{uri}\n{sha256.lower()}".encode()).hexdigest()[:40]


class StagedPart:
    """A file that is being fetched. Open from `open` on, locked against other processes.

    What is written is noted after it was written, by appending a line: when the process is killed, all that is noted is
    in the file. When the machine stops, only what was synchronised before is trusted; the journal says what
    that is, and in which run of the machine it was written.

    Its methods block. `write` may run in several threads at once, the rest may not.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self.path = folder / (key + _PART)
        """Where it is."""
        self.whole = folder / (key + _WHOLE)
        """Where it is once it is whole."""
        self._journal_path = folder / (key + _JOURNAL)
        self._file = -1
        self._journal = -1
        self.identity = Identity()
        """What is known of the remote file."""
        self.ranges = ByteRanges()
        """What is in the file."""

    def open(self) -> bool:
        """Open and lock the file, and find out what is in it.

        Returns:
            Whether that worked; False while another process has it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise storage_error(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before may have finished it meanwhile: then this is not it any more.
            is_same = os.path.samestat(os.fstat(file), self.path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_same = False
        except BaseException:
            os.close(file)
            raise
        if not is_same:
            os.close(file)
            return False
        self._file = file
        self._recall()
        return True

    @property
    def is_open(self) -> bool:
        """Whether it is open, and this process is the one that has it."""
        return self._file >= 0

    def close(self) -> None:
        """Close the file and give it free, keeping what is in it."""
        for descriptor in (self._journal, self._file):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._journal = -1

    def begin(self, identity: Identity) -> None:
        """Forget what is in the file, and begin one anew."""
        self.ranges = ByteRanges()
        self.identity = identity
        os.ftruncate(self._file, 0)
        self._write_journal()

    def check_space(self, size_bytes: int) -> None:
        """Refuse a file that would not leave enough of the disk free.

        Raises:
            InsufficientStorageError: If so.
        """
        check_space(self._folder, size_bytes - self.ranges.size)

    def write(self, offset: int, pieces: Sequence[bytes]) -> int:
        """Write bytes at a place, note that they are there, and return how many they are.

        The caller adds them to `ranges`.

        Raises:
            InsufficientStorageError: If the disk is full.
        """
        # A server that sends crumbs fills a block with more of them than one call may take.
        whole = pieces if len(pieces) <= _MOST_PIECES else [b"".join(pieces)]
        left = [memoryview(piece) for piece in whole]
        at = offset
        try:
            while left:
                written = os.pwritev(self._file, left, at)
                at += written
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if written:
                    left[0] = left[0][written:]
            os.write(self._journal, b"+ %d %d\n" % (offset, at))
        except OSError as error:
            if at > offset:
                with suppress(OSError):
                    os.write(self._journal, b"+ %d %d\n" % (offset, at))
            raise storage_error(error) from error
        return at - offset

    def read(self, offset: int, into: bytearray) -> int:
        """Read what is at a place, and return how many bytes that were."""
        return os.preadv(self._file, [into], offset)

    def synchronise(self) -> None:
        """Bring to the disk what is written, and note that it is there.

        Raises:
            InsufficientStorageError: If the disk is full.
        """
        try:
            noted = os.lseek(self._journal, 0, os.SEEK_END)
            os.fdatasync(self._file)
            os.write(self._journal, b"= %d\n" % noted)
            os.fdatasync(self._journal)
        except OSError as error:
            raise storage_error(error) from error

    def finish(self) -> Path:
        """Bring the file to the disk and under the name of a whole one; return its path.

        Raises:
            InsufficientStorageError: If the disk is full.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise storage_error(error) from error
        self.path.replace(self.whole)
        self._journal_path.unlink(missing_ok=True)
        return self.whole

    def throw_away(self) -> None:
        """Remove the file and its journal, unless the names have become those of another one."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._file), self.path.stat(follow_symlinks=False)):
                self._journal_path.unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)

    def _recall(self) -> None:
        """Read the journal, and write it anew without what cannot be trusted."""
        self.ranges, self.identity = ByteRanges(), Identity()
        with suppress(OSError, ValueError, KeyError, TypeError):
            head, _, _ = (content := self._journal_path.read_bytes()).partition(b"\n")
            told = json.loads(head)
            if told["version"] == _VERSION:
                identity = Identity(**told["identity"])
                ranges = _noted(content, is_same_boot=told["boot"] == _boot())
                if not any(span.stop > os.fstat(self._file).st_size for span in ranges):
                    self.ranges, self.identity = ranges, identity
        if not self.ranges.size:
            os.ftruncate(self._file, 0)
        self._write_journal()

    def _write_journal(self) -> None:
        head = {"version": _VERSION, "boot": _boot(), "identity": asdict(self.identity)}
        lines = [json.dumps(head), *(f"+ {span.start} {span.stop}" for span in self.ranges)]
        content = "".join(f"{line}\n" for line in lines).encode()
        new = self._journal_path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            journal = os.open(new, flags, 0o644)
            if self._journal >= 0:
                os.close(self._journal)
            self._journal = journal
            os.write(journal, content)
            if self.ranges.size:
                # It says of this run of the machine what an earlier one wrote.
                self.synchronise()
            new.replace(self._journal_path)
        except OSError as error:
            raise storage_error(error) from error


def check_space(folder: Path, needed: int) -> None:
    """Refuse to write so many bytes if too little of the disk stays free.

    Raises:
        InsufficientStorageError: If so.
    """
    free = free_bytes(folder)
    if needed > 0 and needed + SPARE_BYTES > free:
        message = (
            f"cannot download: {needed} bytes are to come, {free} are free on the disk, and"
            f" {SPARE_BYTES} are to stay free"
        )
        raise InsufficientStorageError(message, needed=needed + SPARE_BYTES, free=free)


def free_bytes(folder: Path) -> int:
    """Return how many bytes the disk of a folder has for us."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def storage_error(error: OSError) -> Exception:
    """Return the error of the domain for a disk that is full; any other error as it is."""
    if error.errno in _IS_FULL:
        return InsufficientStorageError(f"cannot download: {os.strerror(error.errno or 0)}")
    return error


def prune(folder: Path, *, older_than_seconds: float) -> list[Path]:
    """Remove what nobody has touched for so long and nobody works on; return what was removed."""
    removed = []
    limit = time.time() - older_than_seconds
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix not in (_PART, _JOURNAL, _WHOLE, ".new"):
            continue
        part = path.with_suffix(_PART)
        with suppress(FileNotFoundError):
            is_old = max(one.stat().st_mtime for one in (path, part) if one.exists()) < limit
            if not is_old:
                continue
            with _held(part) as is_free:
                if is_free:
                    path.unlink()
                    removed.append(path)
    return removed


def discard(folder: Path, key: str) -> None:
    """Remove what is staged under a key, if nobody works on it."""
    with _held(folder / (key + _PART)) as is_free:
        if is_free:
            for suffix in (_JOURNAL, _WHOLE, _PART):
                (folder / (key + suffix)).unlink(missing_ok=True)


@contextmanager
def _held(part: Path) -> Generator[bool]:
    """Tell whether nobody has a part, and keep others from having it for as long as the context is open."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    is_mine = False
    try:
        try:
            file = os.open(part, flags)
        except FileNotFoundError:
            # Whoever wants it meanwhile has to find something that is locked.
            file = os.open(part, flags | os.O_CREAT | os.O_EXCL, 0o644)
            is_mine = True
    except OSError as error:
        yield not isinstance(error, FileExistsError)
        return
    is_free = False
    try:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before may have finished it meanwhile, and somebody else have begun it anew.
            is_free = _is_called(file, part)
        yield is_free
    finally:
        if is_mine and is_free and _is_called(file, part):
            part.unlink()
        os.close(file)


def _is_called(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _noted(content: bytes, *, is_same_boot: bool) -> ByteRanges:
    """Return what a journal says is in the file; after a stop of the machine, what surely is."""
    if not is_same_boot:
        marks = [int(line[2:]) for line in content.split(b"\n")[:-1] if line.startswith(b"= ")]
        content = content[: max(marks, default=0)]
    ranges = ByteRanges()
    for line in content.split(b"\n")[1:-1]:
        if line.startswith(b"+ "):
            start, stop = line[2:].split()
            ranges.add(int(start), int(stop))
    return ranges


def _boot() -> str:
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return ""
