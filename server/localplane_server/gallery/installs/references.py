"""Who needs which files of the models folder."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from localplane_server.gallery.installs.file_names import TEMPLATE_SUFFIX
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.recipe import RECORD_KEY
from localplane_server.models.configuration import (
    LARGEST_FILE,
    ConfigurationError,
    parse_mapping,
)

LARGEST_GALLERY_FILE = 4 * LARGEST_FILE
"""A gallery file holds the configuration, and templates and names of files besides."""


@dataclass(frozen=True, slots=True)
class Referrer:
    """A file that says which files a model needs."""

    file: str
    """Its name."""

    model: str
    """The model."""

    names: frozenset[str]
    """What it says that can be a path."""

    folders: frozenset[str]
    """Paths of which all that is below is meant, too."""

    text: str
    """All of it, where it could not be understood. Empty where it could."""

    def needs(self, path: str) -> bool:
        """Whether the model may need a file. What cannot be understood needs what it mentions."""
        if self.text:
            return path in self.text
        template = path.removesuffix(TEMPLATE_SUFFIX)
        return (
            path in self.names
            or (template != path and template in self.names)
            or any(path.startswith(f"{one}/") for one in self.folders)
        )


class References:
    """What all configurations and gallery files say, at one moment."""

    def __init__(self, folder: ModelsFolder) -> None:
        """Read them all. Blocks."""
        self._referrers = [
            *(_of_configuration(folder, one) for one in folder.configurations()),
            *(_of_gallery_file(folder, one) for one in folder.gallery_files()),
        ]

    def users_of(self, path: str, *, besides: frozenset[str]) -> list[str]:
        """Return the models that may need a file, by name.

        Args:
            path: The file.
            besides: Names of configurations and gallery files that do not count.
        """
        return sorted(
            {one.model for one in self._referrers if one.file not in besides and one.needs(path)}
        )

    def configured_users_of(self, path: str, *, besides: frozenset[str]) -> list[str]:
        """Return the models whose configuration names a file."""
        return sorted(
            {
                one.model
                for one in self._referrers
                if not one.file.startswith(".") and one.file not in besides and one.needs(path)
            }
        )


def recorded_files(content: Mapping[str, Any]) -> list[str]:
    """Return the paths that a gallery file says were installed, of its own files and of archives."""
    record = content.get(RECORD_KEY)
    installed = record.get("installed") if isinstance(record, Mapping) else None
    files = content.get("files")
    templates = content.get("prompt_templates")
    found = [
        *(one.get("filename") for one in _mappings(files)),
        *(f"{one.get('name')}{TEMPLATE_SUFFIX}" for one in _mappings(templates)),
        *(installed if isinstance(installed, list) else ()),
    ]
    return list(dict.fromkeys(_normal(one) for one in found if isinstance(one, str) and one))


def read_gallery_file(folder: ModelsFolder, name: str) -> dict[str, Any] | None:
    """Return what a gallery file says, or None when there is none, or none that can be understood."""
    text = folder.read_text(name, most_bytes=LARGEST_GALLERY_FILE)
    try:
        return None if text is None else parse_mapping(text)
    except ConfigurationError:
        return None


def _of_configuration(folder: ModelsFolder, file: str) -> Referrer:
    stem = file.rpartition(".")[0]
    text = folder.read_text(file, most_bytes=LARGEST_FILE)
    try:
        content = parse_mapping(text or "")
    except ConfigurationError:
        return Referrer(file, stem, frozenset(), frozenset(), text or "")
    parameters = content.get("parameters")
    model = parameters.get("model") if isinstance(parameters, Mapping) else content.get("model")
    return Referrer(
        file,
        str(content.get("name") or stem),
        frozenset(_names(content)),
        frozenset({_normal(model)} if isinstance(model, str) and model else ()),
        "",
    )


def _of_gallery_file(folder: ModelsFolder, file: str) -> Referrer:
    name = file.removeprefix("._gallery_").rpartition(".")[0]
    content = read_gallery_file(folder, file)
    if content is None:
        text = folder.read_text(file, most_bytes=LARGEST_GALLERY_FILE)
        return Referrer(file, name, frozenset(), frozenset(), text or "")
    return Referrer(file, name, frozenset(recorded_files(content)), frozenset(), "")


def _names(content: object) -> Iterator[str]:
    """Return every text in a configuration that can be a path, also behind the key of an option."""
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and one:
            yield _normal(one)
            for separator in (":", "="):
                _, found, rest = one.partition(separator)
                if found and rest:
                    yield _normal(rest.strip())


def _normal(path: str) -> str:
    return posixpath.normpath(path)


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
