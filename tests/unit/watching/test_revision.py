"""Places in a feed."""

from __future__ import annotations

import pytest

from localplane_server.watching.revision import Revision


def test_there_and_back() -> None:
    """What is written is read as the same."""
    assert Revision("0f3a", 42) == Revision.parse(str(Revision("0f3a", 42)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "a-",
        "-1",
        "a--1",
        "A-1",
        "a-1 ",
        "a-1\n",
        "a-" + "9" * 19,
        "a" * 33 + "-1",
        "a-٣",
        "1",
    ],
)
def test_what_is_none(text: str) -> None:
    """Anything else is no place; numbers are of ASCII and not endless."""
    assert Revision.parse(text) is None
