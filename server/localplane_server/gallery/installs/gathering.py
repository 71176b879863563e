"""Getting the files of a recipe together: what is there already, what is fetched, made and unpacked."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from localplane_server.downloads.progress import FileFacts, FileProgress, Phase, StagedFile
from localplane_server.errors import InvalidArgumentError, LocalplaneError
from localplane_server.gallery.blocking import Advance, interruptible
from localplane_server.gallery.checkpoints.conversions import convert
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.archives import Unpacked, is_archive, unpack
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.jobs.progress import FileStage, FileState, JobProgress
from localplane_server.jobs.work import Report

SPARE_BYTES = 64 << 20
"""Free space that unpacking leaves alone."""


class Source(Protocol):
    """Where files come from: the downloader."""

    async def facts(self, uri: str, *, sha256: str = "") -> FileFacts:
        """Find out about a file without fetching it."""

    async def fetch(
        self, uri: str, *, sha256: str = "", report: Callable[[FileProgress], None] = ...
    ) -> StagedFile:
        """Fetch a file, going on from what is staged of it."""

    async def discard(self, uri: str, *, sha256: str = "") -> None:
        """Throw away what is staged of a file."""


@dataclass(slots=True)
class Gathered:
    """The files of a recipe, all whole, each in its place or staged for it."""

    kept: list[str] = field(default_factory=list)
    """Files that are in their place already."""

    fetched: dict[str, Path] = field(default_factory=dict)
    """Files that were fetched or made, by where they belong."""

    unpacked: list[Unpacked] = field(default_factory=list)
    """Files that came out of archives."""

    fetched_bytes: int = 0
    """Size of what was fetched."""


class Told:
    """What is told of how far an installation is."""

    def __init__(self, files: Sequence[GalleryFile], report: Report) -> None:
        self._report = report
        self._files = {
            one.filename: FileState(name=one.filename, total_bytes=one.size_bytes) for one in files
        }
        self._phase = ""

    def add(self, name: str, total: int | None) -> None:
        """Tell of one more file, which is fetched only to make another of it."""
        self._files.setdefault(name, FileState(name=name, total_bytes=total))

    def phase(self, phase: str) -> None:
        """Tell what the whole is busy with."""
        self._phase = phase
        self._tell()

    def file(
        self,
        name: str,
        stage: FileStage | None = None,
        *,
        done: int | None = None,
        more: int = 0,
        total: int | None = None,
    ) -> None:
        """Tell of one file: its stage, what of it is there, or how much more of it, and its size."""
        before = self._files[name]
        after = replace(
            before,
            stage=before.stage if stage is None else stage,
            done_bytes=(before.done_bytes if done is None else done) + more,
            total_bytes=before.total_bytes if total is None else total,
        )
        if after != before:
            self._files[name] = after
            self._tell()

    def _tell(self) -> None:
        files = tuple(self._files.values())
        totals = [one.total_bytes for one in files]
        total = None if None in totals else sum(one for one in totals if one is not None)
        done = sum(one.done_bytes for one in files)
        self._report(
            JobProgress(phase=self._phase, done_bytes=done, total_bytes=total, files=files)
        )


class Gatherer:
    """Gets the files of recipes together. Nothing of the models folder changes."""

    def __init__(self, folder: ModelsFolder, source: Source) -> None:
        self._folder = folder
        self._source = source

    async def sizes(self, files: Sequence[GalleryFile]) -> list[int | None]:
        """Return the size of each file, where its gallery or its source tells.

        Raises:
            SourceRefusedError: If one is where nothing may be fetched from.
        """
        limit = asyncio.Semaphore(8)

        async def size(file: GalleryFile) -> int | None:
            if file.size_bytes is not None:
                return file.size_bytes
            async with limit:
                try:
                    return (await self._source.facts(file.uri, sha256=file.sha256)).size_bytes
                except InvalidArgumentError:
                    # Nobody may fetch it.
                    raise
                except LocalplaneError:
                    # Whoever fetches it will be told why.
                    return None

        return list(await asyncio.gather(*map(size, files)))

    async def gather(self, files: Sequence[GalleryFile], preparing: Path, told: Told) -> Gathered:
        """Return the files, once all of them are whole and on disk.

        Args:
            files: The files.
            preparing: An empty folder for what is made and unpacked.
            told: Is told how far it is.

        Raises:
            LocalplaneError: If one of them cannot be had.
        """
        gathered = Gathered()
        told.phase("verifying")
        missing = [one for one in files if not await self._is_kept(one, gathered, told)]
        for one, size in zip(missing, await self.sizes(missing), strict=True):
            told.file(one.filename, total=size)
        for one in missing:
            for source in one.sources:
                told.add(_source_name(one, source), source.size_bytes)
        for one in missing:
            if one.convert:
                await self._make(one, gathered, preparing, told)
            else:
                await self._fetch(one, gathered, told)
        for number, one in enumerate(files):
            if is_archive(one.filename):
                told.phase("unpacking")
                staged = gathered.fetched.get(one.filename, self._folder.root / one.filename)
                into = preparing / f"archive-{number}"
                gathered.unpacked += await _unpacked(staged, one.filename, into)
        return gathered

    async def _is_kept(self, file: GalleryFile, gathered: Gathered, told: Told) -> bool:
        """Whether a file is in its place and as it should be; one of which nobody says how it should be is."""
        name = file.filename
        size = await asyncio.to_thread(self._folder.size, name)
        if size is None:
            return False
        told.file(name, total=size)
        if file.sha256:
            told.file(name, FileStage.VERIFYING, done=0)

            def digest(advance: Advance) -> str | None:
                return self._folder.sha256(name, advance)

            found = await interruptible(digest, lambda more: told.file(name, more=more))
            if found != file.sha256.lower():
                told.file(name, FileStage.QUEUED, done=0)
                return False
        told.file(name, FileStage.DONE, done=size)
        gathered.kept.append(name)
        return True

    async def _fetch(self, file: GalleryFile, gathered: Gathered, told: Told) -> None:
        staged = await self._fetched(file, file.filename, gathered, told)
        gathered.fetched[file.filename] = staged.path

    async def _fetched(
        self, file: GalleryFile, name: str, gathered: Gathered, told: Told
    ) -> StagedFile:
        def report(progress: FileProgress) -> None:
            done, total = progress.done_bytes, progress.total_bytes
            if file.size_bytes is not None and total:
                # What comes may be packed, as a file in a wheel is: then it is told as a share of the file.
                done, total = done * file.size_bytes // total, file.size_bytes
            told.file(name, _STAGES[progress.phase], done=done, total=total)

        told.phase("downloading")
        staged = await self._source.fetch(file.uri, sha256=file.sha256.lower(), report=report)
        told.file(name, FileStage.DONE, done=staged.size_bytes, total=staged.size_bytes)
        gathered.fetched_bytes += staged.size_bytes
        return staged

    async def _make(
        self, file: GalleryFile, gathered: Gathered, preparing: Path, told: Told
    ) -> None:
        name = file.filename
        sources = {
            one.filename: await self._fetched(one, _source_name(file, one), gathered, told)
            for one in file.sources
        }
        target = preparing / f"made-{len(gathered.fetched)}"
        paths = {one: staged.path for one, staged in sources.items()}
        told.phase("converting")
        told.file(name, FileStage.DOWNLOADING, done=0)

        def work(advance: Advance) -> int:
            return convert(file, paths, target, advance)

        size = await interruptible(work, lambda more: told.file(name, more=more))
        told.file(name, FileStage.DONE, done=size, total=size)
        for staged in sources.values():
            await asyncio.to_thread(staged.path.unlink, missing_ok=True)
        gathered.fetched[name] = target

    async def discard(self, files: Sequence[GalleryFile]) -> None:
        """Throw away what is staged of files: of those that were taken, what they were packed in."""
        for file in files:
            for one in file.sources or (file,):
                await self._source.discard(one.uri, sha256=one.sha256.lower())


_STAGES = {
    Phase.CONNECTING: FileStage.DOWNLOADING,
    Phase.DOWNLOADING: FileStage.DOWNLOADING,
    Phase.VERIFYING: FileStage.VERIFYING,
    Phase.DONE: FileStage.DONE,
}


def _source_name(file: GalleryFile, source: GalleryFile) -> str:
    return f"{source.filename} for {file.filename}"


async def _unpacked(archive: Path, name: str, into: Path) -> list[Unpacked]:
    def work(advance: Advance) -> list[Unpacked]:
        into.mkdir()
        free = shutil.disk_usage(into).free - SPARE_BYTES
        return unpack(archive, name, into, free_bytes=free, advance=advance)

    return await interruptible(work, lambda _size: None)
