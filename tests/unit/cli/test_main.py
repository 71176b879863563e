"""The program `localplane` as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from localplane_server import __version__
from localplane_server.cli import COMMANDS, main


class TestHelp:
    def test_imports_no_command(self) -> None:
        """Help is quick: neither gRPC nor any command is imported for it."""
        program = (
            "import sys\n"
            "from localplane_server.cli import main\n"
            "main(['--help'], standalone_mode=False)\n"
            "heavy = {'grpc', 'connexion', 'yaml', 'numpy'}\n"
            "print(sorted(m for m in sys.modules if m in heavy or 'localplane_server.cli.' in m))\n"
        )
        output = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout

        assert "[]" == output.splitlines()[-1]

    @pytest.mark.parametrize("name", list(COMMANDS))
    def test_every_command_has_help(self, name: str) -> None:
        """Each entry of the table leads to a command of that name."""
        result = CliRunner().invoke(main, [name, "--help"])

        assert 0 == result.exit_code
        assert (
            result.stdout.startswith(f"Usage: localplane {name} ")
            or f" {name} " in (result.stdout.splitlines()[0])
        )

    def test_unknown_command(self) -> None:
        """A command that is not there is a wrong argument."""
        result = CliRunner().invoke(main, ["nope"])

        assert 2 == result.exit_code
        assert "No such command 'nope'" in result.stderr


def test_version() -> None:
    """The version is the package's."""
    result = CliRunner().invoke(main, ["--version"])

    assert f"localplane, version {__version__}\n" == result.stdout
