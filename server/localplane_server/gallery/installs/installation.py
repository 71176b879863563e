"""Installing models: wholly or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localplane_server.errors import (
    AlreadyExistsError,
    InstallFailedError,
    InsufficientStorageError,
    LocalplaneError,
)
from localplane_server.gallery.blocking import uninterrupted
from localplane_server.gallery.installs.archives import Unpacked
from localplane_server.gallery.installs.changes import Changes
from localplane_server.gallery.installs.download_places import (
    PARALLEL_DOWNLOADS,
    DownloadPlaces,
)
from localplane_server.gallery.installs.file_names import (
    TEMPLATE_SUFFIX,
    check_file_name,
    configuration_file,
    gallery_file,
)
from localplane_server.gallery.installs.gathering import Gathered, Gatherer, Source, Told
from localplane_server.gallery.installs.models_folder import CHUNK_BYTES, ModelsFolder
from localplane_server.gallery.installs.publication import Publication
from localplane_server.gallery.installs.recipe import Recipe
from localplane_server.gallery.installs.references import (
    References,
    read_gallery_file,
    recorded_files,
)
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.gallery.installs.resolution import Resolver
from localplane_server.gallery.installs.scanning import Scanner
from localplane_server.gallery.installs.stopped import StoppedInstallations
from localplane_server.gallery.installs.turns import Turns
from localplane_server.jobs.progress import JobProgress
from localplane_server.jobs.work import Report
from localplane_server.models.catalog import ModelCatalog

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often files are gathered when somebody else takes or changes them meanwhile."""
LOOK_SECONDS = 2.0
"""How long whoever throws away what was fetched waits to hear what that is."""


