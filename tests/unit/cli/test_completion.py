"""What a shell is offered."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from localplane_server.cli import COMMANDS, main
from localplane_server.cli.completion import VARIABLE
from unit.client.fake_service import service


def offered(*words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is offered for the last of the words, as bash asks."""
    monkeypatch.setenv(VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["localplane", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    result = CliRunner().invoke(main, prog_name="localplane")
    assert "" == result.stderr
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands, and those of a group."""
    assert list(COMMANDS) == offered("", monkeypatch=monkeypatch)
    assert ["monitor"] == offered("backend", "mo", monkeypatch=monkeypatch)


def test_commands_are_not_imported() -> None:
    """Offering them is quick: neither gRPC nor any command is imported for it."""
    program = (
        "import os, sys\n"
        "from localplane_server.cli import main\n"
        "try:\n"
        "    main(prog_name='localplane')\n"
        "except SystemExit:\n"
        "    print([m for m in sys.modules if m == 'grpc' or 'localplane_server.cli.' in m])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={VARIABLE: "bash_complete", "COMP_WORDS": "localplane ", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "[]" == output.splitlines()[-1]


def test_no_models_without_a_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nobody answers there are no names, no words, and no wait."""
    monkeypatch.setenv("LOCALPLANE_GRPC", f"unix:{tmp_path / 'nobody'}")
    began = time.monotonic()

    assert [] == offered("chat", "", monkeypatch=monkeypatch)
    assert 10 > time.monotonic() - began


def test_silent_about_all_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service that does not know the call, a wrong target and a missing key file are no names either."""
    with service(tmp_path) as (target, _, _):
        monkeypatch.setenv("LOCALPLANE_GRPC", target)
        unimplemented = offered("chat", "", monkeypatch=monkeypatch)
    monkeypatch.setenv("LOCALPLANE_GRPC", "nowhere")
    wrong = offered("backend", "stop", "", monkeypatch=monkeypatch)
    monkeypatch.setenv("LOCALPLANE_API_KEY_FILE", str(tmp_path / "missing"))
    keyless = offered("backend", "stop", "", monkeypatch=monkeypatch)

    assert [[], [], []] == [unimplemented, wrong, keyless]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script(shell: str) -> None:
    """A shell that is here takes the script without a complaint."""
    script = CliRunner().invoke(main, ["completion", shell]).stdout
    assert VARIABLE in script
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")

    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)
