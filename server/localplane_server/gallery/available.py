"""The models that can be installed, and which of them are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from localplane_server.gallery.entry import GalleryEntry
from localplane_server.gallery.galleries import Offer
from localplane_server.gallery.index import key_of
from localplane_server.models.configuration import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which models of the galleries are asked for."""

    term: str = ""
    """Words that must all be in the name, the description or the tags."""
    tag: str = ""
    """A tag that a model must have."""
    backend: str = ""
    """The backend that its entry must name."""
    installed: bool | None = None
    """Whether it must be installed, or must not be. None matches all."""


@dataclass(frozen=True, slots=True)
class AvailableModel:
    """A model of a gallery."""

    entry: GalleryEntry
    """What the gallery says of it."""
    is_installed: bool
    """Whether a model of this name is installed."""
    order: str
    """Sorts models by gallery and name."""


def installed_keys(offer: Offer, configured: Iterable[ModelConfig]) -> frozenset[str]:
    """Return the keys of what is offered and installed: a configuration has its name, or is named so."""
    keys = set()
    for model in configured:
        keys.add(key_of(model.name))
        if model.config_file:
            keys.add(key_of(PurePath(model.config_file).stem))
    return frozenset(key for key in keys if any(key in index.by_key for index in offer.indexes))


def available(offer: Offer, installed: frozenset[str], wanted: Wanted) -> Iterator[AvailableModel]:
    """Yield the models that are wanted, by gallery and name."""
    words = wanted.term.casefold().split()
    tag, backend = wanted.tag.casefold(), wanted.backend.casefold()
    for position, index in enumerate(offer.indexes):
        for key in sorted(index.by_key):
            entry = index.by_key[key]
            is_installed = key in installed
            if (
                wanted.installed in (None, is_installed)
                and (not backend or backend == entry.backend.casefold())
                and (not tag or any(tag == one.casefold() for one in entry.tags))
                and (not words or _has(entry, words))
            ):
                yield AvailableModel(entry, is_installed, f"{position:03}/{key}")


def _has(entry: GalleryEntry, words: list[str]) -> bool:
    text = "\n".join((entry.name, entry.description, *entry.tags)).casefold()
    return all(word in text for word in words)
