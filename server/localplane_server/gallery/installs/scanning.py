"""Asking hubs what their scanners found in the repositories that a model comes from, before any of it is fetched."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

from localplane_server.downloads.credentials import origin
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.progress import Document
from localplane_server.downloads.sources import WebSource, parse_source
from localplane_server.errors import LocalplaneError, SourceRefusedError, UnsafeFilesError
from localplane_server.gallery.entry import GalleryFile

LARGEST_ANSWER = 1 << 20
"""How large an answer may be, in bytes. It can name every file of a repository."""
SECONDS = 10.0
"""How long all repositories of an installation may take together."""

_AT_ONCE = 8
_PART = re.compile(r"(?!\.+$)[\w.-]+", re.ASCII)
_PARTS = 4
"""Owner, repository, kind, and the rest."""
_OF_FILES = ("resolve", "raw")
"""What stands between a repository and a revision in the URL of a file."""

log = logging.getLogger(__name__)


class Documents(Protocol):
    """Where answers come from: the downloader."""

    async def read(self, uri: str, *, most_bytes: int) -> Document | None:
        """Read a small document whole."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of models that a hub has."""

    hub: str
    """URL of the hub, without a slash at its end."""

    name: str
    """`OWNER/REPOSITORY`."""

    @property
    def scan_url(self) -> str:
        """Where the hub tells what its scanners found."""
        return f"{self.hub}/api/models/{self.name}/scan"


class Scanner:
    """Asks about the files of installations."""

    def __init__(
        self, documents: Documents, endpoints: Endpoints, *, seconds: float = SECONDS
    ) -> None:
        """Set up.

        Args:
            documents: Where answers come from.
            endpoints: Where the hub is.
            seconds: How long all repositories of an installation may take together.
        """
        self._documents = documents
        self._endpoints = endpoints
        self._seconds = seconds

    async def check(self, model: str, files: Iterable[GalleryFile]) -> None:
        """Refuse a model if a hub calls a file unsafe in a repository that the model comes from.

        Each repository is asked about once. A hub that does not answer in time, or with what is no
        answer, refuses nothing.

        Raises:
            UnsafeFilesError: If a hub calls one unsafe.
        """
        uris = (one.uri for file in files for one in file.sources or (file,))
        known = (repository_of(uri, self._endpoints) for uri in uris)
        repositories = list(dict.fromkeys(one for one in known if one is not None))
        deadline = asyncio.get_running_loop().time() + self._seconds
        limit = asyncio.Semaphore(_AT_ONCE)
        found = await asyncio.gather(
            *(self._is_unsafe(one, deadline, limit) for one in repositories)
        )
        unsafe = [one.name for one, is_so in zip(repositories, found, strict=True) if is_so]
        if unsafe:
            raise UnsafeFilesError(model, ", ".join(unsafe))

    async def _is_unsafe(
        self, repository: Repository, deadline: float, limit: asyncio.Semaphore
    ) -> bool:
        try:
            async with asyncio.timeout_at(deadline), limit:
                document = await self._documents.read(
                    repository.scan_url, most_bytes=LARGEST_ANSWER
                )
            answer = json.loads(document.content if document else b"")
        except LocalplaneError as error:
            cause = error.message
        except TimeoutError:
            cause = "it took too long"
        except (ValueError, RecursionError):
            cause = "the answer is no JSON"
        else:
            if isinstance(answer, dict) and isinstance(answer.get("hasUnsafeFile"), bool):
                return bool(answer["hasUnsafeFile"])
            cause = "the answer does not tell"
        log.debug("not scanned", extra={"repository": repository.name, "cause": cause})
        return False


def repository_of(uri: str, endpoints: Endpoints) -> Repository | None:
    """Return the repository that a file comes from. None when it comes from elsewhere."""
    # A URL may name the public hub itself, also where `huggingface://` means another one.
    hubs = (endpoints.hugging_face, Endpoints().hugging_face)
    try:
        source = parse_source(uri, endpoints)
        if not isinstance(source, WebSource):
            return None
        found = ((hub, _name(source.url, hub)) for hub in hubs)
        return next((Repository(hub, name) for hub, name in found if name), None)
    except (SourceRefusedError, ValueError):
        # Whoever fetches it will be told what is wrong with it.
        return None


def _name(url: str, hub: str) -> str:
    """Return the repository of a hub that a URL leads into. Empty when it leads elsewhere."""
    path, base = urlsplit(url).path, f"{urlsplit(hub).path}/"
    if origin(url) != origin(hub) or not path.startswith(base):
        return ""
    parts = [unquote(part) for part in path.removeprefix(base).split("/", 3)]
    is_file = len(parts) == _PARTS and parts[2] in _OF_FILES
    return "/".join(parts[:2]) if is_file and all(map(_PART.fullmatch, parts[:2])) else ""
