"""Finding out what somebody wants to have installed: the gallery's entry, what it refers to, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import yaml

from localplane_server.downloads import addresses
from localplane_server.errors import InvalidArgumentError
from localplane_server.gallery.checkpoints.conversions import check_conversion
from localplane_server.gallery.entry import GalleryEntry, GalleryFile
from localplane_server.gallery.installs.file_names import check_template_name, installed_name, shown
from localplane_server.gallery.installs.model_settings import check_settings, merged
from localplane_server.gallery.installs.recipe import PromptTemplate, Recipe, one_of_each
from localplane_server.gallery.installs.request import InstallRequest, check_files
from localplane_server.gallery.yaml_values import NodeReader, WrongNodeError
from localplane_server.models.configuration import ConfigurationError, parse_mapping

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

LARGEST_DOCUMENT = 1 << 20
"""Bytes of the largest configuration that is fetched."""
MOST_TEMPLATES = 100


class Document(Protocol):
    """A small document that was fetched."""

    @property
    def content(self) -> bytes:
        """All of it."""


class Documents(Protocol):
    """Where small documents come from."""

    async def read(self, uri: str, *, most_bytes: int) -> Document | None:
        """Fetch one."""


class Entries(Protocol):
    """Where a gallery's entries are found."""

    async def find(self, name: str) -> GalleryEntry:
        """Return the entry that is meant by an id."""

    def at_hand(self, name: str) -> GalleryEntry | None:
        """Return the entry that is meant by an id, or None when there is none or nobody knows yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What a gallery's model configuration says."""

    name: str = ""
    description: str = ""
    license: str = ""
    icon: str = ""
    urls: tuple[str, ...] = ()
    configuration: Mapping[str, Any] | None = None
    files: tuple[GalleryFile, ...] = ()
    templates: tuple[PromptTemplate, ...] = ()


class Resolver:
    """Makes a recipe of a request. Fetches small documents and nothing else."""

    def __init__(self, entries: Entries, documents: Documents) -> None:
        self._entries = entries
        self._documents = documents

    def identity(self, request: InstallRequest) -> dict[str, Any]:
        """Return what all requests have in common that come to the same, as far as that is known without waiting."""
        return request.identity(self._entries.at_hand(request.id) if request.id else None)

    async def resolve(self, request: InstallRequest) -> Recipe:
        """Return what the request comes to, checked.

        Raises:
            ModelNotInGalleryError: If no gallery has the model.
            InvalidArgumentError: If what the gallery or the request says cannot be installed.
            LocalplaneError: If what the gallery refers to cannot be fetched.
        """
        if request.id:
            recipe = await self._from_gallery(request)
        elif request.config_url:
            base = _Base(configuration=await self._mapping(request.config_url))
            recipe = _recipe(request, base, origin={"url": request.config_url})
        elif request.url:
            base = _base(await self._mapping(request.url), request.url)
            recipe = _recipe(request, base, origin={"url": request.url})
        else:
            recipe = _recipe(request, _Base(configuration=request.config_file), origin={})
        check_files(recipe.files, field="files")
        for number, one in enumerate(recipe.files):
            if one.convert:
                check_conversion(one, field=f"files[{number}].convert")
        recipe.check()
        return recipe

    async def _from_gallery(self, request: InstallRequest) -> Recipe:
        entry = await self._entries.find(request.id)
        build = await self._variant(entry, request.variant) if request.variant else entry
        if build.url:
            base = _base(await self._mapping(build.url), build.url)
        elif build.config_file is not None:
            base = _Base(configuration=build.config_file)
        elif build.overrides or build.files or request.overrides or request.files:
            base = _Base()
        else:
            message = f"gallery model {shown(entry.name)} installs nothing"
            raise InvalidArgumentError(message, field="id", model=entry.name)
        origin = {
            "description": entry.description,
            "license": entry.license,
            "icon": entry.icon,
            "urls": list(entry.urls),
            "gallery": {"name": entry.gallery, "url": entry.gallery_url},
            "entry_name": entry.name,
            "resolved_variant": build.name if build is not entry else "",
            "pinned_variant": request.variant,
        }
        return _recipe(
            replace(request, name=request.name or entry.name),
            base,
            overrides=build.overrides,
            files=build.files,
            origin={key: value for key, value in origin.items() if value},
        )

    async def _variant(self, entry: GalleryEntry, variant: str) -> GalleryEntry:
        choices = (entry.name, *entry.variants)
        chosen = next((one for one in choices if one.lower() == variant.lower()), None)
        if chosen is None:
            message = (
                f"cannot install variant {shown(variant)} of {entry.name}: it is none of"
                f" {', '.join(choices)}"
            )
            raise InvalidArgumentError(message, field="variant", choices=", ".join(choices))
        if chosen == entry.name:
            return entry
        return await self._entries.find(f"{entry.gallery}@{chosen}")

    async def _mapping(self, uri: str) -> Mapping[str, Any]:
        document = await self._documents.read(uri, most_bytes=LARGEST_DOCUMENT)
        url = addresses.shown(uri)
        if document is None:
            # Nobody asked for it only if it changed.
            raise RuntimeError(url)
        try:
            text = document.content.decode()
        except UnicodeDecodeError as error:
            message = f"cannot use the configuration at {url}: it is not UTF-8"
            raise InvalidArgumentError(message, url=url) from error
        return _parsed(text, f"the configuration at {url}: it", url)


