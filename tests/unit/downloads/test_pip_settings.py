"""Package indexes are those of the operator's pip."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.downloads.pip_settings import PipSettings

PUBLIC = "https://pypi.org/simple"


def test_nothing_said(tmp_path: Path) -> None:
    """Without settings, it is the public index."""
    settings = PipSettings.read({"PIP_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)})

    assert ((PUBLIC,), "") == (settings.index_urls, settings.certificate)


def test_file_of_the_user(tmp_path: Path) -> None:
    """A user's file is read, and a section for downloading counts more than the common one."""
    folder = tmp_path / ".config" / "pip"
    folder.mkdir(parents=True)
    text = "[global]\nindex_url = https://a/simple/\ncert = /c.pem\n[download]\nextra-index-url =\n  https://b\n  https://c\n"
    (folder / "pip.conf").write_text(text)
    settings = PipSettings.read({"HOME": str(tmp_path)})

    assert ("https://a/simple", "https://b", "https://c") == settings.index_urls
    assert "/c.pem" == settings.certificate


def test_environment(tmp_path: Path) -> None:
    """The environment counts more than any file."""
    given = tmp_path / "pip.conf"
    given.write_text("[global]\nindex-url = https://a\n")
    environment = {"PIP_CONFIG_FILE": str(given), "PIP_INDEX_URL": "https://b/", "PIP_CERT": "/c"}

    assert ("https://b",) == PipSettings.read(environment).index_urls
    assert "/c" == PipSettings.read(environment).certificate
    del environment["PIP_INDEX_URL"]
    assert ("https://a",) == PipSettings.read(environment).index_urls


def test_key() -> None:
    """A user's name in the URL becomes a key for that host, and is in no URL that could be shown."""
    environment = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "https://me:p%40ss@host:8/simple",
    }
    settings = PipSettings.read(environment)

    assert ("https://host:8/simple",) == settings.index_urls
    assert "Basic bWU6cEBzcw==" == settings.credentials.authorization("https://host:8/x")
    assert settings.credentials.authorization("https://host/x") is None


@pytest.mark.parametrize("url", ["https://host:port/simple", "https://me:p@[::1/simple", "simple"])
def test_index_that_is_none(url: str) -> None:
    """An index whose URL is none is left out; the others stay."""
    environment = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": url,
        "PIP_EXTRA_INDEX_URL": "https://b",
    }
    assert ("https://b",) == PipSettings.read(environment).index_urls


@pytest.mark.parametrize("content", ["no section", "[global\n", "\xff"])
def test_file_that_is_none(tmp_path: Path, content: str) -> None:
    """A file that cannot be read says nothing."""
    given = tmp_path / "pip.conf"
    given.write_bytes(content.encode("latin-1"))

    assert (PUBLIC,) == PipSettings.read({"PIP_CONFIG_FILE": str(given)}).index_urls


def test_no_index() -> None:
    """Whoever wants no index has none."""
    environment = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}

    assert () == PipSettings.read(environment).index_urls
