"""The gallery that comes with the package: small models out of the Python package index."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from localplane_server.gallery.index import Index, parse_index
from localplane_server.gallery_setting import BUILTIN_GALLERY, BUILTIN_URL


@cache
def builtin_index() -> Index:
    """Return what it offers."""
    data = files("localplane_server.gallery").joinpath("builtin.yaml").read_bytes()
    return parse_index(data, gallery=BUILTIN_GALLERY, url=BUILTIN_URL, is_builtin=True)
