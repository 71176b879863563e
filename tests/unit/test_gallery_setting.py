"""Galleries as they are named."""

from __future__ import annotations

import json

import pytest

from localplane_server.config import load_settings
from localplane_server.errors import SettingsError
from localplane_server.gallery_setting import (
    DEFAULT_GALLERIES,
    GallerySetting,
    WrongGalleryError,
    check_gallery,
    parse_galleries,
)

URL = "https://host/index.yaml"


def test_as_localai_has_them() -> None:
    """A JSON array of objects; what they have besides is nobody's business."""
    text = json.dumps(
        [{"name": "a", "url": URL, "verification": {}}, {"name": "b", "url": URL, "mirrors": [URL]}]
    )

    assert (GallerySetting("a", URL), GallerySetting("b", URL, (URL,))) == parse_galleries(text)
    assert () == parse_galleries("[]")


@pytest.mark.parametrize("variable", ["LOCALPLANE_GALLERIES", "LOCALAI_GALLERIES", "GALLERIES"])
def test_variables(variable: str) -> None:
    """LocalAI's names do."""
    assert () == load_settings({}, {variable: "[]"}).galleries
    assert DEFAULT_GALLERIES == load_settings({}, {}).galleries


def test_file() -> None:
    """A file can have the list itself."""
    assert (GallerySetting("a", URL),) == parse_galleries([{"name": "a", "url": URL}])


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "JSON"),
        ("{}", "JSON array"),
        ("[" * 100_000, "JSON"),
        ("[1]", "object"),
        ('[{"name": "a"}]', "texts"),
        ('[{"name": "a", "url": 1}]', "texts"),
        ('[{"name": "a", "url": "https://h/", "mirrors": "x"}]', "texts"),
        ('[{"name": "a", "url": "https://h/", "mirrors": [1]}]', "texts"),
        ('[{"name": "a", "url": "https://h/"}, {"name": "A", "url": "https://h/"}]', "two"),
        ('[{"name": "a b", "url": "https://h/"}]', "'a b'"),
    ],
)
def test_unreadable(text: str, cause: str) -> None:
    """What is no such list is told before anything starts."""
    with pytest.raises(SettingsError, match=cause):
        parse_galleries(text)


@pytest.mark.parametrize(
    "url",
    [
        "github:owner/repo/index.yaml@main",
        "huggingface://owner/repo/index.yaml",
        "hf://owner/repo/index.yaml",
        "file:///models/index.yaml",
        "http://host:8080/x?y=z",
    ],
)
def test_good_urls(url: str) -> None:
    """All schemes that an index can come by."""
    check_gallery(GallerySetting("a", url))


@pytest.mark.parametrize(
    ("gallery", "field"),
    [
        (GallerySetting("", URL), "name"),
        (GallerySetting(".a", URL), "name"),
        (GallerySetting("a@b", URL), "name"),
        (GallerySetting("a/b", URL), "name"),
        (GallerySetting("a\n", URL), "name"),
        (GallerySetting("é", URL), "name"),
        (GallerySetting("a" * 65, URL), "name"),
        (GallerySetting("localplane", URL), "url"),
        (GallerySetting("Localplane", URL), "url"),
        (GallerySetting("a", "builtin://localplane"), "url"),
        (GallerySetting("a", ""), "url"),
        (GallerySetting("a", "host/index.yaml"), "url"),
        (GallerySetting("a", "ftp://host/x"), "url"),
        (GallerySetting("a", "javascript:alert(1)"), "url"),
        (GallerySetting("a", "https://"), "url"),
        (GallerySetting("a", "https:///x"), "url"),
        (GallerySetting("a", "https://host:port/"), "url"),
        (GallerySetting("a", "https://[::1/"), "url"),
        (GallerySetting("a", "https://user@host/"), "url"),
        (GallerySetting("a", "https://host/a b"), "url"),
        (GallerySetting("a", "https://host/a\r\nx: y"), "url"),
        (GallerySetting("a", "https://host/\0"), "url"),
        (GallerySetting("a", "https://host\\@other/"), "url"),
        (GallerySetting("a", "https://hóst/"), "url"),
        (GallerySetting("a", f"https://host/{'x' * 2048}"), "url"),
        (GallerySetting("a", URL, ("x",)), "mirrors"),
        (GallerySetting("a", URL, (URL,) * 17), "mirrors"),
    ],
)
def test_bad_galleries(gallery: GallerySetting, field: str) -> None:
    """What can only be wrong is refused, with what of it is."""
    with pytest.raises(WrongGalleryError) as caught:
        check_gallery(gallery)

    assert field == caught.value.field