def _parsed(text: str, what: str, url: str) -> Mapping[str, Any]:
    """Return the mapping that a text in YAML holds, of values that JSON knows.

    Raises:
        InvalidArgumentError: If it is none, says a key twice, or grows when it is read.
    """
    try:
        # First whether it may be read at all.
        parse_mapping(text)
        node = yaml.compose(text, Loader=_Loader)
        content = {} if node is None else NodeReader().value(node)
    except ConfigurationError as error:
        raise InvalidArgumentError(f"cannot use {what} {error}", url=url) from error
    except WrongNodeError as error:
        message = f"cannot use {what} is not YAML that can be used: {error}"
        raise InvalidArgumentError(message, url=url) from error
    return dict(content)


def _recipe(
    request: InstallRequest,
    base: _Base,
    *,
    overrides: Mapping[str, Any] | None = None,
    files: tuple[GalleryFile, ...] = (),
    origin: Mapping[str, Any],
) -> Recipe:
    named = base.name or str((base.configuration or {}).get("name") or "")
    name = installed_name(request.name or named)
    over = merged(overrides or {}, request.overrides)
    configuration = None
    if base.configuration is not None or over:
        configuration = merged(base.configuration or {}, over)
        # Whatever a gallery's overrides say: the model is served, listed and deleted under one name.
        configuration = {"name": name} | configuration | {"name": name}
        check_settings(configuration, field="config_file")
    from_base = {
        "description": base.description,
        "license": base.license,
        "icon": base.icon,
        "urls": list(base.urls),
    }
    return Recipe(
        name=name,
        configuration=configuration,
        files=one_of_each((*base.files, *request.files, *files)),
        templates=base.templates,
        origin={**{key: value for key, value in from_base.items() if value}, **origin},
    )


def _base(content: Mapping[str, Any], uri: str) -> _Base:
    """Return what a gallery's model configuration says.

    Raises:
        InvalidArgumentError: If a key has a value that it cannot have.
    """
    url = addresses.shown(uri)
    given = content.get("config_file")
    configuration = None
    if isinstance(given, str) and given.strip():
        configuration = _parsed(given, f"the configuration at {url}: its config_file", url)
    elif isinstance(given, Mapping):
        configuration = dict(given)
    elif given not in (None, ""):
        message = f"cannot use the configuration at {url}: its config_file is no text"
        raise InvalidArgumentError(message, url=url)
    urls = content.get("urls")
    return _Base(
        name=_text(content.get("name")),
        description=_text(content.get("description")),
        license=_text(content.get("license")),
        icon=_text(content.get("icon")),
        urls=tuple(map(_text, urls)) if isinstance(urls, list) else (_text(urls),) if urls else (),
        configuration=configuration,
        files=InstallRequest.from_json({"url": uri, "files": content.get("files")}).files,
        templates=_templates(content.get("prompt_templates"), url),
    )


def _templates(value: object, url: str) -> tuple[PromptTemplate, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_TEMPLATES:
        message = f"cannot use the configuration at {url}: its prompt_templates are no list"
        raise InvalidArgumentError(message, url=url)
    found = []
    for number, one in enumerate(value):
        name = one.get("name") if isinstance(one, Mapping) else None
        content = one.get("content") if isinstance(one, Mapping) else None
        if not isinstance(name, str) or not isinstance(content, str):
            message = f"cannot use the configuration at {url}: a prompt template lacks its text"
            raise InvalidArgumentError(message, url=url)
        check_template_name(name, field=f"prompt_templates[{number}].name")
        found.append(PromptTemplate(name, content))
    return tuple(found)


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
