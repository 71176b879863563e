"""What an installation would come to: told without fetching what is large, and without changing anything."""

from __future__ import annotations

import asyncio
import enum
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from localplane_server.downloads.progress import FileFacts
from localplane_server.downloads.sources import is_in_wheel
from localplane_server.downloads.zip_parts import ZipMember, members_of
from localplane_server.errors import DownloadFailedError, LocalplaneError
from localplane_server.gallery.checkpoints.conversions import foreseen, looked_at
from localplane_server.gallery.checkpoints.gguf_header import HEADER_BYTES, HeaderError
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.archives import is_archive, is_left_out, is_zip
from localplane_server.gallery.installs.file_names import configuration_file
from localplane_server.gallery.installs.file_needs import FileNeeds, Needs, total
from localplane_server.gallery.installs.gathering import MOST_LOOK_SECONDS, Gatherer, Source
from localplane_server.gallery.installs.installation import check_name_is_free
from localplane_server.gallery.installs.memory_estimate import MemoryEstimate, estimate
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.recipe import Recipe
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.gallery.installs.resolution import Resolver
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import ModelConfig
from localplane_server.supervision.programs import BackendProgram, Choice

GGUF_SUFFIX = ".gguf"


class BackendPresence(enum.Enum):
    """Whether there is the backend that a model needs."""

    UNKNOWN = "unknown"
    """The configuration names none, and nobody can tell by the files."""
    PRESENT = "present"
    """There is one."""
    MISSING = "missing"
    """There is none of that name."""
    EXTRA_MISSING = "extra_missing"
    """There is one, and a part of the package that it needs is not installed."""


class FilePresence(enum.Enum):
    """How a file stands in the models folder, judged without reading it."""

    ABSENT = "absent"
    """It is not there, and will be fetched."""
    PRESENT = "present"
    """It is there, and of the size that it should have. Installing verifies it."""
    DIFFERENT = "different"
    """There is another one, which will be replaced."""


class Backends(Protocol):
    """The backends that can be used."""

    def get(self, name: str) -> Choice | None:
        """Return what a name means."""