class Unloader(Protocol):
    """Ends the backends of models."""

    async def unload(self, model: str) -> int | None:
        """End the backend of a model and return the memory that came back; None if it was not loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What an installation came to."""

    name: str
    """Name of the model."""

    files: tuple[str, ...]
    """Every file of it, below the models folder: fetched, unpacked, written, or there before."""

    kept: tuple[str, ...]
    """Those of them that were there before, and as they should be."""

    removed: tuple[str, ...]
    """Files of an earlier installation of the name that nobody needs any more."""

    fetched_bytes: int
    """What was fetched."""

    backend: str
    """The backend that the configuration names. Empty when it names none."""

    was_loaded: bool
    """Whether it was loaded, and was unloaded so that the next call loads what is there now."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "name": self.name,
            "files": list(self.files),
            "kept": list(self.kept),
            "removed": list(self.removed),
            "fetched_bytes": self.fetched_bytes,
            "backend": self.backend,
            "was_loaded": self.was_loaded,
        }


class Installer:
    """Installs models. Installations may run at the same time, and change the models folder one after the other."""

    def __init__(
        self,
        changes: Changes,
        resolver: Resolver,
        source: Source,
        catalog: ModelCatalog,
        unloader: Unloader,
        *,
        turns: Turns | None = None,
        scanner: Scanner | None = None,
        parallel_downloads: int = PARALLEL_DOWNLOADS,
    ) -> None:
        """Set up.

        Args:
            changes: Changes the models folder.
            resolver: Makes recipes of requests.
            source: Where files come from.
            catalog: The models that there are.
            unloader: Ends the backends of models.
            turns: Keeps it from a model that somebody else changes. Without it, only its own installations wait.
            scanner: Asks whether files are safe. Without one, nobody asks.
            parallel_downloads: How many files may come at a time, for all installations.
        """
        self._changes = changes
        self._folder = changes.folder
        self._resolver = resolver
        self._gatherer = Gatherer(changes.folder, source, DownloadPlaces(parallel_downloads))
        self._catalog = catalog
        self._unloader = unloader
        self._scanner = scanner
        self._turns = turns or Turns()
        self._stopped = StoppedInstallations()

    async def install(self, request: InstallRequest, report: Report) -> Installed:
        """Install a model, or bring what is installed of that name to what it is to be.

        First all files are fetched and checked, then all are put in place, the configuration last. A file that is
        there and as it should be is not fetched again. Until the last step nothing of the models folder changes, and
        cancelling keeps what was fetched for the next time; the last step is not interrupted. A model that is loaded
        goes on serving until then, and is unloaded afterwards: the next call loads what is there now.

        One model is installed or deleted at a time, whatever it was asked for by: it begins once what began before has
        ended.

        Raises:
            ModelNotInGalleryError: If no gallery has the model.
            AlreadyExistsError: If a configuration has the name that was not installed under it.
            InvalidArgumentError: If it is not to be installed as it is asked for.
            UnsafeFilesError: If a hub calls files unsafe where it comes from.
            LocalplaneError: If a file cannot be had, or not be put in place. Everything is as it was then.
        """
        report(JobProgress(phase="resolving"))
        try:
            recipe = await self._resolver.resolve(request)
        except Exception:
            # It has ended. Stopped in the meantime, it would be what it was before.
            self._stopped.pop(request)
            raise
        self._stopped.pop(request)
        try:
            if self._turns.is_taken(recipe.name):
                report(JobProgress(phase="waiting"))
            async with self._turns.of(recipe.name):
                return await self._install(recipe, report)
        except asyncio.CancelledError:
            self._stopped.add(request, recipe.files)
            raise

    async def _install(self, recipe: Recipe, report: Report) -> Installed:
        check_name_is_free(recipe, self._catalog, self._folder)
        if self._scanner is not None:
            await self._scanner.check(recipe.name, recipe.files)
        publishing = await self._publish(recipe, Told(recipe.files, report))
        # It is installed now, whoever wants to call that off.
        freed = await uninterrupted(self._settle(recipe, publishing))
        return Installed(
            name=recipe.name,
            files=tuple(sorted({*publishing.installed, *recipe.written})),
            kept=tuple(sorted(publishing.kept)),
            removed=tuple(sorted(publishing.superseded)),
            fetched_bytes=publishing.gathered.fetched_bytes,
            backend=recipe.backend,
            was_loaded=freed is not None,
        )

    async def _settle(self, recipe: Recipe, publishing: _Publishing) -> int | None:
        """Clear up after files were put in place. Whatever fails now, the model is installed."""
        fetched = [one for one in recipe.files if one.filename in publishing.gathered.fetched]
        try:
            await self._gatherer.discard(fetched)
        except Exception:
            # It is removed when it is old.
            log.exception("cannot throw away what was fetched", extra={"model": recipe.name})
        try:
            return await self._unloader.unload(recipe.name)
        except Exception:
            log.exception(
                "a model was installed anew and cannot be unloaded", extra={"model": recipe.name}
            )
            return None

    async def _publish(self, recipe: Recipe, told: Told) -> _Publishing:
        attempts = 0
        while True:
            attempts += 1
            async with self._changes.preparing() as preparing:
                gathered = await self._gatherer.gather(recipe.files, preparing, told)
                told.phase("publishing")
                publishing = _Publishing(recipe, gathered, self._folder)
                try:
                    await self._changes.make(publishing.describe, model=recipe.name)
                except FileNotFoundError as error:
                    # Another installation took the same staged file, or a deletion a file that was to be kept.
                    if attempts == ATTEMPTS:
                        message = f"cannot install {recipe.name}: a file vanished again and again"
                        raise InstallFailedError(message, model=recipe.name) from error
                else:
                    return publishing
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # It was called off while it could not be, and in the end nothing was put in place.
                raise asyncio.CancelledError

    async def discard(self, request: InstallRequest) -> None:
        """Throw away what an installation that did not end has fetched. What cannot be found out soon stays."""
        files = self._stopped.pop(request)
        if files is None:
            try:
                # Perhaps it is cancelled because just that takes for ever.
                async with asyncio.timeout(LOOK_SECONDS):
                    files = (await self._resolver.resolve(request)).files
            except (LocalplaneError, TimeoutError):
                return
        await self._gatherer.discard(files)


def check_name_is_free(recipe: Recipe, catalog: ModelCatalog, folder: ModelsFolder) -> None:
    """Check that nothing but an earlier installation of the name goes when a model is installed.

    Raises:
        AlreadyExistsError: If a configuration has the name, or one of the aliases, that was not installed under it.
    """
    if recipe.configuration is None:
        return
    own = configuration_file(recipe.name)
    aliases = recipe.configuration.get("aliases")
    names = {recipe.name, *(aliases if isinstance(aliases, list) else ())}
    for model in catalog.configured():
        taken = names & {model.name, *model.aliases}
        if taken and model.config_file != own:
            name = min(taken)
            message = (
                f"cannot install {recipe.name}: {model.config_file} has a model of the name {name}"
            )
            raise AlreadyExistsError(message, model=name, file=model.config_file or "")
    if folder.stat(own) is not None and folder.stat(gallery_file(recipe.name)) is None:
        message = (
            f"cannot install {recipe.name}: {own} was not installed but written by somebody;"
            " give another name, or delete that model first"
        )
        raise AlreadyExistsError(message, model=recipe.name, file=own)


class _Publishing:
    """What an installation changes of the models folder."""

    def __init__(self, recipe: Recipe, gathered: Gathered, folder: ModelsFolder) -> None:
        self._recipe = recipe
        self.gathered = gathered
        self._folder = folder
        self.kept: list[str] = []
        self.installed: list[str] = []
        self.superseded: list[str] = []

    def describe(self, publication: Publication) -> None:
        """Say what changes, the configuration last."""
        recipe, gathered = self._recipe, self.gathered
        before = self._recorded()
        references = References(self._folder)
        own = frozenset(recipe.written) | {configuration_file(recipe.name)}
        self._check_space()
        for path in gathered.kept:
            if self._folder.size(path) is None:
                raise FileNotFoundError(path)
        self.kept = list(gathered.kept)
        self.installed = [*gathered.kept, *gathered.fetched]
        for path, staged in gathered.fetched.items():
            self._check_place(path)
            publication.add(path, staged)
        for one in gathered.unpacked:
            if one.name in gathered.fetched or one.name in gathered.kept:
                continue
            self.installed.append(one.name)
            if self._is_there(one):
                self.kept.append(one.name)
                continue
            users = references.configured_users_of(one.name, besides=own)
            if self._folder.stat(one.name) is not None and users:
                message = (
                    f"cannot install {recipe.name}: {one.name} out of an archive would replace"
                    f" a file of {', '.join(users)}"
                )
                raise AlreadyExistsError(message, file=one.name, users=", ".join(users))
            self._check_place(one.name)
            publication.add(one.name, one.path)
        for template in recipe.templates:
            path = f"{template.name}{TEMPLATE_SUFFIX}"
            self.installed.append(path)
            self._check_place(path)
            publication.write(path, template.content)
        self._supersede(publication, before, references, own)
        publication.write(gallery_file(recipe.name), recipe.gallery_text(tuple(self.installed)))
        text = recipe.configuration_text
        if text is not None:
            publication.write(configuration_file(recipe.name), text)

    def _supersede(
        self,
        publication: Publication,
        before: list[str],
        references: References,
        own: frozenset[str],
    ) -> None:
        for path in before:
            if path in self.installed or self._folder.size(path) is None:
                continue
            if not references.users_of(path, besides=own):
                self.superseded.append(path)
                publication.remove(path)

    def _recorded(self) -> list[str]:
        content: Mapping[str, Any] | None = read_gallery_file(
            self._folder, gallery_file(self._recipe.name)
        )
        found = []
        for path in recorded_files(content or {}):
            # Whoever wrote it: only what we could have installed is ours to remove.
            with suppress(LocalplaneError):
                found.append(check_file_name(path, field="files"))
        return found

    def _check_place(self, path: str) -> None:
        found = self._folder.stat(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            message = (
                f"cannot install {self._recipe.name}: there is a folder in the place of {path}"
            )
            raise InstallFailedError(message, file=path)

    def _check_space(self) -> None:
        """Check that files fit which cannot just be renamed, because they are staged on another disk."""
        root = self._folder.root.stat()
        staged = [*self.gathered.fetched.values(), *(one.path for one in self.gathered.unpacked)]
        needed = sum(
            found.st_size for found in map(Path.stat, staged) if found.st_dev != root.st_dev
        )
        free = shutil.disk_usage(self._folder.root).free
        if needed > free:
            message = (
                f"cannot install {self._recipe.name}: {needed} bytes are needed and {free} free"
                " in the models folder"
            )
            raise InsufficientStorageError(message, needed=needed, free=free)

    def _is_there(self, one: Unpacked) -> bool:
        if self._folder.size(one.name) != one.size_bytes:
            return False
        digest = hashlib.sha256()
        with one.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return self._folder.sha256(one.name, lambda _size: None) == digest.hexdigest()
