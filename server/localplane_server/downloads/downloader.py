"""The front of this package: files and documents by their URIs.

One module, longer than others: each kind of source takes every call another way, and here the ways stand side by side.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from localplane_server.downloads import local, staging
from localplane_server.downloads.addresses import AddressPolicy, shown
from localplane_server.downloads.connections import Resolve, resolve
from localplane_server.downloads.credentials import Credentials
from localplane_server.downloads.disk import Disk
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.looks import (
    facts_of,
    read_beginning,
    read_document,
    read_part,
    zip_at,
)
from localplane_server.downloads.packages import PackageIndex, Wheel
from localplane_server.downloads.patience import Patience, persist
from localplane_server.downloads.pip_settings import PipSettings
from localplane_server.downloads.progress import (
    Document,
    FileFacts,
    FileProgress,
    Phase,
    StagedFile,
    Validators,
)
from localplane_server.downloads.proxies import Proxies
from localplane_server.downloads.registry import Registry
from localplane_server.downloads.sharing import Report, Sharing
from localplane_server.downloads.sources import (
    FileSource,
    PackageSource,
    RegistrySource,
    Source,
    WebSource,
    parse_source,
)
from localplane_server.downloads.staging import StagedPart, key_of
from localplane_server.downloads.transfer import Located, Transfer
from localplane_server.downloads.web import WebClient
from localplane_server.downloads.wheel_looks import WheelLooks
from localplane_server.downloads.wheels import extract_member
from localplane_server.downloads.zip_parts import ZipMember, members_of
from localplane_server.errors import (
    DigestMismatchError,
    DownloadFailedError,
    OfflineError,
    SourceRefusedError,
)

_LOCK_SECONDS = 0.2
"""How often a file is tried that another process has."""
_SHA256_DIGITS = 64


def _tell_nobody(progress: FileProgress) -> None:
    """Drop what a download tells."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One file that is being fetched."""

    part: StagedPart
    """Where it is staged."""
    name: str
    """What errors call it."""
    sha256: str
    """What its SHA-256 must be. Empty when nobody knows."""
    report: Report
    """Is told how far it is."""


class _Takers:
    """Callers who want the same file, and have not got it yet."""

    def __init__(self) -> None:
        self.count = 0
        self.turn = asyncio.Lock()
        """Held by the one who is being given it."""


