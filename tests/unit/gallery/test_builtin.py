"""The gallery that comes with the package."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.sources import PackageSource, parse_source
from localplane_server.gallery.builtin import builtin_index
from localplane_server.gallery.entry import GalleryEntry, GalleryFile
from localplane_server.gallery_setting import BUILTIN_GALLERY, BUILTIN_URL

ENTRIES = builtin_index().entries


def test_nothing_is_wrong() -> None:
    """All entries can be used, and say where they are from."""
    assert () == builtin_index().problems
    assert {"smollm2", "minilm"} <= {entry.name for entry in ENTRIES}
    assert {(BUILTIN_GALLERY, BUILTIN_URL)} == {
        (entry.gallery, entry.gallery_url) for entry in ENTRIES
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_whole(entry: GalleryEntry) -> None:
    """Each says what it is, has a backend and a licence, and configures a file that it brings."""
    assert entry.config_file is not None
    assert entry.description
    assert entry.license
    assert "llama" == entry.backend
    assert entry.config_file["parameters"]["model"] in {file.filename for file in entry.files}
    assert {} == entry.overrides
    assert "" == entry.url


@pytest.mark.parametrize(
    "file",
    [one for entry in ENTRIES for file in entry.files for one in (file, *file.sources)],
    ids=lambda file: file.filename,
)
def test_files(file: GalleryFile) -> None:
    """Each is pinned: exact version, hash and size; and is called nothing but a name."""
    source = parse_source(file.uri, Endpoints())

    assert isinstance(source, PackageSource)
    assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert file.size_bytes
    assert PurePosixPath(file.filename).name == file.filename
    assert bool(file.convert) == bool(file.sources)
