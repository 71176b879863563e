"""A source of files and documents for tests of installations: what it has is in memory, what it fetches on disk."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

from localplane_server.downloads.progress import (
    Document,
    FileFacts,
    FileProgress,
    Phase,
    StagedFile,
    Validators,
)
from localplane_server.errors import DigestMismatchError, DownloadFailedError


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


class StagedSource:
    """Keeps to what the downloader promises."""

    def __init__(self, staging: Path) -> None:
        self._staging = staging
        self.contents: dict[str, bytes] = {}
        """What there is, by its URI."""
        self.wheels: dict[str, tuple[str, int]] = {}
        """URLs and sizes of the wheels that some of it comes in."""
        self.fetched: list[str] = []
        """URIs of files that were fetched."""
        self.read_documents: list[str] = []
        """URIs of documents that were read."""
        self.discarded: list[tuple[str, str]] = []
        """URIs and digests of what was thrown away."""
        self.stalls_at: str = ""
        """URI at which it stands still."""
        self.has_stalled = asyncio.Event()
        """Set once it stands still."""
        self.go_on = asyncio.Event()
        """Whoever sets it lets it go on."""

    def offer(self, uri: str, content: bytes) -> str:
        """Have something, and return its SHA-256."""
        self.contents[uri] = content
        return digest(content)

    async def facts(self, uri: str, *, sha256: str = "") -> FileFacts:
        """Tell the size."""
        wheel = self.wheels.get(uri, ("", None))
        return FileFacts(len(self._content(uri)), uri.rpartition("/")[2], sha256, *wheel)

    async def fetch(
        self,
        uri: str,
        *,
        sha256: str = "",
        report: Callable[[FileProgress], None] = lambda _progress: None,
    ) -> StagedFile:
        """Put it on the disk."""
        content = self._content(uri)
        report(FileProgress(Phase.CONNECTING, 0))
        report(FileProgress(Phase.DOWNLOADING, len(content) // 2, len(content)))
        if uri == self.stalls_at:
            self.has_stalled.set()
            await self.go_on.wait()
        if sha256 and sha256 != digest(content):
            raise DigestMismatchError(uri, sha256, digest(content))
        self._staging.mkdir(parents=True, exist_ok=True)
        path = self._staging / uuid.uuid4().hex
        path.write_bytes(content)
        self.fetched.append(uri)
        report(FileProgress(Phase.DONE, len(content), len(content)))
        return StagedFile(path, len(content), digest(content))

    async def read(
        self, uri: str, *, most_bytes: int, validators: Validators | None = None
    ) -> Document | None:
        """Return it, if it is not too large."""
        content = self._content(uri)
        if len(content) > most_bytes:
            raise DownloadFailedError(uri, "it is too large")
        self.read_documents.append(uri)
        return Document(content, validators or Validators())

    async def discard(self, uri: str, *, sha256: str = "") -> None:
        """Remember it."""
        self.discarded.append((uri, sha256))

    def _content(self, uri: str) -> bytes:
        try:
            return self.contents[uri]
        except KeyError:
            raise DownloadFailedError(uri, "there is no such file") from None
