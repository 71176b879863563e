"""What a download tells: how far it is, and what it led to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Phase(Enum):
    """What a download is busy with."""

    CONNECTING = "connecting"
    """It looks for the file, or waits for another process that fetches it."""
    DOWNLOADING = "downloading"
    """Bytes arrive."""
    VERIFYING = "verifying"
    """All bytes are there; what is left of them is hashed, and they are written to the disk."""
    DONE = "done"
    """The file is whole."""


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far the download of one file is."""

    phase: Phase
    """What it is busy with."""
    done_bytes: int
    """Bytes that are in the staged file. Never less than what was told before."""
    total_bytes: int | None = None
    """Size of the file. None until the source tells, which some never do."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file before it is fetched."""

    size_bytes: int | None
    """Its size. None when the source does not tell."""
    file_name: str
    """The name that the source has for it, without folders. Empty when it has none."""
    sha256: str = ""
    """Its SHA-256, in hexadecimal digits. Empty when the source does not tell."""
    wheel: str = ""
    """What it comes in, with whatever else is in there. Empty when it comes by itself."""
    wheel_bytes: int | None = None
    """Size of that: so much is fetched, once for all files in it. None when nobody tells."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that is whole, verified and on the disk, under a name that only its caller knows."""

    path: Path
    """Where it is. The caller moves it to where it belongs."""
    size_bytes: int
    """Its size."""
    sha256: str
    """Its SHA-256, in hexadecimal digits, whether or not anybody asked for one."""
    file_name: str = ""
    """The name that the source has for it, without folders. Empty when it has none."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells whether a document is still the same."""

    etag: str = ""
    """Tag that the server gave, with its quotes. Empty when it gave none."""
    last_modified: str = ""
    """When it changed last, as the server wrote it. Empty when it did not say."""


@dataclass(frozen=True, slots=True)
class Document:
    """A small file that was read whole."""

    content: bytes
    """All of it."""
    validators: Validators
    """What to ask with next time."""
