"""Getting the files of a recipe together: what is there already, what is fetched, made and unpacked."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from localplane_server.downloads.progress import FileFacts, FileProgress, Phase, StagedFile
from localplane_server.downloads.sources import is_in_wheel
from localplane_server.errors import InvalidArgumentError, LocalplaneError
from localplane_server.gallery.blocking import Advance, interruptible
from localplane_server.gallery.checkpoints.conversions import convert
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.archives import Unpacked, is_archive, unpack
from localplane_server.gallery.installs.download_places import DownloadPlaces
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.jobs.progress import FileStage, FileState, JobProgress
from localplane_server.jobs.work import Report

LOOKS = 8
"""How many files are asked about at a time."""
MOST_LOOK_SECONDS = 120.0
"""How long looking at files may take in all, however many they are. What is not told by then is not known."""
SPARE_BYTES = 64 << 20
"""Free space that unpacking leaves alone."""

_Result = TypeVar("_Result")


class Source(Protocol):
    """Where files come from: the downloader."""

    async def facts(self, uri: str, *, sha256: str = "") -> FileFacts:
        """Find out about a file without fetching it."""

    async def fetch(
        self, uri: str, *, sha256: str = "", report: Callable[[FileProgress], None] = ...
    ) -> StagedFile:
        """Fetch a file, going on from what is staged of it."""

    def needing(self, uris: Iterable[str]) -> AbstractContextManager[None]:
        """Keep what files are packed in for as long as the context is open, whoever else throws it away."""

    async def give_back(self, staged: StagedFile) -> None:
        """Take back a file that was fetched and is not needed at the moment."""

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

    staged: list[StagedFile] = field(default_factory=list)
    """What was fetched, as it was staged."""


class Told:
    """What is told of how far an installation is."""

    def __init__(self, files: Sequence[GalleryFile], report: Report) -> None:
        self._report = report
        self._files: dict[str, FileState] = {}
        for one in files:
            self.add(one.filename, one.size_bytes)
        # What is to be done besides is told from the beginning, too: the share that is done never becomes less.
        for one in files:
            for source in one.sources:
                self.add(_source_name(one, source), source.size_bytes)
            if is_archive(one.filename):
                self.add(_contents_name(one), one.size_bytes)
        self._contents = {_contents_name(one) for one in files}
        self._phase = ""

    def add(self, name: str, total: int | None) -> None:
        """Tell of one more file. Adding one that is told of does nothing."""
        self._files.setdefault(name, FileState(name=name, total_bytes=total))

    def drop(self, name: str) -> None:
        """Tell nothing more of a file, which is not needed."""
        self._files.pop(name, None)

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

    def size_contents(self, file: GalleryFile, archive_bytes: int | None) -> None:
        """Tell how large a file is, if it is an archive, of which what is in it is told as a share."""
        if is_archive(file.filename):
            self.file(_contents_name(file), total=archive_bytes)

    def _tell(self) -> None:
        files = tuple(self._files.values())
        fetched = [one for one in files if one.name not in self._contents]
        totals = [one.total_bytes for one in fetched]
        total = None if None in totals else sum(one for one in totals if one is not None)
        done = sum(one.done_bytes for one in fetched)
        self._report(
            JobProgress(phase=self._phase, done_bytes=done, total_bytes=total, files=files)
        )


class Gatherer:
    """Gets the files of recipes together. Nothing of the models folder changes."""

    def __init__(
        self, folder: ModelsFolder, source: Source, places: DownloadPlaces | None = None
    ) -> None:
        """Set up.

        Args:
            folder: The models folder.
            source: Where files come from.
            places: Places for files that come at the same time. Without them, one after the other comes.
        """
        self._folder = folder
        self._source = source
        self._places = places or DownloadPlaces(1)

    async def facts(
        self, files: Sequence[GalleryFile], until: float | None = None
    ) -> list[FileFacts | None]:
        """Return what the sources of files tell. None of those that tell nothing, or not in time.

        Args:
            files: The files.
            until: How long it may take, by the clock of the event loop, if not as long as it mostly may.

        Raises:
            SourceRefusedError: If one is where nothing may be fetched from.
        """
        until = until or asyncio.get_running_loop().time() + MOST_LOOK_SECONDS
        limit = asyncio.Semaphore(LOOKS)

        async def facts(file: GalleryFile) -> FileFacts | None:
            try:
                async with asyncio.timeout_at(until), limit:
                    return await self._source.facts(file.source_uri, sha256=file.sha256)
            except InvalidArgumentError:
                # Nobody may fetch it.
                raise
            except (LocalplaneError, TimeoutError):
                # Whoever fetches it will be told why.
                return None

        # If one is refused, nobody needs to know any more of the others.
        return await side_by_side(facts(file) for file in files)

    async def gather(self, files: Sequence[GalleryFile], preparing: Path, told: Told) -> Gathered:
        """Return the files, once all of them are whole and on disk.

        Args:
            files: The files.
            preparing: An empty folder for what is made and unpacked.
            told: Is told how far it is.

        Raises:
            LocalplaneError: If one of them cannot be had. What was fetched is given back.
        """
        gathered = Gathered()
        try:
            await self._gather(gathered, files, preparing, told)
        except BaseException:
            await self.give_back(gathered)
            raise
        return gathered

    async def give_back(self, gathered: Gathered) -> None:
        """Leave what was fetched where it is staged, for whoever needs it next."""
        for staged in gathered.staged:
            await self._source.give_back(staged)

    async def _gather(
        self, gathered: Gathered, files: Sequence[GalleryFile], preparing: Path, told: Told
    ) -> None:
        told.phase("verifying")
        missing = [one for one in files if not await self._is_kept(one, gathered, told)]
        pieces = [one for file in missing for one in file.sources or (file,)]
        with self._source.needing(one.source_uri for one in pieces):
            expected = await self._expected(missing, told)
            staged = await self._fetched_all(missing, expected, gathered, told)
        for one in missing:
            if one.convert:
                sources = [staged[_source_name(one, source)] for source in one.sources]
                await self._make(one, sources, gathered, preparing, told)
            else:
                gathered.fetched[one.filename] = staged[one.filename].path
        for number, one in enumerate(files):
            if is_archive(one.filename):
                archive = gathered.fetched.get(one.filename, self._folder.root / one.filename)
                into = preparing / f"archive-{number}"
                gathered.unpacked += await _unpacked(archive, one, into, told)

    async def _expected(self, files: Sequence[GalleryFile], told: Told) -> dict[str, int]:
        """Return the sizes of files to fetch, as far as anybody tells, by what they are fetched by."""
        pieces = [one for file in files for one in file.sources or (file,)]
        known = {one.source_uri: one.size_bytes for one in pieces if one.size_bytes is not None}
        unknown = [one for one in pieces if one.size_bytes is None]
        for one, facts in zip(unknown, await self.facts(unknown), strict=True):
            if facts is not None and facts.size_bytes is not None:
                known[one.source_uri] = facts.size_bytes
        for file in files:
            if not file.convert:
                told.file(file.filename, total=known.get(file.source_uri))
                told.size_contents(file, known.get(file.source_uri))
        return known

    async def _fetched_all(
        self,
        files: Sequence[GalleryFile],
        expected: Mapping[str, int],
        gathered: Gathered,
        told: Told,
    ) -> dict[str, StagedFile]:
        """Fetch files, and what files are made of, several at a time; return them by the names they are told by.

        The first that fails ends the others, and what there is of them stays staged.
        """
        pieces = {one.filename: one for one in files if not one.convert}
        pieces |= {_source_name(one, source): source for one in files for source in one.sources}
        staged: dict[str, StagedFile] = {}
        for name, file in pieces.items():
            told.add(name, file.size_bytes)
        if pieces:
            told.phase("downloading")

        has_failed = False

        async def fetch(name: str, file: GalleryFile) -> None:
            nonlocal has_failed
            async with self._places.place(told):
                if has_failed:
                    return
                try:
                    staged[name] = await self._fetched(
                        file, name, expected.get(file.source_uri), told
                    )
                    gathered.staged.append(staged[name])
                except Exception:
                    # Whoever is next gets the place before it is cancelled.
                    has_failed = True
                    raise

        await side_by_side(fetch(name, file) for name, file in pieces.items())
        gathered.fetched_bytes += sum(one.size_bytes for one in staged.values())
        return staged

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
        for source in file.sources:
            told.drop(_source_name(file, source))
        told.file(name, FileStage.DONE, done=size)
        told.size_contents(file, size)
        gathered.kept.append(name)
        return True

    async def _fetched(
        self, file: GalleryFile, name: str, size: int | None, told: Told
    ) -> StagedFile:
        def report(progress: FileProgress) -> None:
            done, total = progress.done_bytes, progress.total_bytes
            if is_in_wheel(file.uri):
                # What comes is the wheel: it is told as a share of the file, if anybody knows how large that is.
                done = done * size // total if size is not None and total else 0
                total = size
            told.size_contents(file, total)
            told.file(name, _STAGES[progress.phase], done=done, total=total)

        staged = await self._source.fetch(
            file.source_uri, sha256=file.sha256.lower(), report=report
        )
        told.file(name, FileStage.DONE, done=staged.size_bytes, total=staged.size_bytes)
        told.size_contents(file, staged.size_bytes)
        return staged

    async def _make(
        self,
        file: GalleryFile,
        sources: Sequence[StagedFile],
        gathered: Gathered,
        preparing: Path,
        told: Told,
    ) -> None:
        name = file.filename
        target = preparing / f"made-{len(gathered.fetched)}"
        named = zip(file.sources, sources, strict=True)
        paths = {one.filename: staged.path for one, staged in named}
        told.phase("converting")
        told.file(name, FileStage.CONVERTING, done=0)

        def work(advance: Advance) -> int:
            return convert(file, paths, target, advance)

        size = await interruptible(work, lambda more: told.file(name, more=more))
        told.file(name, FileStage.DONE, done=size, total=size)
        for staged in sources:
            await asyncio.to_thread(staged.path.unlink, missing_ok=True)
        gathered.fetched[name] = target

    async def discard(
        self, files: Sequence[GalleryFile], *, besides: frozenset[str] = frozenset()
    ) -> None:
        """Throw away what is staged of files: of those that were taken, what they were packed in.

        Args:
            files: The files.
            besides: Names by which they are told of, of those that stay.
        """
        pieces = [(file.filename, file) for file in files if not file.sources]
        pieces += [(_source_name(file, one), one) for file in files for one in file.sources]
        for name, one in pieces:
            if name not in besides:
                await self._source.discard(one.source_uri, sha256=one.sha256.lower())


async def side_by_side(works: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Do several things at a time and return what they return, in order. The first that fails ends the others."""
    try:
        async with asyncio.TaskGroup() as tasks:
            done = [tasks.create_task(one) for one in works]
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return [one.result() for one in done]


_STAGES = {
    Phase.CONNECTING: FileStage.DOWNLOADING,
    Phase.DOWNLOADING: FileStage.DOWNLOADING,
    Phase.VERIFYING: FileStage.VERIFYING,
    Phase.DONE: FileStage.DONE,
}


def _source_name(file: GalleryFile, source: GalleryFile) -> str:
    return f"{source.filename} for {file.filename}"


def _contents_name(file: GalleryFile) -> str:
    return f"contents of {file.filename}"


async def _unpacked(archive: Path, file: GalleryFile, into: Path, told: Told) -> list[Unpacked]:
    contents = _contents_name(file)
    told.phase("unpacking")
    told.file(contents, FileStage.UNPACKING, done=0)

    def work(advance: Advance) -> list[Unpacked]:
        into.mkdir()
        free = shutil.disk_usage(into).free - SPARE_BYTES
        return unpack(archive, file.filename, into, free_bytes=free, advance=advance)

    found = await interruptible(work, lambda more: told.file(contents, more=more))
    size = await asyncio.to_thread(lambda: archive.stat().st_size)
    told.file(contents, FileStage.DONE, done=size, total=size)
    return found
