"""What a gallery says of a model that can be installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from localplane_server.downloads.sources import preferring


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryFile:
    """A file that an installation puts into the models folder."""

    filename: str
    """Where to, below the models folder. As the gallery has it: whoever writes there checks it."""

    uri: str
    """Where from. Of a file that is made by a conversion, where its first source comes from."""

    sha256: str = ""
    """SHA-256 of the file, in hexadecimal digits. Empty when the gallery does not say."""

    size_bytes: int | None = None
    """Its size. None when the gallery does not say."""

    convert: str = ""
    """How the file is made of its sources: `bert-gguf`. Empty when it is fetched as it is.

    Only the built-in gallery is asked for it.
    """

    title: str = ""
    """What a converted file says that the model is called."""

    sources: tuple[GalleryFile, ...] = ()
    """What a converted file is made of, each with the name by which the conversion knows it."""

    @property
    def source_uri(self) -> str:
        """What the file is fetched by: of several in one artifact, the one that is called like it is meant."""
        return preferring(self.uri, self.filename.rpartition("/")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryEntry:
    """A model of a gallery.

    Mappings are as the gallery has them, with keys that nobody here knows. They are shared: whoever
    changes one copies it before.
    """

    name: str
    """Its name in the gallery."""

    gallery: str
    """Name of the gallery."""

    gallery_url: str = ""
    """URL of the gallery."""

    url: str = ""
    """Where its model configuration is fetched. Empty when `config_file` has it, or there is none."""

    description: str = ""
    license: str = ""
    icon: str = ""
    urls: tuple[str, ...] = ()
    """Links for people."""

    tags: tuple[str, ...] = ()
    files: tuple[GalleryFile, ...] = ()
    """Files on top of those that the model configuration names."""

    config_file: Mapping[str, Any] | None = None
    """The model's configuration itself. Used when `url` is empty."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What is merged over the configuration."""

    variants: tuple[str, ...] = ()
    """Names of entries of the same gallery that hold other builds of the model."""

    size: str = ""
    """Size for people, such as `327MB`."""

    backend: str = ""
    """Backend that serves it, as far as the entry says. A configuration behind `url` may say more."""

    last_checked: str = ""
    """Date when the gallery's keepers looked last whether all is there."""

    @property
    def id(self) -> str:
        """`gallery@name`, by which it is installed."""
        return f"{self.gallery}@{self.name}"
