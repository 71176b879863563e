"""Deleting models: from memory, from the lists and from the disk."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from localplane_server.errors import (
    InvalidArgumentError,
    LocalplaneError,
    ModelNotFoundError,
)
from localplane_server.gallery.blocking import uninterrupted
from localplane_server.gallery.installs.changes import Changes
from localplane_server.gallery.installs.file_names import (
    CONFIGURATION_SUFFIXES,
    check_file_name,
    gallery_file,
    installed_name,
)
from localplane_server.gallery.installs.installation import Unloader
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.publication import Publication
from localplane_server.gallery.installs.references import (
    References,
    read_gallery_file,
    recorded_files,
)
from localplane_server.gallery.installs.turns import Turns
from localplane_server.jobs.progress import JobProgress
from localplane_server.jobs.work import Report
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import (
    LARGEST_FILE,
    ConfigurationError,
    parse_mapping,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that a deletion left, and why."""

    path: str
    """The file, below the models folder."""

    users: tuple[str, ...]
    """The models that need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a deletion came to."""

    name: str
    """Name of the model."""

    removed: tuple[str, ...]
    """Files that are gone, below the models folder."""

    kept: tuple[Kept, ...]
    """Files of the model that others need, too."""

    freed_bytes: int
    """Bytes that came back on the disk."""

    freed_memory_bytes: int | None
    """Bytes of memory that came back. None when the model was not loaded."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "name": self.name,
            "removed": list(self.removed),
            "kept": [{"path": one.path, "users": list(one.users)} for one in self.kept],
            "freed_bytes": self.freed_bytes,
            "freed_memory_bytes": self.freed_memory_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """A model that is to go."""

    served: str
    """Name under which it is served."""

    configuration: str = ""
    """Its configuration file. Empty when it has none."""

    gallery_file: str = ""
    """Its gallery file. Empty when it has none."""

    file: str = ""
    """The file that it is, where that is all of it."""


class Remover:
    """Deletes models."""

    def __init__(
        self,
        changes: Changes,
        catalog: ModelCatalog,
        unloader: Unloader,
        *,
        turns: Turns | None = None,
    ) -> None:
        """Set up.

        Args:
            changes: Changes the models folder.
            catalog: The models that there are.
            unloader: Ends the backends of models.
            turns: Keeps it from a model that somebody else changes. Without it, only its own deletions wait.
        """
        self._changes = changes
        self._folder = changes.folder
        self._catalog = catalog
        self._unloader = unloader
        self._turns = turns or Turns()

    async def delete(self, name: str, report: Report) -> Removed:
        """Delete a model: unload it, and remove its configuration and the files that no other model needs.

        A model is meant by the name under which it is served or was installed, `/` written as it is or `__`; a model
        file without a configuration by its path. An alias means no model here.

        Calls in flight may end first. Then all of it goes or, where the disk fails, nothing; a deletion that is
        interrupted is finished when the service starts next.

        Raises:
            InvalidModelNameError: If the name cannot be one.
            ModelNotFoundError: If there is no such model.
            LocalplaneError: If the files cannot be removed.
        """
        files = self._files_of(installed_name(name, field="model"))
        async with self._turns.of(name, *files):
            return await self._delete(name, report)

    async def _delete(self, name: str, report: Report) -> Removed:
        report(JobProgress(phase="unloading"))
        target = self._target(name)
        freed = await self._unloader.unload(target.served)
        report(JobProgress(phase="removing"))
        deletion = _Deletion(target, self._folder)
        await self._changes.make(deletion.describe, model=target.served)
        # A call may have loaded it again in the meantime; from now on none can.
        again = await uninterrupted(self._unload_again(target.served))
        if again is not None:
            freed = (freed or 0) + again
        return Removed(
            name=target.served,
            removed=tuple(sorted(deletion.removed)),
            kept=tuple(deletion.kept),
            freed_bytes=deletion.freed_bytes,
            freed_memory_bytes=freed,
        )

    async def _unload_again(self, model: str) -> int | None:
        try:
            return await self._unloader.unload(model)
        except Exception:
            # Its files are gone all the same.
            log.exception("a deleted model cannot be unloaded", extra={"model": model})
            return None

    def _target(self, name: str) -> _Target:
        for stem, file in self._files_of(installed_name(name, field="model")).items():
            configuration = next(
                (
                    one
                    for one in (file, *(f"{stem}{suffix}" for suffix in CONFIGURATION_SUFFIXES))
                    if self._folder.size(one) is not None
                ),
                "",
            )
            gallery = gallery_file(stem) if self._folder.size(gallery_file(stem)) else ""
            if configuration or gallery:
                served = next(
                    (
                        model.name
                        for model in self._catalog.configured()
                        if model.config_file == configuration
                    ),
                    stem,
                )
                return _Target(served=served, configuration=configuration, gallery_file=gallery)
        return self._loose_target(name)

    def _files_of(self, flat: str) -> dict[str, str]:
        """Return where the configuration of a model is, or would be, by the name under which it was installed."""
        files = {flat: f"{flat}.yaml"}
        for model in self._catalog.configured():
            if model.config_file and model.name.replace("/", "__") == flat:
                files = {model.config_file.rpartition(".")[0]: model.config_file}
        return files

    def _loose_target(self, name: str) -> _Target:
        try:
            path = check_file_name(name, field="model")
        except InvalidArgumentError as error:
            raise ModelNotFoundError(name) from error
        model = self._catalog.get(path)
        if model.config_file is not None or model.file != path:
            raise ModelNotFoundError(name)
        return _Target(served=model.name, file=path)


class _Deletion:
    """What a deletion changes of the models folder."""

    def __init__(self, target: _Target, folder: ModelsFolder) -> None:
        self._target = target
        self._folder = folder
        self.removed: list[str] = []
        self.kept: list[Kept] = []
        self.freed_bytes = 0

    def describe(self, publication: Publication) -> None:
        """Say what goes: the configuration first, so that nothing is listed that is not whole."""
        own = [one for one in (self._target.configuration, self._target.gallery_file) if one]
        if own and all(self._folder.size(one) is None for one in own):
            raise ModelNotFoundError(self._target.served)
        references = References(self._folder)
        files = self._files()
        for path in own:
            self._remove(publication, path)
        for path in files:
            users = references.users_of(path, besides=frozenset(own))
            if not users:
                self._remove(publication, path)
            elif self._found(path) is not None:
                self.kept.append(Kept(path, tuple(users)))

    def _files(self) -> list[str]:
        """Return the files of the model besides its configuration, as far as they are in the models folder."""
        if self._target.file:
            return [self._target.file]
        found: list[str] = []
        if self._target.gallery_file:
            found += recorded_files(
                read_gallery_file(self._folder, self._target.gallery_file) or {}
            )
        if self._target.configuration:
            text = self._folder.read_text(self._target.configuration, most_bytes=LARGEST_FILE)
            with suppress(ConfigurationError):
                found += _named(parse_mapping(text or ""))
        checked = []
        for path in dict.fromkeys(found):
            with suppress(LocalplaneError):
                checked.append(check_file_name(path, field="files"))
        return checked

    def _remove(self, publication: Publication, path: str) -> None:
        found = self._found(path)
        if found is None or stat.S_ISDIR(found.st_mode):
            return
        publication.remove(path)
        self.removed.append(path)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            self.freed_bytes += found.st_size

    def _found(self, path: str) -> os.stat_result | None:
        try:
            return self._folder.stat(path)
        except LocalplaneError:
            # Behind a link: it is not in the models folder.
            return None


def _named(content: Mapping[Any, Any]) -> list[str]:
    """Return the files that a configuration calls its own: its weights, and what projects images into them."""
    parameters = content.get("parameters")
    inner = parameters if isinstance(parameters, Mapping) else {}
    named = (inner.get("model"), content.get("model"), content.get("mmproj"))
    return [one.removeprefix("./") for one in named if isinstance(one, str) and one]
