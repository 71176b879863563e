"""What is documented exists, and what exists is documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from localplane_gateway.http_status import BY_REASON
from localplane_server import config, errors

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
REASONS = {
    error.reason
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.LocalplaneError)
}
# Named in the table of statuses for errors that come with later parts of the service.
TO_COME = {"CAPACITY_EXHAUSTED", "INSUFFICIENT_STORAGE"}


@pytest.fixture(scope="module")
def errors_page() -> str:
    """The page about errors."""
    page = CHECKOUT / "docs" / "errors.md"
    if not page.is_file():
        pytest.skip("the pages are not beside these tests")
    return page.read_text()


@pytest.mark.parametrize("reason", sorted(REASONS | (set(BY_REASON) - TO_COME) | {"CROSS_SITE"}))
def test_every_reason_is_documented(errors_page: str, reason: str) -> None:
    """Whoever gets an error finds it on the page."""
    assert f"| `{reason}` |" in errors_page


@pytest.mark.parametrize("option", config.options(), ids=lambda option: option.name)
def test_every_setting_is_documented(option: config.Option) -> None:
    """Whoever looks for a setting finds it among the pages."""
    if not PAGES:
        pytest.skip("the pages are not beside these tests")
    name = option.environment[0] if option.is_secret else option.flag

    assert any(name in page.read_text() for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of ours names a file that is there."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    ours = [one for one in targets if "://" not in one and not one.startswith("MMMM")]

    assert [] == [one for one in ours if not (page.parent / one).exists()]
