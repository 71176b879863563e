"""The last good copy of each gallery's index, on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from localplane_server.downloads.addresses import shown
from localplane_server.downloads.progress import Validators
from localplane_server.gallery.index import MOST_INDEX_BYTES

log = logging.getLogger(__name__)

_MARK = b"# localplane "
_LONGEST_HEAD = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCopy:
    """An index as it was fetched."""

    content: bytes
    """The index."""
    source: str
    """URL that it came from."""
    validators: Validators
    """What to ask that URL with whether it is still the same."""
    fetched_at: datetime
    """When it was fetched or confirmed last."""


class IndexCache:
    """Keeps copies of indexes, one file for each gallery's URL.

    A copy begins with a line of its own, a comment of YAML, that says where it came from and what its
    hash is: so one rename brings both, and a copy that was cut is seen.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, url: str) -> IndexCopy | None:
        """Return the copy of a gallery's index; None when there is none that is whole."""
        path = self._path(url)
        try:
            if path.stat().st_size > MOST_INDEX_BYTES + _LONGEST_HEAD:
                return None
            head, _, content = path.read_bytes().partition(b"\n")
            said = json.loads(head.removeprefix(_MARK))
            if said["url"] != url or said["sha256"] != hashlib.sha256(content).hexdigest():
                raise ValueError(url)
            return IndexCopy(
                content=content,
                source=str(said["source"]),
                validators=Validators(str(said["etag"]), str(said["last_modified"])),
                fetched_at=datetime.fromisoformat(said["fetched_at"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            log.warning(
                "a copy of a gallery's index cannot be used", extra={"gallery_url": shown(url)}
            )
            return None

    def write(self, url: str, copy: IndexCopy) -> None:
        """Keep a copy in place of the one before. A disk that takes none is logged, and no error."""
        said = {
            "url": url,
            "source": copy.source,
            "etag": copy.validators.etag,
            "last_modified": copy.validators.last_modified,
            "fetched_at": copy.fetched_at.isoformat(),
            "sha256": hashlib.sha256(copy.content).hexdigest(),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, aside = tempfile.mkstemp(dir=self._folder, prefix=".index-")
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
                    file.write(_MARK + json.dumps(said).encode() + b"\n" + copy.content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(aside).replace(self._path(url))
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
        except OSError as error:
            log.warning(
                "cannot keep a copy of a gallery's index",
                extra={"gallery_url": shown(url), "cause": error.strerror},
            )

    def remove(self, url: str) -> None:
        """Throw the copy of a gallery's index away. A disk that keeps it is logged, and no error."""
        try:
            self._path(url).unlink(missing_ok=True)
        except OSError as error:
            log.warning(
                "cannot remove a copy of a gallery's index",
                extra={"gallery_url": shown(url), "cause": error.strerror},
            )

    def _path(self, url: str) -> Path:
        return self._folder / f"{hashlib.sha256(url.encode()).hexdigest()}.yaml"
