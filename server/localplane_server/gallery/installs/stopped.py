"""What installations were fetching when they were stopped."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence

from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.request import InstallRequest

MOST_STOPPED = 64
"""Stopped installations whose files are remembered. What others fetched is looked up when it is thrown away."""


class StoppedInstallations:
    """The files of the installations that were stopped last, so that nobody need look them up to throw them away."""

    def __init__(self) -> None:
        self._files: OrderedDict[bytes, tuple[GalleryFile, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def add(self, request: InstallRequest, files: Sequence[GalleryFile]) -> None:
        """Remember the files of an installation, in place of those that were stopped long ago."""
        key = _key(request)
        self._files[key] = tuple(files)
        self._files.move_to_end(key)
        if len(self._files) > MOST_STOPPED:
            self._files.popitem(last=False)

    def pop(self, request: InstallRequest) -> tuple[GalleryFile, ...] | None:
        """Forget an installation and return its files, or None when they are not remembered."""
        return self._files.pop(_key(request), None)


def _key(request: InstallRequest) -> bytes:
    # A request can hold a configuration of a megabyte.
    written = json.dumps(request.to_json(), sort_keys=True, default=str)
    return hashlib.sha256(written.encode(errors="replace")).digest()
