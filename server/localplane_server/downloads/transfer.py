"""One download from a web server into a staged file: in parts, at once where it pays, and hashed on the way."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from localplane_server.downloads.credentials import Credentials
from localplane_server.downloads.digest import Digest
from localplane_server.downloads.disk import Disk
from localplane_server.downloads.patience import Patience, TransferError, persist
from localplane_server.downloads.progress import FileProgress, Phase
from localplane_server.downloads.ranges import Span
from localplane_server.downloads.staging import Identity, StagedPart
from localplane_server.downloads.web import Answer, WebClient, check_beginning, told_size
from localplane_server.errors import DigestMismatchError, DownloadFailedError

BLOCK_BYTES = 1024 * 1024
"""What a connection collects before it writes. A process that is killed loses so much of each connection."""
BLOCK_SECONDS = 1.0
"""How often it writes what it has although that is less."""
SPAN_BYTES = 32 * 1024 * 1024
"""What one request asks for. Connections take spans in order, so that what is hashed is not far behind."""
LARGE_BYTES = 64 * 1024 * 1024
"""From which size on several connections fetch a file."""
CONNECTIONS = 4
"""How many connections fetch a large file."""
SYNCHRONISED_BYTES = 64 * 1024 * 1024
"""How much is written before it is brought to the disk, so that a stop of the machine loses no more."""
MOST_RESTARTS = 3
"""How often a file may change while it is fetched."""

_PROGRESS_BYTES = 64 * 1024
"""What a connection must give to count as one that works."""
_MOVED_AWAY = frozenset({400, 401, 403, 404, 410})
"""What a server answers when the place that it redirected to is there no longer."""
_BEGINNING = 256
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d+)-(\d+)|\*)/(\d+|\*)", re.IGNORECASE | re.ASCII)
_SHA256 = re.compile(r'"?(?:sha256:)?([0-9a-f]{64})"?')
_UNSATISFIABLE, _PARTIAL, _OK = 416, 206, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a file is, once names and registries were asked."""

    url: str
    """Where."""
    file_name: str = ""
    """The name that the source has for it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What to send with each request."""
    credentials: Credentials | None = None
    """Keys to send in place of the usual ones."""
    size_bytes: int | None = None
    """Its size, if the source told."""
    sha256: str = ""
    """Its SHA-256, if the source told."""
    is_hub: bool = False
    """Whether the server tells the digest of large files when it redirects, as Hugging Face does."""


Locate = Callable[[], Awaitable[Located]]


@dataclass(slots=True)
class _Cursor:
    """Where in the file a connection is, and what it has received and not written."""

    at: int
    """Where it has written up to."""
    received: int = 0
    """Where it has received up to."""
    pending: list[bytes] = field(default_factory=list)
    """What is between."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while some of it is being written."""


