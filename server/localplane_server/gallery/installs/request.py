"""What somebody asks to be installed, in the words of LocalAI's `POST /models/apply`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from localplane_server.downloads import addresses
from localplane_server.errors import InvalidArgumentError
from localplane_server.gallery.entry import GalleryEntry, GalleryFile
from localplane_server.gallery.index import key_of
from localplane_server.gallery.installs.file_names import (
    check_file_name,
    check_sha256,
    installed_name,
    is_encodable,
    shown,
)
from localplane_server.gallery.installs.model_settings import check_named, check_settings

MOST_FILES = 1000
LONGEST_TEXT = 4096
"""Characters of the longest URL or id."""

# A space, and what a terminal or an HTTP library would obey, is in no URL.
URI = re.compile(r"[^\s\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest:
    """A model to install, and how it is to differ from what its gallery says.

    Of `id`, `config_url`, `url` and `config_file` the first that is there says what the model is.
    """

    id: str = ""
    """`gallery@name`, or a name in whichever gallery has it first."""

    url: str = ""
    """URL of a gallery's model configuration."""

    config_url: str = ""
    """URL of a model's configuration itself."""

    name: str = ""
    """Name to install as. Empty: as the gallery or the configuration has it."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings that are merged over the model's configuration, last."""

    files: tuple[GalleryFile, ...] = ()
    """Files besides those that the gallery names."""

    config_file: Mapping[str, Any] | None = None
    """The model's configuration itself."""

    variant: str = ""
    """Which build of the model: one of the names in the entry's `variants`. Empty: the entry's own."""

    def __post_init__(self) -> None:
        """Check everything that can be checked without looking anywhere.

        Raises:
            InvalidArgumentError: If nothing says what to install, or a field cannot be used.
        """
        if not (self.id or self.url or self.config_url) and self.config_file is None:
            raise InvalidArgumentError(
                "cannot install a model: one of id, url, config_url and config_file is required",
                field="id",
            )
        for name in ("id", "variant"):
            _check_text(getattr(self, name), name)
        for name in ("url", "config_url"):
            if getattr(self, name):
                _check_uri(getattr(self, name), name)
        if self.variant and not self.id:
            message = "cannot choose a variant without the id of a gallery's model"
            raise InvalidArgumentError(message, field="variant")
        if self.name:
            installed_name(self.name)
        check_files(self.files, field="files")
        check_settings(self.overrides, field="overrides")
        check_named(self.overrides, field="overrides")
        if self.config_file is not None:
            check_settings(self.config_file, field="config_file")
            check_named(self.config_file, field="config_file")

    @property
    def target(self) -> str:
        """What two requests for the same model have in common: the name it will have, as far as that is known.

        A model whose name is in a file that is still to be fetched goes by where that file is.
        """
        if self.name:
            return target(self.name)
        if self.id:
            gallery, at, name = self.id.partition("@")
            return target(name if at else gallery)
        named = (self.config_file or {}).get("name")
        # It is shown and logged, and the query of a URL can hold a key.
        return target(str(named)) if named else addresses.shown(self.config_url or self.url)

    def identity(self, entry: GalleryEntry | None) -> dict[str, Any]:
        """Return what all requests have in common that come to the same, as JSON has it: they differ in spelling only.

        Args:
            entry: The entry that the id means. None when there is none, or nobody knows yet.
        """
        name = self.name
        content = self.to_json()
        if self.id:
            content["id"] = entry.id if entry else key_of(self.id)
            content["variant"] = self.variant.casefold()
            name = name or (entry.name if entry else "")
        elif not (self.config_url or self.url):
            named = (self.config_file or {}).get("name")
            name = name or (named if isinstance(named, str) else "")
        # Of what says what the model is, the first counts.
        said = [one for one in ("id", "config_url", "url", "config_file") if one in content]
        for one in said[1:]:
            del content[one]
        return {**content, "name": name.replace("/", "__")}

    @property
    def sources(self) -> tuple[str, ...]:
        """The URLs in it from which something will be fetched."""
        base = "" if self.id else self.config_url or self.url
        return (*((base,) if base else ()), *(one.uri for one in self.files))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> InstallRequest:
        """Return the request that a JSON object stands for. Keys that are not known are ignored, as LocalAI does.

        Raises:
            InvalidArgumentError: If a key has a value that it cannot have, or the request cannot be used.
        """
        config_file = content.get("config_file")
        return cls(
            **{name: _text(content, name) for name in ("id", "url", "config_url", "name")},
            overrides=_mapping(content.get("overrides"), "overrides"),
            files=_files(content.get("files")),
            config_file=None if config_file is None else _mapping(config_file, "config_file"),
            variant=_text(content, "variant"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the request as a JSON object, from which `from_json` makes the same request."""
        content: dict[str, Any] = {
            name: value
            for name in ("id", "url", "config_url", "name", "variant")
            if (value := getattr(self, name))
        }
        if self.overrides:
            content["overrides"] = dict(self.overrides)
        if self.files:
            content["files"] = [
                {"filename": one.filename, "uri": one.uri, "sha256": one.sha256}
                for one in self.files
            ]
        if self.config_file is not None:
            content["config_file"] = dict(self.config_file)
        return content


def target(name: str) -> str:
    """Return what installations and deletions of the model of a name have in common."""
    return key_of(name)


def check_files(files: tuple[GalleryFile, ...], *, field: str) -> None:
    """Check the files that somebody, or a gallery, wants to have installed.

    Raises:
        InvalidArgumentError: If one leads out of the models folder, comes from nowhere, or two are to be one.
    """
    if len(files) > MOST_FILES:
        message = f"cannot install more than {MOST_FILES} files at once"
        raise InvalidArgumentError(message, field=field)
    for number, one in enumerate(files):
        at = f"{field}[{number}]"
        check_file_name(one.filename, field=f"{at}.filename")
        _check_uri(one.uri, f"{at}.uri")
        check_sha256(one.sha256, field=f"{at}.sha256")


def _check_text(text: str, field: str) -> None:
    if len(text) > LONGEST_TEXT or not is_encodable(text) or not text.isprintable():
        raise InvalidArgumentError(f"cannot use {shown(text)} as {field}", field=field)


def _check_uri(uri: str, field: str) -> None:
    if len(uri) > LONGEST_TEXT or not is_encodable(uri) or not URI.fullmatch(uri):
        raise InvalidArgumentError(f"cannot use {shown(uri)} as a URL", field=field)


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"cannot use {name}: it is not text", field=name)
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        message = f"cannot use {name}: it is not a mapping of keys to values"
        raise InvalidArgumentError(message, field=name)
    return dict(value)


def _files(value: object) -> tuple[GalleryFile, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidArgumentError("cannot use files: it is not a list", field="files")
    found = []
    for number, one in enumerate(value):
        at = f"files[{number}]"
        if not isinstance(one, Mapping):
            raise InvalidArgumentError(f"cannot use {at}: it is not a mapping", field=at)
        try:
            # Nothing else of what a gallery may say of a file: conversions are for the built-in one.
            filename, uri, sha256 = (_text(one, name) for name in ("filename", "uri", "sha256"))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(error.message, field=f"{at}.{error.field}") from error
        found.append(GalleryFile(filename=filename, uri=uri, sha256=sha256))
    return tuple(found)
