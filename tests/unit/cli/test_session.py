"""What the commands that call a service share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner

from localplane_client import LocalplaneError, NotReachableError
from localplane_server.cli import main
from localplane_server.cli.session import HINTS, exit_code_of, read_api_key
from localplane_server.errors import ModelNotLoadedError
from localplane_server.rpc.status import code_of


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LOCALPLANE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def nobody(tmp_path: Path) -> str:
    """A target where nobody listens."""
    return f"unix:{tmp_path / 'nobody'}"


class TestExitCodes:
    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (grpc.StatusCode.INTERNAL, 1),
            (grpc.StatusCode.INVALID_ARGUMENT, 1),
            (grpc.StatusCode.UNAUTHENTICATED, 4),
            (grpc.StatusCode.PERMISSION_DENIED, 4),
            (grpc.StatusCode.NOT_FOUND, 5),
            (grpc.StatusCode.UNAVAILABLE, 6),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, 6),
            (grpc.StatusCode.DEADLINE_EXCEEDED, 6),
        ],
    )
    def test_of_service(self, code: grpc.StatusCode, expected: int) -> None:
        """What the service answers decides."""
        assert expected == exit_code_of(LocalplaneError("x", reason="X", code=code))

    def test_of_nobody(self) -> None:
        """Nobody there is not the same as not now."""
        error = NotReachableError("x", reason="X", code=grpc.StatusCode.UNAVAILABLE)

        assert 3 == exit_code_of(error)

    def test_hints_are_for_reasons_that_exist(self) -> None:
        """A hint for a reason that no service says would never be seen."""
        assert ModelNotLoadedError("x").reason in HINTS
        assert grpc.StatusCode.NOT_FOUND is code_of(ModelNotLoadedError("x"))


class TestNotReachable:
    def test_for_people(self, nobody: str) -> None:
        """One line says what is wrong, the next what to do; nothing is on standard output."""
        result = CliRunner().invoke(main, ["status", "--grpc", nobody])

        assert (3, "") == (result.exit_code, result.stdout)
        assert result.stderr.startswith(f"Error: cannot reach {nobody}: ")
        assert "localplane serve" in result.stderr.splitlines()[1]

    def test_for_programs(self, nobody: str) -> None:
        """One JSON document, in REST's shape for errors."""
        result = CliRunner().invoke(main, ["status", "--grpc", nobody, "--json"])
        error = json.loads(result.stdout)["error"]

        assert (3, 503, "NOT_REACHABLE", {}) == (
            result.exit_code,
            error["code"],
            error["reason"],
            error["metadata"],
        )
        assert "" == result.stderr

    def test_environment_names_the_service(
        self, monkeypatch: pytest.MonkeyPatch, nobody: str
    ) -> None:
        """LOCALPLANE_GRPC stands in for --grpc, which wins over it."""
        monkeypatch.setenv("LOCALPLANE_GRPC", nobody)

        told = CliRunner().invoke(main, ["backend", "list"])
        given = CliRunner().invoke(main, ["backend", "list", "--grpc", f"{nobody}-too"])

        assert f"cannot reach {nobody}:" in told.stderr
        assert f"cannot reach {nobody}-too:" in given.stderr


class TestWrongUse:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["status", "--grpc", "nowhere"], "expected HOST:PORT or unix:PATH"),
            (["status", "--timeout", "soon"], "cannot read soon as a duration"),
            (["backend", "stop", "m", "--grace", "-1"], "-1.0 is not in the range"),
            (["backend", "stop"], "name a model, or give --all"),
            (["backend", "stop", "m", "--all"], "name a model, or give --all"),
            (["tokenize", "m", "--decode", "one"], "tokens are whole numbers"),
            (["chat", "m", "hi", "--max-tokens", "0"], "0 is not in the range"),
        ],
    )
    def test_is_2(self, arguments: list[str], words: str) -> None:
        """A wrong argument is told before anything is called."""
        result = CliRunner().invoke(main, arguments)

        assert 2 == result.exit_code
        assert words in result.stderr


class TestColour:
    def test_only_where_it_is_wanted(self, monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
        """A terminal gets colours unless NO_COLOR is set; empty counts as not set."""
        arguments = ["status", "--grpc", nobody]
        plain = CliRunner().invoke(main, arguments).stderr
        coloured = CliRunner().invoke(main, arguments, color=True).stderr
        monkeypatch.setenv("NO_COLOR", "")
        still = CliRunner().invoke(main, arguments, color=True).stderr
        monkeypatch.setenv("NO_COLOR", "1")
        without = CliRunner().invoke(main, arguments, color=True).stderr

        assert [False, True, True, False] == [
            "\x1b[" in text for text in (plain, coloured, still, without)
        ]


class TestApiKey:
    def test_first_of_the_file(self, tmp_path: Path) -> None:
        """The service's own file does: comments and roles are not part of a key."""
        file = tmp_path / "keys"
        file.write_text("# ours\n\nfirst admin\nsecond\n")

        assert "first" == read_api_key(file)

    def test_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A key in the environment wins over a file named there, a file given over both."""
        (tmp_path / "named").write_text("named\n")
        (tmp_path / "given").write_text("given\n")
        seen = [read_api_key(None)]
        monkeypatch.setenv("LOCALPLANE_API_KEY_FILE", str(tmp_path / "named"))
        seen.append(read_api_key(None))
        monkeypatch.setenv("LOCALPLANE_API_KEY", "told,other")
        seen.append(read_api_key(None))
        seen.append(read_api_key(tmp_path / "given"))

        assert [None, "named", "told", "given"] == seen

    @pytest.mark.parametrize(("content", "words"), [(None, "cannot read"), ("# none\n", "no key")])
    def test_useless_file(self, tmp_path: Path, content: str | None, words: str) -> None:
        """A file that is missing or empty is an error, not a call without a key."""
        file = tmp_path / "keys"
        if content is not None:
            file.write_text(content)

        with pytest.raises(click.ClickException, match=words):
            read_api_key(file)
