"""Galleries as the operator, or a caller, names them."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from localplane_server.errors import SettingsError

GALLERY_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
"""What a gallery may be called. It stands before the `@` of what is installed from it."""
BUILTIN_GALLERY = "localplane"
BUILTIN_URL = "builtin://localplane"
LONGEST_URL = 2048
MOST_MIRRORS = 16
SCHEMES = ("https", "http", "github", "huggingface", "hf", "file")
"""Where an index can be fetched from."""

_PRINTED = re.compile(r"[!-~]+")


class GallerySetting(NamedTuple):
    """A gallery that is configured, or was added."""

    name: str
    """Its name."""
    url: str
    """URL of its index."""
    mirrors: tuple[str, ...] = ()
    """URLs of copies of the index, tried in their order when the first one fails."""

    @property
    def is_builtin(self) -> bool:
        """Whether it came with this package."""
        return self.url == BUILTIN_URL


DEFAULT_GALLERIES = (
    GallerySetting(
        "localai",
        "https://index.localai.io/models",
        ("github:mudler/LocalAI/gallery/index.yaml@master",),
    ),
)
"""Where LocalAI gets its models. It need not be reachable."""


class WrongGalleryError(ValueError):
    """No gallery can be like this. The text says why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """What of it is wrong: `name`, `url` or `mirrors`."""


def check_gallery(gallery: GallerySetting) -> None:
    """Refuse what cannot be a gallery, whatever is there.

    Raises:
        WrongGalleryError: If it cannot.
    """
    if not GALLERY_NAME.fullmatch(gallery.name):
        message = "name must be up to 64 letters, digits, -, _ and ., the first a letter or digit"
        raise WrongGalleryError("name", message)
    if gallery.is_builtin != (gallery.name.lower() == BUILTIN_GALLERY):
        message = f"the gallery {BUILTIN_GALLERY} is {BUILTIN_URL}, and no other one is"
        raise WrongGalleryError("url", message)
    if len(gallery.mirrors) > MOST_MIRRORS:
        raise WrongGalleryError("mirrors", f"there are more than {MOST_MIRRORS} mirrors")
    if not gallery.is_builtin:
        _check_url("url", gallery.url)
    for mirror in gallery.mirrors:
        _check_url("mirrors", mirror)


def parse_galleries(given: str | list[Any]) -> tuple[GallerySetting, ...]:
    """Parse galleries as LocalAI has them: a JSON array of objects with `name`, `url` and `mirrors`."""
    try:
        items = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"cannot read galleries: expected a JSON array: {error}") from error
    if not isinstance(items, list):
        raise SettingsError("cannot read galleries: expected a JSON array")
    galleries = tuple(_gallery(item) for item in items)
    names = [gallery.name.lower() for gallery in galleries]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"cannot name two galleries {name}")
    return galleries


def _gallery(item: Any) -> GallerySetting:
    if not isinstance(item, dict):
        raise SettingsError("cannot read galleries: each is an object with name and url")
    name, url, mirrors = item.get("name"), item.get("url"), item.get("mirrors") or []
    texts = [name, url, *mirrors] if isinstance(mirrors, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise SettingsError("cannot read galleries: name, url and each of mirrors are texts")
    gallery = GallerySetting(str(name), str(url), tuple(mirrors))
    try:
        check_gallery(gallery)
    except WrongGalleryError as error:
        raise SettingsError(f"cannot use gallery {gallery.name!r}: {error}") from error
    return gallery


def _check_url(field: str, url: str) -> None:
    if len(url) > LONGEST_URL:
        raise WrongGalleryError(field, f"a URL has more than {LONGEST_URL} characters")
    if not _PRINTED.fullmatch(url) or "\\" in url:
        message = "a URL is empty, or has a space or another character that belongs in none"
        raise WrongGalleryError(field, message)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WrongGalleryError(field, f"a URL cannot be read: {error}") from error
    if parts.scheme not in SCHEMES:
        message = f"a URL must begin with one of {', '.join(f'{one}:' for one in SCHEMES)}"
        raise WrongGalleryError(field, message)
    if parts.scheme in ("http", "https") and not host:
        raise WrongGalleryError(field, "a URL names no host")
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        # It would be shown to whoever lists the galleries.
        raise WrongGalleryError(field, "a URL has a user or a password in it")
