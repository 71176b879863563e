"""What is documented exists, and what exists is documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click
import pytest
from google.protobuf import descriptor_pool

from localplane_gateway.bindings import import_services
from localplane_gateway.http_status import BY_REASON, http_status
from localplane_server import config, errors
from localplane_server.cli import main
from localplane_server.rpc.server import SERVICES
from localplane_server.rpc.status import CODES

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
LEAVES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.LocalplaneError)
    and "reason" in vars(error)
    and error is not errors.LocalplaneError
]
REASONS = {leaf.reason for leaf in LEAVES} | {errors.LocalplaneError.reason}
# Named in the table of statuses for errors that come with later parts of the service.
TO_COME = {"CAPACITY_EXHAUSTED"}


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


def rows(page: str) -> dict[str, list[str]]:
    """The tables of a page: the other cells of each row, by what its first cell has in backquotes."""
    found = {}
    for line in page.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) > 1 and (name := re.fullmatch(r"`([A-Z_]+)`", cells[0])):
            found[name[1]] = cells[1:]
    return found


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.reason)
def test_codes_and_statuses_are_right(errors_page: str, leaf: type[errors.LocalplaneError]) -> None:
    """The code, the status and the advice of the page are those of the answers."""
    kind = next(kind for kind in leaf.__mro__ if kind in CODES)
    _, code, status, retry, _ = rows(errors_page)[leaf.reason]

    assert CODES[kind].name == code
    assert str(http_status(CODES[kind], leaf.reason, {})) in re.findall(r"\d{3}", status)
    is_retried = issubclass(leaf, errors.UnavailableError | errors.ExhaustedError)
    assert retry == ("yes" if is_retried else "no") or (leaf is errors.OverdueError)


@pytest.mark.parametrize(("reason", "status"), sorted(BY_REASON.items()))
def test_statuses_of_http_are_right(errors_page: str, reason: str, status: int) -> None:
    """So are those of the errors that HTTP alone has, and of those with another status than their code's."""
    assert reason in TO_COME or any(str(status) in cell for cell in rows(errors_page)[reason])


def test_the_page_invents_no_reason(errors_page: str) -> None:
    """What is gone from the service is gone from the page."""
    of_the_gateway = {"CANCELLED", "CROSS_SITE", "UNAVAILABLE"}

    assert set(rows(errors_page)) == REASONS | (set(BY_REASON) - TO_COME) | of_the_gateway


def setting_rows() -> dict[str, list[str]]:
    """The table of settings: cells by the first variable of each."""
    page = CHECKOUT / "docs" / "settings.md"
    if not page.is_file():
        pytest.skip("the pages are not beside these tests")
    found = {}
    for line in page.read_text().splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[1].startswith("`LOCALPLANE_"):
            found[cells[1].split("`")[1]] = cells
    return found


@pytest.mark.parametrize("option", config.options(), ids=lambda option: option.name)
def test_every_setting_is_documented(
    option: config.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page has each setting with its flag, all its variables and its default."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    flag, variables, default, meaning = setting_rows()[option.environment[0]]
    values = re.findall(r"`([^`]+)`", default)

    assert flag == ("" if option.is_secret else f"`{f'{option.flag} {option.metavar}'.strip()}`")
    assert list(option.environment) == re.findall(r"`(\w+)`", variables)
    assert meaning
    if option.default in (None, ()):
        # The default is told in words, if at all.
        assert option.name in ("backends_path", "models_path") or not values
    else:
        read = config.load_settings({option.name: values[0]}, {})
        assert getattr(config.load_settings({}, {}), option.name) == getattr(read, option.name)


def test_the_page_invents_no_setting() -> None:
    """What is gone from the service is gone from the page."""
    assert set(setting_rows()) == {option.environment[0] for option in config.options()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    """Commands that a page shows can be called, with the flags that it shows."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"(?:^(?:\S*/)?|`)localplane +([a-z][^`\n]*)", text, re.MULTILINE):
        command: click.Command = main
        words = line.partition("#")[0].split()
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words[0])
            assert found is not None, f"localplane {line}"
            command, words = found, words[1:]
        flags = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        shown = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert shown <= flags | {"--help"}, f"localplane {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_exist(page: Path) -> None:
    """So can the targets of make."""
    makefile = (CHECKOUT / "Makefile").read_text()
    named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)

    assert [] == [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_calls_exist(page: Path) -> None:
    """Methods that a page names with their service are declared."""
    import_services()
    services = {
        service.name: service
        for name in SERVICES
        for service in [descriptor_pool.Default().FindServiceByName(name)]
    }
    for service, method in re.findall(r"localplane\.v1\.(\w+Service)[./](\w+)", page.read_text()):
        assert method in services[service].methods_by_name, f"{service}.{method}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of ours names a file that is there."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    ours = [one for one in targets if "://" not in one and not one.startswith("MMMM")]

    assert [] == [one for one in ours if not (page.parent / one).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_lead_somewhere(page: Path) -> None:
    """A link into a page of ours names a heading that it has."""
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text()):
        text = (page.parent / target if target else page).read_text()
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        words = [re.sub(r"[^\w\- ]", "", heading).lower() for heading in headings]
        assert anchor in [one.replace(" ", "-") for one in words], f"{target}#{anchor}"
