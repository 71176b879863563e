"""Where files come from: this machine, web servers, and registries of artifacts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Protocol, TypeVar

from localplane_server.downloads import local
from localplane_server.downloads.disk import Disk
from localplane_server.downloads.looks import (
    facts_of,
    read_beginning,
    read_document,
    read_part,
    zip_at,
)
from localplane_server.downloads.parts import Brought
from localplane_server.downloads.patience import Patience, persist
from localplane_server.downloads.progress import (
    Document,
    FileFacts,
    FileProgress,
    Phase,
    Validators,
)
from localplane_server.downloads.sharing import Report
from localplane_server.downloads.sources import FileSource
from localplane_server.downloads.staging import StagedPart
from localplane_server.downloads.transfer import Locate, Located, Transfer
from localplane_server.downloads.web import WebClient
from localplane_server.downloads.zip_parts import ZipMember, members_of

_Result = TypeVar("_Result")


class Origin(Protocol):
    """A file where it comes from.

    Every method raises SourceRefusedError if the way there leads where it must not, and DownloadFailedError if the
    file does not come.
    """

    @property
    def file_name(self) -> str:
        """The name that the source has for it, as far as that is known beforehand."""

    async def facts(self, sha256: str) -> FileFacts:
        """Find out about the file without fetching it.

        Args:
            sha256: What is known of its SHA-256.
        """

    async def beginning(self, most_bytes: int) -> bytes:
        """Return the first bytes, without fetching the rest."""

    async def members(self) -> list[ZipMember]:
        """Return the files in it, which is a zip, without fetching it."""

    async def bring(self, part: StagedPart, sha256: str, report: Report) -> Brought:
        """Bring the file into a staged part, going on from what is there.

        Args:
            part: Where to.
            sha256: What its SHA-256 must be. Empty when nobody knows.
            report: Is told how far it is.

        Raises:
            InsufficientStorageError: If the disk has not enough room, or became full.
            DigestMismatchError: If the file is known to be another one.
        """


@dataclass(frozen=True, slots=True)
class Means:
    """What all origins bring files with."""

    disk: Disk
    """Threads that wait for the disk."""
    patience: Patience
    """Waits and attempts of whole files."""
    hurry: Patience
    """Those of looks at files, which somebody waits for."""


class LocalFile:
    """A file of this machine."""

    def __init__(self, source: FileSource, roots: Sequence[Path], name: str, means: Means) -> None:
        self.file_name = source.file_name
        self._path = source.path
        self._roots = roots
        self._name = name
        self._disk = means.disk

    async def facts(self, sha256: str) -> FileFacts:
        """Find out about the file."""
        with await self._opened() as file:
            size = os.fstat(file.fileno()).st_size
        return FileFacts(size, self.file_name, sha256)

    async def document(self, most_bytes: int, validators: Validators | None) -> Document | None:
        """Read it whole; None if it is the one that the validators are of."""
        return await self._disk.run(
            local.read_document,
            self._path,
            self._roots,
            self._name,
            most_bytes=most_bytes,
            validators=validators,
        )

    async def beginning(self, most_bytes: int) -> bytes:
        """Return the first bytes."""
        with await self._opened() as file:
            return await self._disk.run(file.read, most_bytes)

    async def members(self) -> list[ZipMember]:
        """Return the files in it, which is a zip."""
        with await self._opened() as file:
            return await self._disk.run(members_of, file, self._name)

    async def bring(self, part: StagedPart, sha256: str, report: Report) -> Brought:
        """Copy it."""
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int) -> None:
            progress = FileProgress(Phase.DOWNLOADING, done, total)
            loop.call_soon_threadsafe(report, progress)

        with await self._opened() as file:
            size, found = await self._disk.run(local.copy_file, file, part.path, tell)
        return Brought(size, found, self.file_name, size)

    async def _opened(self) -> IO[bytes]:
        return await self._disk.run(local.open_inside, self._path, self._roots, self._name)


class RemoteFile:
    """A file of a server, of which somebody tells where it is: a layer of an artifact."""

    def __init__(
        self, web: WebClient, locate: Locate, file_name: str, name: str, means: Means
    ) -> None:
        self.file_name = file_name
        self._web = web
        self._locate = locate
        self._name = name
        self._means = means
        self._seconds = means.hurry.document_seconds

    async def facts(self, sha256: str) -> FileFacts:
        """Find out about the file."""
        return await self._persist(lambda located: self._facts(located, sha256))

    async def _facts(self, located: Located, sha256: str) -> FileFacts:
        return FileFacts(located.size_bytes, located.file_name, located.sha256 or sha256)

    async def beginning(self, most_bytes: int) -> bytes:
        """Return the first bytes, without fetching the rest."""
        return await self._persist(
            lambda located: read_beginning(self._web, located, most_bytes, self._seconds)
        )

    async def members(self) -> list[ZipMember]:
        """Return the files in it, which is a zip, without fetching it."""
        return await self._persist(self._members)

    async def _members(self, located: Located) -> list[ZipMember]:
        parts = await zip_at(self._web, located, self._seconds)
        sized = replace(located, size_bytes=parts.size_bytes)
        return await parts.members(partial(read_part, self._web, sized, self._seconds))

    async def bring(self, part: StagedPart, sha256: str, report: Report) -> Brought:
        """Fetch it, in parts."""
        transfer = Transfer(
            self._web,
            self._locate,
            part,
            source=self._name,
            sha256=sha256,
            patience=self._means.patience,
            disk=self._means.disk,
            report=report,
        )
        found = await transfer.run()
        size = part.ranges.size
        return Brought(size, found, transfer.located.file_name, size)

    async def _persist(self, look: Callable[[Located], Awaitable[_Result]]) -> _Result:
        async def attempt() -> _Result:
            return await look(await self._locate())

        return await persist(self._means.hurry, self._name, attempt)


class WebFile(RemoteFile):
    """A file of a web server, of which it is known where it is."""

    def __init__(self, web: WebClient, located: Located, name: str, means: Means) -> None:
        async def locate() -> Located:
            return located

        super().__init__(web, locate, located.file_name, name, means)

    async def _facts(self, located: Located, sha256: str) -> FileFacts:
        return await facts_of(self._web, located, sha256, self._seconds)

    async def document(self, most_bytes: int, validators: Validators | None) -> Document | None:
        """Read it whole; None if it is the one that the validators are of."""
        known = validators or Validators()
        seconds = self._means.patience.document_seconds
        return await self._persist(
            lambda located: read_document(self._web, located, most_bytes, known, seconds)
        )
