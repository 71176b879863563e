"""What an installation would come to: told without fetching what is large, and without changing anything."""

from __future__ import annotations

import asyncio
import enum
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from localplane_server.errors import LocalplaneError
from localplane_server.gallery.checkpoints.gguf_header import HEADER_BYTES, HeaderError
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.file_names import configuration_file
from localplane_server.gallery.installs.gathering import Gatherer, Source
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


class Beginnings(Protocol):
    """Where the beginnings of files come from."""

    async def beginning(self, uri: str, *, most_bytes: int) -> bytes:
        """Fetch the first bytes of a file, and no more."""


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
    """Size of those to fetch. None when one of them is not known."""

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
        """Whether there is space for what is to be fetched. None when its size is not known."""
        return None if self.fetch_bytes is None else self.fetch_bytes <= self.free_bytes


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
        beginnings: Beginnings | None = None,
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
            beginnings: Where the beginnings of files come from. Without one, only files that are there are looked at.
            context_size: The context that models get whose configuration says nothing.
        """
        self._folder = folder
        self._staging = staging
        self._resolver = resolver
        self._gatherer = Gatherer(folder, source)
        self._catalog = catalog
        self._backends = backends
        self._beginnings = beginnings
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
        told = await self._gatherer.sizes(recipe.files)
        files = await asyncio.to_thread(
            lambda: tuple(
                self._planned(one, size) for one, size in zip(recipe.files, told, strict=True)
            )
        )
        backend, presence, extra = self._backend(recipe, files)
        memory, unknown = await self._memory(recipe, files)
        is_installed = await asyncio.to_thread(self._folder.size, configuration_file(recipe.name))
        return Plan(
            name=recipe.name,
            is_installed=is_installed is not None,
            files=files,
            written=recipe.written,
            total_bytes=_sum(one.size_bytes for one in files),
            fetch_bytes=_sum(one.fetch_bytes for one in files),
            free_bytes=await asyncio.to_thread(self._free_bytes),
            backend=backend,
            backend_presence=presence,
            missing_extra=extra,
            memory=memory,
            memory_unknown=unknown,
            configuration=recipe.configuration,
        )

    def _planned(self, file: GalleryFile, told: int | None) -> PlannedFile:
        there = self._folder.size(file.filename)
        if there is None:
            presence = FilePresence.ABSENT
        elif told is None or told == there or not file.sha256:
            presence = FilePresence.PRESENT
        else:
            presence = FilePresence.DIFFERENT
        size = there if told is None else told
        fetched = _sum(one.size_bytes for one in file.sources) if file.sources else size
        return PlannedFile(
            filename=file.filename,
            uri=file.uri,
            size_bytes=size,
            presence=presence,
            fetch_bytes=0 if presence is FilePresence.PRESENT else fetched,
        )

    def _backend(
        self, recipe: Recipe, files: tuple[PlannedFile, ...]
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
        self, recipe: Recipe, files: tuple[PlannedFile, ...]
    ) -> tuple[MemoryEstimate | None, str]:
        weights = _weights(recipe, files)
        if weights is None:
            return None, "it has no model file in the format GGUF"
        size = _sum(one.size_bytes for one in files if one.filename.lower().endswith(GGUF_SUFFIX))
        if size is None:
            return None, "the size of its files is not known"
        try:
            header = await self._header(weights)
            if header is None:
                return None, "its model file was not looked at"
            model = recipe.model() or ModelConfig(name=recipe.name)
            model = replace(model, context_size=model.context_size or self._context_size)
            return estimate(header, size, model), ""
        except HeaderError as error:
            return None, f"its model file cannot be understood: {error}"
        except LocalplaneError as error:
            return None, error.message

    async def _header(self, file: PlannedFile) -> bytes | None:
        if file.presence is FilePresence.PRESENT:
            return await asyncio.to_thread(_head, self._folder.root / file.filename)
        if self._beginnings is None:
            return None
        return await self._beginnings.beginning(file.uri, most_bytes=HEADER_BYTES)


def _weights(recipe: Recipe, files: tuple[PlannedFile, ...]) -> PlannedFile | None:
    """Return the model file: the one that the configuration names, or else the first that looks like one."""
    model = recipe.model()
    named = model.file if model is not None else ""
    candidates = [one for one in files if one.filename.lower().endswith(GGUF_SUFFIX)]
    return next((one for one in candidates if one.filename == named), next(iter(candidates), None))


def _sum(sizes: Iterable[int | None]) -> int | None:
    found = list(sizes)
    return None if None in found else sum(one for one in found if one is not None)


def _existing(path: Path) -> Path:
    return path if os.path.lexists(path) or path == path.parent else _existing(path.parent)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEADER_BYTES)
    except OSError as error:
        raise HeaderError(str(error.strerror)) from error
