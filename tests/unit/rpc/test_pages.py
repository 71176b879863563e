"""Lists in pages."""

from __future__ import annotations

import pytest

from localplane_server.errors import InvalidArgumentError
from localplane_server.rpc.pages import page


def all_pages(items: list[str], size: int) -> list[list[str]]:
    pages, token = [], ""
    while True:
        shown, token = page(items, str, size, token)
        pages.append(list(shown))
        if not token:
            return pages


def test_everything_without_a_size() -> None:
    """A size of zero is no size."""
    assert (["a", "b"], "") == page(["a", "b"], str, 0, "")


def test_pages_are_whole_and_in_order() -> None:
    """Each item once; no empty page behind the last."""
    assert [["a", "b"], ["c", "d"]] == all_pages(["a", "b", "c", "d"], 2)


def test_what_comes_in_between_shifts_nothing() -> None:
    """An item that appears on an earlier page does not show another one twice."""
    _, token = page(["b", "c", "d"], str, 1, "")

    assert ["c", "d"] == page(["a", "b", "c", "d"], str, 0, token)[0]


@pytest.mark.parametrize(
    ("size", "token"), [(-1, ""), (1, "x"), (1, "MA=="), (1, "Mf8="), (1, "ä")]
)
def test_bad_arguments(size: int, token: str) -> None:
    """A negative size, and tokens that are none of ours."""
    with pytest.raises(InvalidArgumentError):
        page(["a"], str, size, token)
