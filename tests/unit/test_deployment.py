"""What is said of deployment: the unit, the Containerfile, and the pages about them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest
import yaml

from localplane_server import config, setting_values
from localplane_server.cli import main

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "localplane.service"
CONTAINERFILE = ROOT / "Containerfile"
PAGES = (ROOT / "docs" / "deployment.md", ROOT / "docs" / "operations.md")

VARIABLES = {name for option in config.options() for name in option.environment}


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, each with what follows it on its lines."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def arguments_of(instruction: str) -> list[str]:
    """The words of the only instruction of a name."""
    (text,) = (text for name, text in instructions() if name == instruction)
    words: list[str] = yaml.safe_load(text)
    return words


def settings(section: str) -> dict[str, list[str]]:
    """The unit's settings in a section, by name."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif line and not line.startswith("#") and current == section:
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def assert_is_a_command(words: list[str]) -> None:
    """Fail unless the command line has this command, with these options."""
    command: click.Command = main
    context = click.Context(main)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest.pop(0))
        assert found is not None, f"no such command: localplane {' '.join(words)}"
        command = found
    known = {flag for one in command.get_params(click.Context(command)) for flag in one.opts}
    given = {word.split("=")[0] for word in rest if word.startswith("--")}
    assert set() == given - known, f"no such option: localplane {' '.join(words)}"


class TestUnit:
    def test_command(self) -> None:
        """It starts a command that there is."""
        (line,) = settings("Service")["ExecStart"]
        program, *words = shlex.split(line)

        assert "/opt/localplane/bin/localplane" == program
        assert_is_a_command(words)

    def test_environment(self) -> None:
        """It sets variables that are read, and the data directory that it may write."""
        given = dict(one.split("=", 1) for one in settings("Service")["Environment"])
        (folder,) = settings("Service")["StateDirectory"]

        assert given.keys() <= VARIABLES
        assert f"/var/lib/{folder}" == given["LOCALPLANE_DATA_DIR"]

    def test_time_to_stop(self) -> None:
        """It is not killed within its own grace period."""
        (seconds,) = settings("Service")["TimeoutStopSec"]

        assert int(seconds) > config.Settings().shutdown_grace

    def test_systemd_accepts_it(self, tmp_path: Path) -> None:
        """Each setting is one of systemd's, with a value that it takes."""
        if shutil.which("systemd-analyze") is None:
            pytest.skip("no systemd-analyze")
        # The program need not be installed here; that it exists is checked too.
        text = UNIT.read_text().replace(
            "/opt/localplane/bin/localplane", shutil.which("true") or ""
        )
        copy = tmp_path / UNIT.name
        copy.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(copy)],
            capture_output=True,
            text=True,
            check=False,
        )

        assert (0, "") == (
            done.returncode,
            "".join(line for line in done.stderr.splitlines(keepends=True) if UNIT.name in line),
        )


class TestContainerfile:
    def test_command(self) -> None:
        """It starts a command that there is."""
        program, *words = [*arguments_of("ENTRYPOINT"), *arguments_of("CMD")]

        assert "localplane" == program
        assert_is_a_command(words)

    def test_environment(self) -> None:
        """It sets variables that are read."""
        given = {
            word.split("=")[0]
            for name, text in instructions()
            if name == "ENV"
            for word in shlex.split(text)
        }

        assert {one for one in given if one.startswith("LOCALPLANE_")} <= VARIABLES

    def test_copies(self) -> None:
        """All that it copies is in the checkout, and in what the builder gets to see."""
        if not (ROOT / "server").is_dir():
            pytest.skip("the sources that an image is built from are not beside these tests")
        seen = [
            line.removeprefix("!")
            for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line.startswith("!")
        ]
        sources = [
            word
            for name, text in instructions()
            if name == "COPY" and not text.startswith("--from")
            for word in text.split()[:-1]
        ]

        assert "requirements.lock" in sources
        for source in sources:
            assert any(fnmatch(source, one) for one in seen), source
        missing = {one for one in seen if not (ROOT / one).exists()}
        # The tests may run where the packages themselves are not, but installed.
        assert missing <= {"LICENSE", "README.md", "gateway", "gen", "server"}

    def test_health(self) -> None:
        """It asks the port that is listened on, on a path of the API that needs no key."""
        (check,) = (text for name, text in instructions() if name == "HEALTHCHECK")
        (port, path) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", check)[0]
        listens = dict(
            word.split("=", 1)
            for name, text in instructions()
            if name == "ENV"
            for word in shlex.split(text)
        )["LOCALPLANE_HTTP_LISTEN"]

        assert setting_values.parse_endpoint(listens).port == int(port)
        assert path in yaml.safe_load((ROOT / "gateway" / "openapi.yaml").read_text())["paths"]

    def test_user(self) -> None:
        """The service does not run as root."""
        users = [text for name, text in instructions() if name == "USER"]

        assert ["localplane"] == users

    def test_names_no_registry(self) -> None:
        """Where images come from is the builder's choice."""
        bases = [text for name, text in instructions() if name in ("ARG", "FROM")]

        assert "BASE=python:3.11-slim" in bases
        assert not [base for base in bases if "/" in base]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPages:
    def test_commands(self, page: Path) -> None:
        """Each command line of ours that the page shows exists."""
        shown = re.findall(
            r"(?<![-\w.])localplane ((?:serve|gateway|models|doctor|--version)[^`\n#]*)",
            page.read_text(),
        )

        assert shown
        for line in shown:
            words = shlex.split(line)
            if words != ["--version"]:
                assert_is_a_command(words)

    def test_settings(self, page: Path) -> None:
        """Each setting that the page names exists."""
        names = set(re.findall(r"\bLOCALPLANE_[A-Z_]+[A-Z]", page.read_text()))

        assert names - {"LOCALPLANE_NAME"} <= VARIABLES

    def test_links(self, page: Path) -> None:
        """Each file that the page links to is there."""
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if target != "../CHANGELOG.md":
                assert (page.parent / target).exists(), target