class _AgainError(Exception):
    """What is staged is of no use: the file changed, or the server gives it from the beginning only."""

    def __init__(self, cause: str, *, is_plain: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.is_plain = is_plain


class Transfer:
    """Fetches one file into an open staged part."""

    def __init__(
        self,
        web: WebClient,
        locate: Locate,
        part: StagedPart,
        *,
        source: str,
        sha256: str,
        patience: Patience,
        disk: Disk,
        report: Callable[[FileProgress], None],
    ) -> None:
        self._web = web
        self._locate = locate
        self._part = part
        self._source = source
        self._wanted = sha256
        self._patience = patience
        self._disk = disk
        self._report = report
        self._told = 0
        self._failures_of_plain = 0
        self.located = Located(url="")
        self._begin()

    def _begin(self, *, is_plain: bool = False) -> None:
        # Whether the server gives the file as a whole only.
        self._is_plain = is_plain
        self._url = self.located.url
        self._known = asyncio.Event()
        self._spans: Iterator[Span] = iter(())
        self._total = self._part.identity.size_bytes
        self._cursors: list[_Cursor] = []
        self._unsynchronised = 0
        self._is_much = asyncio.Event()
        self._digest = Digest(self._part, self._disk)

    async def run(self) -> str:
        """Fetch what is missing of the file, verify all of it, and return its SHA-256.

        Raises:
            SourceRefusedError: If a redirect leads where it must not.
            InsufficientStorageError: If the disk has not enough room, or became full.
            DownloadFailedError: If it fails again and again, or is not the file.
            DigestMismatchError: If it is another file.
        """
        self._tell(Phase.CONNECTING)
        await self._find()
        part = self._part
        is_resumed = part.ranges.size > 0
        is_known = part.identity.size_bytes is not None
        if is_resumed and not (is_known and (self._wanted or part.identity.condition)):
            # Nothing would tell how much the rest is, or whether it belongs to what is there.
            await self._disk.run(part.begin, Identity())
            is_resumed = False
        is_plain = False
        restarts = 0
        while True:
            self._begin(is_plain=is_plain)
            try:
                await self._receive()
                found = self._digest.hexdigest()
                if not self._wanted or found == self._wanted:
                    return found
                if not is_resumed:
                    await self._disk.run(part.throw_away)
                    raise DigestMismatchError(self._source, self._wanted, found)
                is_resumed = False
            except _AgainError as again:
                restarts += 1
                if restarts > MOST_RESTARTS + self._failures_of_plain:
                    raise DownloadFailedError(self._source, again.cause) from again
                is_plain = is_plain or again.is_plain
            await self._disk.run(part.begin, Identity())

    async def _find(self) -> None:
        self.located = await persist(self._patience, self._source, self._locate)
        self._url = self.located.url
        self._expect(self.located.sha256)

    def _expect(self, sha256: str) -> None:
        """Hold what the source tells against what is wanted: no need to fetch what is another file."""
        if sha256 and self._wanted and sha256 != self._wanted:
            raise DigestMismatchError(self._source, self._wanted, sha256)
        self._wanted = self._wanted or sha256

    async def _receive(self) -> None:
        """Receive and hash what is missing."""
        try:
            async with asyncio.TaskGroup() as tasks:
                hashing = tasks.create_task(self._digest.follow())
                keeping = [
                    tasks.create_task(self._synchronise()),
                    tasks.create_task(self._write_what_waits()),
                ]
                if self._total is None or self._part.ranges.frontier < self._total:
                    async with asyncio.TaskGroup() as workers:
                        # One finds out what kind of server it is, and what kind of file.
                        workers.create_task(self._work())
                        await self._known.wait()
                        for _ in range(self._helpers()):
                            workers.create_task(self._work())
                for task in keeping:
                    task.cancel()
                self._tell(Phase.VERIFYING)
                self._digest.finish()
                await hashing
        except BaseExceptionGroup as group:
            raise _first(group) from None

    def _helpers(self) -> int:
        missing = (self._total or 0) - self._part.ranges.size
        return CONNECTIONS - 1 if not self._is_plain and missing >= LARGE_BYTES else 0

    async def _work(self) -> None:
        """Take one span after the other until there is none."""
        if not self._known.is_set():
            await self._fetch(next(self._missing(self._total or SPAN_BYTES)))
        for span in self._spans:
            await self._fetch(span)

    def _missing(self, total: int) -> Iterator[Span]:
        for gap in list(self._part.ranges.gaps(total)):
            for start in range(gap.start, gap.stop, SPAN_BYTES):
                yield Span(start, min(start + SPAN_BYTES, gap.stop))

    async def _fetch(self, span: Span) -> None:
        """Fetch one span, in as many attempts as it takes and patience allows."""
        cursor = _Cursor(span.start)
        failures = 0
        is_found_anew = False
        while True:
            began = cursor.at
            try:
                await self._stream(cursor, span.stop)
            except TransferError as trouble:
                if trouble.status in _MOVED_AWAY and self._known.is_set() and not is_found_anew:
                    is_found_anew = True
                    await self._find()
                    continue
                if cursor.at - began >= _PROGRESS_BYTES and not self._is_plain:
                    failures, is_found_anew = 0, False
                failures += 1
                so_far = failures + self._failures_of_plain
                if self._patience.is_over(so_far, trouble):
                    raise trouble.failure(self._source) from trouble
                await asyncio.sleep(self._patience.delay(so_far, trouble))
                if self._is_plain and cursor.at:
                    self._failures_of_plain += 1
                    raise _AgainError(trouble.cause, is_plain=True) from trouble
            else:
                if self._is_plain or cursor.at >= min(span.stop, self._total or 0):
                    return

    async def _stream(self, cursor: _Cursor, stop: int) -> None:
        """Send one request and write what comes, moving the cursor."""
        if self._total is not None:
            stop = min(stop, self._total)
        headers = dict(self.located.headers)
        if not self._is_plain:
            headers["Range"] = f"bytes={cursor.at}-{stop - 1}"
            if self._part.ranges.size and self._part.identity.condition:
                headers["If-Range"] = self._part.identity.condition
        async with self._web.request(
            self._url,
            headers,
            credentials=self.located.credentials,
            expected=frozenset({_UNSATISFIABLE}),
        ) as answer:
            limit = await self._accept(answer, cursor.at, stop)
            cursor.received = cursor.at
            cursor.pending.clear()
            self._cursors.append(cursor)
            try:
                async for piece in answer.pieces():
                    room = len(piece) if limit is None else limit - cursor.received
                    cursor.pending.append(piece[:room])
                    cursor.received += len(cursor.pending[-1])
                    if cursor.received - cursor.at >= BLOCK_BYTES:
                        await self._write(cursor)
                    if len(piece) > room:
                        break
            finally:
                self._cursors.remove(cursor)
                await self._write(cursor)
        if limit is None:
            self._total = cursor.at
        elif cursor.at < limit:
            raise TransferError(f"the server ended it after {cursor.at} of {limit} bytes")

    async def _accept(self, answer: Answer, at: int, stop: int) -> int | None:
        """Judge the head of an answer; return where its body ends, None if it does not say."""
        answer.check_plain()
        first, last, total = content_range(answer)
        if answer.status == _UNSATISFIABLE:
            if total == 0 and at == 0:
                await self._learn(answer, Identity(0))
                return 0
            cause = "the server says that it has no such part of the file"
            raise _AgainError(cause, is_plain=not self._part.ranges.size)
        answer.check_kind(self.located.file_name)
        if answer.status == _PARTIAL:
            if first != at or last is None or not at <= last < stop:
                raise TransferError("the server sent another part than it was asked for")
            if total is None:
                raise _AgainError("the server does not tell the file's size", is_plain=True)
            if last >= total:
                raise TransferError("the server sent more than it says the file has")
            end: int | None = last + 1
        elif answer.status == _OK and at == 0 and not self._part.ranges.size:
            self._is_plain = True
            end = total = answer.length
        elif answer.status == _OK:
            raise _AgainError(
                "the file changes again and again, or the server gives no parts of it"
            )
        else:
            raise TransferError(f"the server answered {answer.status}", status=answer.status)
        headers = answer.headers
        identity = Identity(total, headers.get("etag", ""), headers.get("last-modified", ""))
        if self._known.is_set() or self._part.ranges.size:
            if self._part.identity.is_changed(identity):
                raise _AgainError("the file changes again and again while it is downloaded")
            if not self._known.is_set():
                await self._disk.run(self._part.check_space, self._total or 1)
                self._set_known(end or stop)
        else:
            await self._learn(answer, identity)
            self._set_known(end or stop)
        self._url = answer.url
        return end

    def _set_known(self, end: int) -> None:
        """Let the others begin with what follows the span that is being fetched."""
        total = self._total or 0
        taken = deque(self._missing(total))
        if taken and taken[0].start < end:
            taken.popleft()
        if self._is_plain:
            taken.clear()
        self._spans = iter(taken)
        self._known.set()

    async def _learn(self, answer: Answer, identity: Identity) -> None:
        """Note what kind of file it is, and whether there is room for it."""
        expected = self.located.size_bytes
        size = identity.size_bytes
        if expected is not None and size is not None and expected != size:
            cause = f"it has {size} bytes, and {expected} were announced"
            raise TransferError(cause, is_lasting=True)
        self._expect(told_digest(self.located, answer))
        await self._disk.run(self._part.check_space, size or 1)
        await self._disk.run(self._part.begin, identity)
        self._total = size
        if size == 0:
            self._known.set()

    async def _write(self, cursor: _Cursor) -> None:
        """Write what a connection has received, and move its cursor."""
        async with cursor.lock:
            if not any(cursor.pending):
                return
            if cursor.at == 0:
                beginning = b"".join(cursor.pending)[:_BEGINNING]
                check_beginning(beginning, self.located.file_name)
            pieces, cursor.pending = cursor.pending, []
            start = cursor.at
            try:
                written = await self._disk.run(self._part.write, start, pieces)
            except BaseException:
                # Nobody knows how far it came, so whoever writes next begins with it.
                cursor.pending[:0] = pieces
                raise
            cursor.at += written
            self._part.ranges.add(start, cursor.at)
        self._digest.move()
        self._unsynchronised += written
        if self._unsynchronised >= SYNCHRONISED_BYTES:
            self._is_much.set()
        self._tell(Phase.DOWNLOADING)

    async def _write_what_waits(self) -> None:
        """Write what connections have that bring little, or nothing more."""
        while True:
            await asyncio.sleep(BLOCK_SECONDS)
            for cursor in tuple(self._cursors):
                with suppress(TransferError):  # its own connection will be told
                    await self._write(cursor)

    async def _synchronise(self) -> None:
        """Bring to the disk what is written, again and again, beside everything else."""
        while True:
            await self._is_much.wait()
            self._is_much.clear()
            self._unsynchronised = 0
            await self._disk.run(self._part.synchronise)

    def _tell(self, phase: Phase) -> None:
        self._told = max(self._told, self._part.ranges.size)
        self._report(FileProgress(phase, self._told, self._total))


def told_digest(located: Located, answer: Answer) -> str:
    """Return the SHA-256 that a hub tells of a file when it redirects. Empty if there is none."""
    said = answer.told_on_the_way.get("x-linked-etag", "") if located.is_hub else ""
    found = _SHA256.fullmatch(said)
    return found[1] if found else ""


def content_range(answer: Answer) -> tuple[int | None, int | None, int | None]:
    """Return the first byte, the last byte, and the size of the file, as far as an answer tells."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    if found is None:
        return None, None, None
    first, last, total = map(told_size, found.groups())
    return first, last, total


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what began it all: the first failure; the rest follows from it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
