"""What an installation comes to: the name, the configuration and the files, put together from all that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localplane_server.errors import InvalidArgumentError
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.file_names import (
    configuration_file,
    gallery_file,
    shown,
)
from localplane_server.gallery.installs.model_settings import check_named, yaml_text
from localplane_server.models.configuration import (
    LARGEST_FILE,
    ConfigurationError,
    ModelConfig,
    parse_configuration,
)

RECORD_KEY = "localplane"
"""Key of the gallery file under which we write what LocalAI has no word for."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt template that an installation writes."""

    name: str
    """Its name: the file's without `.tmpl`."""

    content: str
    """Its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that an installation needs to know, before anything is fetched."""

    name: str
    """Name of the model."""

    configuration: Mapping[str, Any] | None
    """The merged configuration. None when neither a configuration nor overrides are given: no file is written then."""

    files: tuple[GalleryFile, ...]
    """What is fetched, in order, each file once."""

    templates: tuple[PromptTemplate, ...] = ()
    """Prompt templates to write."""

    origin: Mapping[str, Any]
    """What the gallery file says besides: description, license, where all of it came from."""

    @property
    def configuration_text(self) -> str | None:
        """The configuration as it is written."""
        return None if self.configuration is None else yaml_text(self.configuration)

    @property
    def backend(self) -> str:
        """The backend that the configuration names. Empty when it names none."""
        return str((self.configuration or {}).get("backend") or "")

    @property
    def entry_id(self) -> str:
        """`gallery@name` of the gallery's entry that it is made of. Empty when it is made of none."""
        gallery = self.origin.get("gallery")
        return f"{gallery['name']}@{self.origin['entry_name']}" if gallery else ""

    def model(self) -> ModelConfig | None:
        """Return what the service will understand of the configuration, or None without one."""
        text = self.configuration_text
        if text is None:
            return None
        return parse_configuration(text, config_file=configuration_file(self.name))

    def gallery_text(self, installed: tuple[str, ...]) -> str:
        """Return the text of the gallery file.

        Args:
            installed: Every file that the installation wrote or found as it should be, below the models folder.
        """
        content: dict[str, Any] = {"name": self.name, **self.origin}
        if self.configuration is not None:
            # A text that holds YAML, as in the files that galleries refer to.
            content["config_file"] = yaml_text(self.configuration)
        content["files"] = [
            {"filename": one.filename, "sha256": one.sha256, "uri": one.uri} for one in self.files
        ]
        content["prompt_templates"] = [
            {"name": one.name, "content": one.content} for one in self.templates
        ]
        content[RECORD_KEY] = {"installed": sorted(installed)}
        return yaml_text(content)

    def check(self) -> None:
        """Check that what is to be installed would work as a model and stays where it belongs.

        Raises:
            InvalidArgumentError: If the configuration cannot be used, or names a backend or a file that it may not.
        """
        if self.configuration is None:
            return
        check_named(self.configuration, field="config_file")
        text = yaml_text(self.configuration)
        if len(text.encode()) > LARGEST_FILE:
            message = f"cannot install {self.name}: its configuration is too large"
            raise InvalidArgumentError(message, field="config_file")
        try:
            self.model()
        except ConfigurationError as error:
            message = f"cannot install {self.name}: its configuration cannot be used: {error}"
            raise InvalidArgumentError(message, field="config_file") from error

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the files that are written besides those that are fetched; the gallery file comes last."""
        configuration = () if self.configuration is None else (configuration_file(self.name),)
        return (*configuration, gallery_file(self.name))


def one_of_each(files: tuple[GalleryFile, ...]) -> tuple[GalleryFile, ...]:
    """Return the files in order, each once.

    Raises:
        InvalidArgumentError: If two different files are to have one name.
    """
    found: dict[str, GalleryFile] = {}
    for one in files:
        other = found.setdefault(one.filename, one)
        has_same_digest = one.sha256.lower() == other.sha256.lower()
        is_same = has_same_digest if one.sha256 and other.sha256 else one.uri == other.uri
        if not is_same:
            name = shown(one.filename)
            message = f"cannot install two different files as {name}"
            raise InvalidArgumentError(message, field="files")
        if one.sha256 and not other.sha256:
            found[one.filename] = one
    return tuple(found.values())