class Looks(Protocol):
    """What can be seen of files that are not fetched."""

    async def beginning(self, uri: str, *, most_bytes: int) -> bytes:
        """Fetch the first bytes of a file, and no more."""

    async def members(self, uri: str) -> list[ZipMember]:
        """Return the files in a zip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """A file of the model."""

    filename: str
    """Where it belongs, below the models folder."""

    uri: str
    """Where it comes from."""

    size_bytes: int | None
    """Its size. None when its source does not tell."""

    presence: FilePresence
    """How it stands in the models folder."""

    fetch_bytes: int | None
    """What would be fetched for it. None when that is not known."""

    unpacked_bytes: int | None
    """Size of what is in it, if it is an archive. None if it is none, or that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an installation would come to."""

    name: str
    """Name under which the model would be installed."""

    is_installed: bool
    """Whether there is a configuration of that name, which would be replaced."""

    files: tuple[PlannedFile, ...]
    """Its files, in order."""

    written: tuple[str, ...]
    """Files that would be written besides."""

    total_bytes: int | None
    """Size of all files. None when one of them is not known."""

    fetch_bytes: int | None
    """What would be fetched. None when a part of it is not known."""

    needed_bytes: int | None
    """Space that it would take until it is done. None when that is not known."""

    needed_unknown: str
    """Why that is not known. Empty when it is."""

    free_bytes: int
    """Free space for them."""

    backend: str
    """The backend that would serve it. Empty when that is not known."""

    backend_presence: BackendPresence
    """Whether there is that backend."""

    missing_extra: str
    """The part of the package that the backend lacks. Empty when it lacks none."""

    memory: MemoryEstimate | None
    """What it would take while it is loaded. None when that cannot be told."""

    memory_unknown: str
    """Why its memory cannot be told. Empty when it can."""

    configuration: Mapping[str, Any] | None
    """The configuration that would be written. None when none would."""

    @property
    def fits(self) -> bool | None:
        """Whether there is space for it. None when nobody can tell."""
        if self.needed_bytes is not None:
            return self.needed_bytes <= self.free_bytes
        is_too_much = self.fetch_bytes is not None and self.fetch_bytes > self.free_bytes
        return False if is_too_much else None


class Planner:
    """Makes plans. Fetches small documents, and the beginning of a model file at most."""

    def __init__(
        self,
        folder: ModelsFolder,
        staging: Path,
        resolver: Resolver,
        source: Source,
        backends: Backends,
        *,
        catalog: ModelCatalog,
        looks: Looks | None = None,
        context_size: int | None = None,
    ) -> None:
        """Set up.

        Args:
            folder: The models folder.
            staging: Where files are while they are fetched.
            resolver: Makes recipes of requests.
            source: Where files come from.
            backends: The backends that can be used.
            catalog: The models there are.
            looks: Looks at files that are not fetched. Without it, only files that are there are looked at.
            context_size: The context that models get whose configuration says nothing.
        """
        self._folder = folder
        self._staging = staging
        self._resolver = resolver
        self._gatherer = Gatherer(folder, source)
        self._catalog = catalog
        self._backends = backends
        self._looks = looks
        self._context_size = context_size

    async def plan(self, request: InstallRequest) -> Plan:
        """Return what an installation would come to.

        Raises:
            ModelNotInGalleryError: If no gallery has the model.
            AlreadyExistsError: If a configuration has the name that was not installed under it.
            InvalidArgumentError: If it would not be installed as it is asked for.
            LocalplaneError: If what the gallery refers to cannot be fetched.
        """
        recipe = await self._resolver.resolve(request)
        check_name_is_free(recipe, self._catalog, self._folder)
        until = asyncio.get_running_loop().time() + MOST_LOOK_SECONDS
        needs = Needs(await self._facts(recipe.files, until))
        known = await asyncio.to_thread(
            lambda: [(one, *self._presence(one, needs)) for one in recipe.files]
        )
        archives = [await self._unpacked(one, standing, until) for one, standing, _ in known]
        files, spaces = [], []
        for (one, standing, size), (unpacked, why) in zip(known, archives, strict=True):
            if standing is FilePresence.PRESENT:
                need = FileNeeds(fetch_bytes=0, space_bytes=unpacked, unknown=why)
            else:
                need = needs.of(one, size, unpacked, why)
            spaces.append(need)
            files.append(
                PlannedFile(
                    filename=one.filename,
                    uri=one.uri,
                    size_bytes=size,
                    presence=standing,
                    fetch_bytes=need.fetch_bytes,
                    unpacked_bytes=unpacked if is_archive(one.filename) else None,
                )
            )
        backend, presence, extra = self._backend(recipe, files)
        memory, unknown = await self._memory(recipe, files, until)
        is_installed = await asyncio.to_thread(self._folder.size, configuration_file(recipe.name))
        return Plan(
            name=recipe.name,
            is_installed=is_installed is not None,
            files=tuple(files),
            written=recipe.written,
            total_bytes=total(one.size_bytes for one in files),
            fetch_bytes=total(one.fetch_bytes for one in files),
            needed_bytes=total(one.space_bytes for one in spaces),
            needed_unknown=next((one.unknown for one in spaces if one.space_bytes is None), ""),
            free_bytes=await asyncio.to_thread(self._free_bytes),
            backend=backend,
            backend_presence=presence,
            missing_extra=extra,
            memory=memory,
            memory_unknown=unknown,
            configuration=recipe.configuration,
        )

    async def _facts(self, files: Sequence[GalleryFile], until: float) -> dict[str, FileFacts]:
        """Return what sources tell of files of which the gallery does not tell enough, by what they are fetched by."""

        def unknown() -> list[GalleryFile]:
            wanted = {}
            for file in files:
                there = self._folder.size(file.filename)
                if there is not None and there == file.size_bytes:
                    continue
                for one in file.sources or (file,):
                    if one.size_bytes is None or is_in_wheel(one.uri):
                        wanted[one.source_uri] = one
            return list(wanted.values())

        asked = await asyncio.to_thread(unknown)
        told = await self._gatherer.facts(asked, until)
        return {
            one.source_uri: facts
            for one, facts in zip(asked, told, strict=True)
            if facts is not None
        }

    def _presence(self, file: GalleryFile, needs: Needs) -> tuple[FilePresence, int | None]:
        """Return how a file stands in the models folder, and its size."""
        there = self._folder.size(file.filename)
        told = file.size_bytes if file.sources else needs.size(file)
        if there is None:
            return FilePresence.ABSENT, told
        if told is None or told == there or not file.sha256:
            return FilePresence.PRESENT, there if told is None else told
        return FilePresence.DIFFERENT, told

    async def _unpacked(
        self, file: GalleryFile, presence: FilePresence, until: float
    ) -> tuple[int | None, str]:
        """Return the size of what comes out of an archive, 0 of what is none; or why it cannot be told."""
        name = file.filename
        if not is_archive(name):
            return 0, ""
        if not is_zip(name):
            return None, f"{name} does not tell how much is in it"
        try:
            if presence is FilePresence.PRESENT:
                found = await asyncio.to_thread(_members, self._folder.root / name)
            elif self._looks is None:
                return None, f"{name} was not looked into"
            else:
                async with asyncio.timeout_at(until):
                    found = await self._looks.members(file.source_uri)
        except TimeoutError:
            return None, f"looking into {name} took too long"
        except LocalplaneError as error:
            return None, error.message
        return sum(one.size_bytes for one in found if not is_left_out(one.name)), ""

    def _backend(
        self, recipe: Recipe, files: Sequence[PlannedFile]
    ) -> tuple[str, BackendPresence, str]:
        name = recipe.backend
        if not name and _weights(recipe, files) is not None:
            name = "llama"
        if not name:
            return "", BackendPresence.UNKNOWN, ""
        choice = self._backends.get(name)
        if choice is None:
            return name, BackendPresence.MISSING, ""
        program = choice.backend
        extra = program.missing if isinstance(program, BackendProgram) else None
        if extra:
            return name, BackendPresence.EXTRA_MISSING, extra
        return name, BackendPresence.PRESENT, ""

    def _free_bytes(self) -> int:
        """Return the free space where files are fetched to and where they belong, whichever has less."""
        return min(
            shutil.disk_usage(_existing(one)).free for one in (self._staging, self._folder.root)
        )

    async def _memory(
        self, recipe: Recipe, files: Sequence[PlannedFile], until: float
    ) -> tuple[MemoryEstimate | None, str]:
        weights = _weights(recipe, files)
        if weights is None:
            return None, "it has no model file in the format GGUF"
        try:
            async with asyncio.timeout_at(until):
                header, size = await self._header(recipe, weights)
            if header is None:
                return None, "its model file was not looked at"
            others = [one for one in files if one is not weights and _is_model_file(one)]
            size = total([size, *(one.size_bytes for one in others)])
            if size is None:
                return None, "the size of its files is not known"
            model = recipe.model() or ModelConfig(name=recipe.name)
            model = replace(model, context_size=model.context_size or self._context_size)
            return estimate(header, size, model), ""
        except TimeoutError:
            return None, "looking at its model file took too long"
        except HeaderError as error:
            return None, f"its model file cannot be understood: {error}"
        except LocalplaneError as error:
            return None, error.message

    async def _header(
        self, recipe: Recipe, planned: PlannedFile
    ) -> tuple[bytes | None, int | None]:
        """Return how a model file begins, or will, and its size."""
        size = planned.size_bytes
        if planned.presence is FilePresence.PRESENT:
            return await asyncio.to_thread(_head, self._folder.root / planned.filename), size
        if self._looks is None:
            return None, size
        file = next(one for one in recipe.files if one.filename == planned.filename)
        if not file.convert:
            return await self._looks.beginning(file.source_uri, most_bytes=HEADER_BYTES), size
        beginnings = {
            one.filename: await self._looks.beginning(one.source_uri, most_bytes=HEADER_BYTES)
            for one in looked_at(file)
        }
        return await asyncio.to_thread(foreseen, file, beginnings)


def _is_model_file(file: PlannedFile) -> bool:
    return file.filename.lower().endswith(GGUF_SUFFIX)


def _weights(recipe: Recipe, files: Sequence[PlannedFile]) -> PlannedFile | None:
    """Return the model file: the one that the configuration names, or else the first that looks like one."""
    model = recipe.model()
    named = model.file if model is not None else ""
    candidates = [one for one in files if _is_model_file(one)]
    return next((one for one in candidates if one.filename == named), next(iter(candidates), None))


def _members(path: Path) -> list[ZipMember]:
    try:
        with path.open("rb") as file:
            return members_of(file, path.name)
    except OSError as error:
        raise DownloadFailedError(path.name, str(error.strerror)) from error


def _existing(path: Path) -> Path:
    return path if os.path.lexists(path) or path == path.parent else _existing(path.parent)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEADER_BYTES)
    except OSError as error:
        raise HeaderError(str(error.strerror)) from error
