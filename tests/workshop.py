"""Installations and deletions in a folder of their own, with a source in memory."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from localplane_server.errors import ModelNotInGalleryError
from localplane_server.gallery.entry import GalleryEntry
from localplane_server.gallery.installs.changes import Changes
from localplane_server.gallery.installs.deletion import Remover
from localplane_server.gallery.installs.installation import Installed, Installer
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.gallery.installs.resolution import Resolver
from localplane_server.gallery.installs.turns import Turns
from localplane_server.jobs.progress import JobProgress
from localplane_server.models.catalog import ModelCatalog
from staged_source import StagedSource


class GalleryInMemory:
    """Entries by name."""

    def __init__(self) -> None:
        self.entries: dict[str, GalleryEntry] = {}

    def add(self, name: str, **fields: Any) -> None:
        """Have an entry."""
        self.entries[name.lower()] = GalleryEntry(name=name, gallery="test", **fields)

    async def find(self, name: str) -> GalleryEntry:
        """Return an entry."""
        if (entry := self.at_hand(name)) is None:
            raise ModelNotInGalleryError(name)
        return entry

    def at_hand(self, name: str) -> GalleryEntry | None:
        """Return an entry, or None when there is none."""
        return self.entries.get(name.rpartition("@")[2].lower())


class Loaded:
    """Models that are loaded, and what each takes."""

    def __init__(self) -> None:
        self.models: dict[str, int] = {}
        self.unloaded: list[str] = []
        """Models that were unloaded, in order."""

    async def unload(self, model: str) -> int | None:
        """Unload one."""
        if model not in self.models:
            return None
        self.unloaded.append(model)
        return self.models.pop(model)


class Workshop:
    """All that installs and deletes models, with real files."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self.root.mkdir()
        self.staging = folder / "staging"
        self.source = StagedSource(self.staging)
        self.gallery = GalleryInMemory()
        self.loaded = Loaded()
        self.catalog = ModelCatalog(self.root)
        self.changes = Changes(ModelsFolder(self.root), self.staging, self.catalog)
        self.resolver = Resolver(self.gallery, self.source)
        self.turns = Turns()
        self.installer = Installer(
            self.changes, self.resolver, self.source, self.catalog, self.loaded, turns=self.turns
        )
        self.remover = Remover(self.changes, self.catalog, self.loaded, turns=self.turns)
        self.told: list[JobProgress] = []

    async def install(self, **content: Any) -> Installed:
        """Install what a request asks for."""
        return await self.installer.install(InstallRequest.from_json(content), self.told.append)

    def file(self, filename: str, content: bytes) -> dict[str, str]:
        """Have a file, and return what a request says of it."""
        uri = f"https://host/{filename}"
        return {"filename": filename, "uri": uri, "sha256": self.source.offer(uri, content)}

    def model(
        self, name: str, content: bytes = b"GGUF weights", **configuration: Any
    ) -> dict[str, Any]:
        """Return a request for a model of one file."""
        return {
            "config_file": {
                "name": name,
                "backend": "llama",
                "parameters": {"model": f"{name}.gguf"},
                **configuration,
            },
            "files": [self.file(f"{name}.gguf", content)],
        }

    def files(self) -> list[str]:
        """Return all files of the models folder, hidden ones too."""
        return sorted(
            str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()
        )

    def staged(self) -> list[str]:
        """Return all files of the staging folder."""
        return [str(path) for path in self.staging.rglob("*") if path.is_file()]

    def models(self) -> list[str]:
        """Return the names of the configured models."""
        return [one.name for one in self.catalog.configured()]


def packed(members: dict[str, bytes]) -> bytes:
    """Return an archive."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return output.getvalue()
