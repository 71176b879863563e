"""What galleries said of the models that were installed from them."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Any

from localplane_server.downloads.addresses import shown
from localplane_server.gallery.installs.file_names import gallery_file
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.references import read_gallery_file

MOST_SHOWN = 10_000
"""Characters of a text that is repeated."""

_PREFIX, _SUFFIX = gallery_file("\0").split("\0")
_TEXTS = ("name", "description", "license", "icon")

Stamp = tuple[int, int]


class InstalledModels:
    """Reads the gallery files of the models folder, each again when it changed.

    What may hold a password, such as configurations and queries of URLs, is left out.
    """

    def __init__(self, folder: ModelsFolder) -> None:
        self._folder = folder
        self._read: dict[str, tuple[Stamp, Mapping[str, Any] | None]] = {}

    def configs(self) -> dict[str, Mapping[str, Any]]:
        """Return what is told of each model, by its name. Files that cannot be read are left out. Blocks."""
        read: dict[str, tuple[Stamp, Mapping[str, Any] | None]] = {}
        for file in self._files():
            found = self._folder.stat(file)
            if found is None or not stat.S_ISREG(found.st_mode):
                continue
            stamp = (found.st_mtime_ns, found.st_size)
            known = self._read.get(file)
            if known is None or known[0] != stamp:
                content = read_gallery_file(self._folder, file)
                known = (stamp, None if content is None else _told(content))
            read[file] = known
        self._read = read
        return {
            file.removeprefix(_PREFIX).removesuffix(_SUFFIX): told
            for file, (_, told) in sorted(read.items())
            if told is not None
        }

    def _files(self) -> list[str]:
        try:
            return [one for one in self._folder.gallery_files() if one.endswith(_SUFFIX)]
        except OSError:
            return []


def _told(content: Mapping[str, Any]) -> Mapping[str, Any]:
    told: dict[str, Any] = {key: _text(content[key]) for key in _TEXTS if content.get(key)}
    urls = content.get("urls")
    if isinstance(urls, list):
        told["urls"] = [shown(_text(url)) for url in urls]
    files = content.get("files")
    if isinstance(files, list):
        told["files"] = [
            {
                "filename": _text(file.get("filename", "")),
                "sha256": _text(file.get("sha256", "")),
                "uri": shown(_text(file.get("uri", ""))),
            }
            for file in files
            if isinstance(file, dict)
        ]
    return told


def _text(value: object) -> str:
    return str(value)[:MOST_SHOWN]
