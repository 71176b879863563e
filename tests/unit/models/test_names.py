"""Names of models."""

from __future__ import annotations

import pytest

from localplane_server.errors import InvalidModelNameError
from localplane_server.models.names import check_name, is_contained


@pytest.mark.parametrize("name", ["", " ", "\t", "a\nb", "a\0b", "x" * 256, "ä" * 128, "\x7f"])
def test_bad_names(name: str) -> None:
    """Missing, blank, too long in bytes, or with control characters."""
    with pytest.raises(InvalidModelNameError):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "a/b c.gguf", "x.gguf", "日本語", "x" * 255, "ä" * 127])
def test_good_names(name: str) -> None:
    """Dots, slashes, spaces and any script are names."""
    assert name == check_name(name)


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "\\a", "a\\..\\b", "a\0"])
def test_paths_that_lead_out(path: str) -> None:
    """Absolute, with `..`, with a backslash, with NUL."""
    assert not is_contained(path)


@pytest.mark.parametrize("path", ["a", "a/b", "a..b", "..a", "a/..b"])
def test_paths_that_stay_in(path: str) -> None:
    """Two dots inside a name are part of the name."""
    assert is_contained(path)
