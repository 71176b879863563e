"""The front of this package: files and documents by their URIs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from localplane_server.downloads.addresses import AddressPolicy, shown
from localplane_server.downloads.connections import trusted
from localplane_server.downloads.credentials import Credentials
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.patience import Patience, TransferError
from localplane_server.downloads.progress import (
    Document,
    FileFacts,
    FileProgress,
    Phase,
    StagedFile,
    Validators,
)
from localplane_server.downloads.sources import WebSource, parse_source
from localplane_server.downloads.web import WebClient
from localplane_server.errors import DigestMismatchError, SourceRefusedError

Report = Callable[[FileProgress], None]
"""Is told how far a download is. Must not block."""


def _tell_nobody(progress: FileProgress) -> None:
    """Drop what a download tells."""


class Downloader:
    """Fetches files, of which it keeps what it has in one folder until they are whole.

    An async context manager, one for each service. Fetches of the same file with the same digest at
    the same time share one download.
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
        patience: Patience | None = None,
    ) -> None:
        """Set up; nothing is opened before the first use.

        Args:
            staging: Where unfinished files are. Made when it is missing.
            policy: What may be reached.
            endpoints: Where the sources with names of their own are.
            credentials: Keys for hosts.
            offline: Whether nothing but `file://` may be used.
            file_roots: Folders that `file://` may read from, with all that is below them.
            patience: Waits and attempts, if not the usual ones.
        """
        self._staging = staging
        self._endpoints = endpoints
        self._patience = patience or Patience()
        self._web = WebClient(
            policy, credentials, patience=self._patience, tls=trusted(), is_offline=offline
        )

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
        await self._web.__aexit__(kind, error, traceback)

    async def facts(self, uri: str, *, sha256: str = "") -> FileFacts:
        """Find out about a file without fetching it.

        Raises:
            SourceRefusedError: If the URI leads where it must not, or is none.
            OfflineError: If it needs the network and the service is to stay off it.
            DownloadFailedError: If the source does not answer.
        """
        source = self._web_source(uri)
        async with self._web.request(source.url, method="HEAD") as answer:
            return FileFacts(answer.length, source.file_name, sha256)

    async def fetch(
        self, uri: str, *, sha256: str = "", report: Report = _tell_nobody
    ) -> StagedFile:
        """Fetch a file.

        Goes on from what an earlier call, or a process that was killed, has left of it. Cancelling
        keeps what there is.

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
        source = self._web_source(uri)
        self._staging.mkdir(parents=True, exist_ok=True)
        path = self._staging / f"{hashlib.sha256(f'{uri} {sha256}'.encode()).hexdigest()}.part"
        report(FileProgress(Phase.CONNECTING, 0))
        digest = hashlib.sha256()
        done = 0
        try:
            async with self._web.request(source.url) as answer:
                answer.check_plain()
                answer.check_kind(source.file_name)
                with path.open("wb") as file:
                    async for piece in answer.pieces():
                        await asyncio.to_thread(file.write, piece)
                        digest.update(piece)
                        done += len(piece)
                        report(FileProgress(Phase.DOWNLOADING, done, answer.length))
        except TransferError as error:
            raise error.failure(shown(uri)) from error
        if sha256 and sha256 != digest.hexdigest():
            path.unlink()
            raise DigestMismatchError(shown(uri), sha256, digest.hexdigest())
        report(FileProgress(Phase.DONE, done, done))
        return StagedFile(path, done, digest.hexdigest(), source.file_name)

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
        source = self._web_source(uri)
        try:
            async with self._web.request(source.url) as answer:
                content = await answer.read(most_bytes)
        except TransferError as error:
            raise error.failure(shown(uri)) from error
        return Document(content, Validators(answer.headers.get("etag", "")))

    async def discard(self, uri: str, *, sha256: str = "") -> None:
        """Throw away what is staged of a file. Doing so for one that is not there does nothing."""

    def prune(self, *, older_than_seconds: float) -> list[Path]:
        """Remove what was staged and not touched for so long; return what was removed."""
        return []

    def _web_source(self, uri: str) -> WebSource:
        source = parse_source(uri, self._endpoints)
        if not isinstance(source, WebSource):
            raise SourceRefusedError(shown(uri), "not yet")
        return source