class Downloader:
    """Fetches files, of which it keeps what it has in one folder until they are whole.

    An async context manager, one for each service. Fetches of the same file with the same digest at
    the same time share one download; each caller gets a file of its own.
    """

    def __init__(
        self,
        staging: Path,
        *,
        policy: AddressPolicy,
        endpoints: Endpoints,
        credentials: Credentials,
        offline: bool = False,
        file_roots: Sequence[Path] = (),
        pip: PipSettings | None = None,
        proxies: Proxies | None = None,
        patience: Patience | None = None,
        find: Resolve = resolve,
    ) -> None:
        """Set up; nothing is opened before the first use.

        Args:
            staging: Where unfinished files are. Made when it is missing.
            policy: What may be reached.
            endpoints: Where the sources with names of their own are.
            credentials: Keys for hosts.
            offline: Whether nothing but `file://` may be used.
            file_roots: Folders that `file://` may read from, with all that is below them.
            pip: Where `pypi://` looks, if not where pip does without settings.
            proxies: Proxies to go through, if any.
            patience: Waits and attempts, if not the usual ones.
            find: Finds the addresses of hosts.
        """
        self._staging = staging
        self._endpoints = endpoints
        self._is_offline = offline
        self._roots = tuple(file_roots)
        self._patience = patience or Patience()
        self._hurry = self._patience.hurried()
        self._web = WebClient(
            policy,
            credentials,
            patience=self._patience,
            is_offline=offline,
            proxies=proxies,
            find=find,
        )
        self._registry = Registry(self._web, policy, credentials)
        self._packages = PackageIndex(
            pip or PipSettings(),
            policy,
            patience=self._patience,
            is_offline=offline,
            proxies=proxies,
        )
        self._wheel_looks = WheelLooks(self._packages, self._hurry)
        self._disk = Disk()
        self._sharing = Sharing()
        self._given: set[Path] = set()
        self._takers: dict[str, _Takers] = {}
        self._wheels: dict[tuple[str, str], str] = {}

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what goes on, keeping what there is for the next time, and close connections."""
        await self._sharing.close()
        await self._web.__aexit__(kind, error, traceback)
        self._disk.close()

    async def facts(self, uri: str, *, sha256: str = "") -> FileFacts:
        """Find out about a file without fetching it.

        Of a file in a wheel, parts of the wheel are read to find out its size.

        Raises:
            SourceRefusedError: If the URI leads where it must not, or is none.
            OfflineError: If it needs the network and the service is to stay off it.
            DownloadFailedError: If the source does not answer.
        """
        source = self._parsed(uri, sha256)
        name = shown(uri)
        match source:
            case FileSource():
                with await self._disk.run(
                    local.open_inside, source.path, self._roots, name
                ) as file:
                    size = os.fstat(file.fileno()).st_size
                return FileFacts(size, Path(source.path).name, sha256)
            case PackageSource():
                return await self._wheel_looks.facts(source, name, sha256)
            case RegistrySource():
                located = await persist(self._hurry, name, partial(self._registry.locate, source))
                return FileFacts(located.size_bytes, located.file_name, located.sha256)
            case WebSource():
                return await persist(
                    self._hurry,
                    name,
                    partial(
                        facts_of,
                        self._web,
                        self._located(source),
                        sha256,
                        self._hurry.document_seconds,
                    ),
                )

    async def fetch(
        self, uri: str, *, sha256: str = "", report: Report = _tell_nobody
    ) -> StagedFile:
        """Fetch a file.

        Goes on from what an earlier call, or a process that was killed, has left of it. Cancelling
        keeps what there is. Of a file in a wheel, progress is that of the wheel, which stays
        staged until `discard`, since models often need several of its files.

        Args:
            uri: Where it is.
            sha256: What its SHA-256 must be. Empty when nobody knows.
            report: Is told how far it is.

        Raises:
            SourceRefusedError: If the URI leads where it must not, or is none.
            OfflineError: If it needs the network and the service is to stay off it.
            InsufficientStorageError: If the disk has not enough room, or became full.
            DownloadFailedError: If the source fails again and again, or sends what is not the file.
            DigestMismatchError: If the file is another one. It is thrown away.
        """
        sha256 = sha256.strip().lower()
        source = self._parsed(uri, sha256)
        key = key_of(uri, sha256)
        name = shown(uri)
        begin = partial(self._fetch, source, key, name, sha256)
        takers = self._takers.setdefault(key, _Takers())
        takers.count += 1
        try:
            while True:
                staged = await self._sharing.do(key, report, begin)
                with suppress(FileNotFoundError):
                    return await self._give(staged, key, takers)
                # Whoever was given it has moved it meanwhile.
        finally:
            takers.count -= 1
            if not takers.count:
                del self._takers[key]

    async def read(
        self, uri: str, *, most_bytes: int, validators: Validators | None = None
    ) -> Document | None:
        """Read a small document whole.

        Args:
            uri: Where it is.
            most_bytes: How large it may be.
            validators: What is known of the copy that the caller has.

        Returns:
            The document; None if it is the one that the caller has.

        Raises:
            SourceRefusedError: If the URI leads where it must not, or is none.
            OfflineError: If it needs the network and the service is to stay off it.
            DownloadFailedError: If the source fails, or the document is too large.
        """
        source = self._parsed(uri, "")
        name = shown(uri)
        match source:
            case FileSource():
                return await self._disk.run(
                    local.read_document,
                    source.path,
                    self._roots,
                    name,
                    most_bytes=most_bytes,
                    validators=validators,
                )
            case WebSource():
                return await persist(
                    self._hurry,
                    name,
                    partial(
                        read_document,
                        self._web,
                        self._located(source),
                        most_bytes,
                        validators or Validators(),
                        self._patience.document_seconds,
                    ),
                )
            case _:
                staged = await self.fetch(uri)
                try:
                    if staged.size_bytes > most_bytes:
                        raise DownloadFailedError(name, f"it is larger than {most_bytes} bytes")
                    content = await self._disk.run(staged.path.read_bytes)
                finally:
                    staged.path.unlink(missing_ok=True)
                found = Validators(etag=f'"{staged.sha256}"')
                return None if found == validators else Document(content, found)

    async def beginning(self, uri: str, *, most_bytes: int) -> bytes:
        """Return the first bytes of a file, without fetching the rest.

        Raises:
            SourceRefusedError: If the URI leads where it must not, or is none.
            OfflineError: If it needs the network and the service is to stay off it.
            DownloadFailedError: If the source fails, or gives files as a whole only.
        """
        source = self._parsed(uri, "")
        name = shown(uri)
        match source:
            case FileSource():
                with await self._disk.run(
                    local.open_inside, source.path, self._roots, name
                ) as file:
                    return await self._disk.run(file.read, most_bytes)
            case WebSource():
                return await self._beginning(self._located(source), name, most_bytes)
            case RegistrySource():
                locate = partial(self._registry.locate, source)
                located = await persist(self._hurry, name, locate)
                return await self._beginning(located, name, most_bytes)
            case PackageSource():
                return await self._wheel_looks.beginning(source, name, most_bytes)

    async def _beginning(self, located: Located, name: str, most_bytes: int) -> bytes:
        seconds = self._hurry.document_seconds
        read = partial(read_beginning, self._web, located, most_bytes, seconds)
        return await persist(self._hurry, name, read)

    async def members(self, uri: str) -> list[ZipMember]:
        """Return the files in a zip, without fetching it.

        Raises:
            SourceRefusedError: If the URI leads where it must not, or is none.
            OfflineError: If it needs the network and the service is to stay off it.
            DownloadFailedError: If the source fails, gives files as a whole only, or it is no zip.
        """
        source = self._parsed(uri, "")
        name = shown(uri)
        match source:
            case FileSource():
                with await self._disk.run(
                    local.open_inside, source.path, self._roots, name
                ) as file:
                    return await self._disk.run(members_of, file, name)
            case WebSource():
                return await persist(
                    self._hurry, name, partial(self._members, self._located(source))
                )
            case RegistrySource():

                async def look() -> list[ZipMember]:
                    return await self._members(await self._registry.locate(source))

                return await persist(self._hurry, name, look)
            case PackageSource():
                raise DownloadFailedError(name, "it is packed in a wheel")

    async def _members(self, located: Located) -> list[ZipMember]:
        seconds = self._hurry.document_seconds
        parts = await zip_at(self._web, located, seconds)
        sized = replace(located, size_bytes=parts.size_bytes)
        return await parts.members(partial(read_part, self._web, sized, seconds))

    async def discard(self, uri: str, *, sha256: str = "") -> None:
        """Throw away what is staged of a file. Doing so for one that is not there does nothing.

        A file that is being fetched by somebody is left alone.
        """
        keys = [key_of(uri, sha256.strip().lower())]
        with suppress(SourceRefusedError):
            source = parse_source(uri, self._endpoints)
            if isinstance(source, PackageSource):
                wheel = self._wheels.pop((source.project, source.version), None)
                keys += [wheel] if wheel else []
        for key in keys:
            if key not in self._takers:
                await self._disk.run(staging.discard, self._staging, key)

    def prune(self, *, older_than_seconds: float) -> list[Path]:
        """Remove what was staged and not touched for so long; return what was removed.

        What is being fetched, by this process or another, is left alone. Blocks for a moment.
        """
        return staging.prune(self._staging, older_than_seconds=older_than_seconds)

    def _parsed(self, uri: str, sha256: str) -> Source:
        source = parse_source(uri, self._endpoints)
        if sha256 and (
            len(sha256) != _SHA256_DIGITS or set(sha256.lower()) - set("0123456789abcdef")
        ):
            raise SourceRefusedError(
                shown(uri), "its SHA-256 is none: expected 64 hexadecimal digits"
            )
        if self._is_offline and not isinstance(source, FileSource):
            raise OfflineError(shown(uri))
        return source

    async def _fetch(
        self, source: Source, key: str, name: str, sha256: str, report: Report
    ) -> StagedFile:
        """Fetch a file while nobody else in this process does, and no other process."""
        report(FileProgress(Phase.CONNECTING, 0))
        async with self._opened(key, name) as part:
            if staged := await self._left_whole(part, source, sha256):
                report(FileProgress(Phase.DONE, staged.size_bytes, staged.size_bytes))
                return staged
            job = _Job(part, name, sha256, report)
            match source:
                case WebSource():
                    return await self._transfer(job, self._web, _already(self._located(source)))
                case RegistrySource():
                    return await self._transfer(
                        job, self._web, partial(self._registry.locate, source)
                    )
                case PackageSource():
                    return await self._unpack(job, source)
                case FileSource():
                    return await self._copy(job, source)

    @asynccontextmanager
    async def _opened(self, key: str, name: str) -> AsyncGenerator[StagedPart]:
        """Have a staged part for as long as the context is open; wait until no other process has it."""
        part = StagedPart(self._staging, key)
        try:
            while not await self._disk.run(part.open):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(_LOCK_SECONDS)
            yield part
        except OSError as error:
            cause = f"the staging folder cannot be used: {os.strerror(error.errno or 0)}"
            raise DownloadFailedError(name, cause) from error
        finally:
            if not part.ranges.size and part.is_open:
                part.throw_away()
            part.close()

    def _located(self, source: WebSource) -> Located:
        return Located(
            url=source.url,
            file_name=source.file_name,
            is_hub=source.url.startswith(f"{self._endpoints.hugging_face}/"),
        )

    async def _left_whole(self, part: StagedPart, source: Source, sha256: str) -> StagedFile | None:
        """Take what was finished before and not fetched by its caller, if it still is what it was."""
        try:
            found = await self._disk.run(local.digest_of, part.whole)
            size = part.whole.stat().st_size
        except FileNotFoundError:
            self._given.discard(part.whole)
            return None
        if sha256 and found != sha256:
            self._given.discard(part.whole)
            part.whole.unlink(missing_ok=True)
            return None
        part.throw_away()
        return StagedFile(part.whole, size, found, _file_name(source))

    async def _transfer(
        self, job: _Job, web: WebClient, locate: Callable[[], Awaitable[Located]]
    ) -> StagedFile:
        transfer = Transfer(
            web,
            locate,
            job.part,
            source=job.name,
            sha256=job.sha256,
            patience=self._patience,
            disk=self._disk,
            report=job.report,
        )
        found = await transfer.run()
        size = job.part.ranges.size
        return await self._finished(job, size, found, transfer.located.file_name)

    async def _unpack(self, job: _Job, source: PackageSource) -> StagedFile:
        """Fetch a wheel, or take the one that is here, and one file out of it."""
        wheel = await self._packages.find(source)
        key = key_of(wheel.url, wheel.sha256)
        last = FileProgress(Phase.CONNECTING, 0)

        def pass_on(progress: FileProgress) -> None:
            nonlocal last
            last = progress
            if progress.phase is not Phase.DONE:
                job.report(progress)

        while True:
            whole = await self._sharing.do(key, pass_on, partial(self._fetch_wheel, wheel, key))
            self._wheels[source.project, source.version] = key
            job.report(FileProgress(Phase.VERIFYING, last.done_bytes, last.total_bytes))
            try:
                size, found = await self._disk.run(
                    _unpack, whole.path, source.member, job.part.path, job.name
                )
            except FileNotFoundError:
                # Somebody who needs it no longer may have thrown it away.
                if await self._disk.run(whole.path.exists):
                    raise
            else:
                name = source.member.rpartition("/")[2]
                return await self._finished(job, size, found, name, told_bytes=last.done_bytes)

    async def _fetch_wheel(self, wheel: Wheel, key: str, report: Report) -> StagedFile:
        source = WebSource(wheel.url, wheel.file_name)
        async with self._opened(key, wheel.file_name) as part:
            if staged := await self._left_whole(part, source, wheel.sha256):
                report(FileProgress(Phase.DONE, staged.size_bytes, staged.size_bytes))
                return staged
            located = Located(url=wheel.url, file_name=wheel.file_name, size_bytes=wheel.size_bytes)
            job = _Job(part, shown(wheel.url), wheel.sha256, report)
            async with self._packages.client(self._packages.hosts_of(wheel)) as web:
                return await self._transfer(job, web, _already(located))

    async def _copy(self, job: _Job, source: FileSource) -> StagedFile:
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int) -> None:
            progress = FileProgress(Phase.DOWNLOADING, done, total)
            loop.call_soon_threadsafe(job.report, progress)

        with await self._disk.run(local.open_inside, source.path, self._roots, job.name) as file:
            size, found = await self._disk.run(local.copy_file, file, job.part.path, tell)
        return await self._finished(job, size, found, Path(source.path).name)

    async def _finished(
        self, job: _Job, size: int, found: str, file_name: str, *, told_bytes: int | None = None
    ) -> StagedFile:
        """Give a file that came whole the name of one, if it is the right one."""
        if job.sha256 and job.sha256 != found:
            await self._disk.run(job.part.throw_away)
            raise DigestMismatchError(job.name, job.sha256, found)
        path = await self._disk.run(job.part.finish)
        told = size if told_bytes is None else told_bytes
        job.report(FileProgress(Phase.DONE, told, told))
        return StagedFile(path, size, found, file_name)

    async def _give(self, staged: StagedFile, key: str, takers: _Takers) -> StagedFile:
        """Give a caller a file that nobody else has: the last the file itself, others a second name of it.

        Whoever has the file itself may move it at once, so nobody else may still need it then.

        Raises:
            FileNotFoundError: If somebody who was given it before has moved it.
        """
        async with takers.turn:
            if takers.count == 1 and staged.path not in self._given:
                self._given.add(staged.path)
                return staged
            mine = self._staging / f"{key}-{secrets.token_hex(8)}.whole"
            await self._disk.run(local.link_or_copy, staged.path, mine)
            return StagedFile(mine, staged.size_bytes, staged.sha256, staged.file_name)


def _already(located: Located) -> Callable[[], Awaitable[Located]]:
    """Return what locates a file of which it is known where it is."""

    async def locate() -> Located:
        return located

    return locate


def _unpack(wheel: Path, member: str, target: Path, name: str) -> tuple[int, str]:
    with wheel.open("rb") as file:
        return extract_member(file, member, target, name)


def _file_name(source: Source) -> str:
    match source:
        case WebSource():
            return source.file_name
        case FileSource():
            return Path(source.path).name
        case PackageSource():
            return source.member.rpartition("/")[2]
        case RegistrySource():
            return source.layer if not source.layer.startswith("sha256:") else ""
