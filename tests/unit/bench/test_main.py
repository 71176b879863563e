"""The program that runs the measurements."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[3] / "bench" / "__main__.py"
SCRIPT = """
import json, sys, shared
if __name__ == "__main__":
    print(json.dumps({"ratio": shared.RATIO}) if "--json" in sys.argv else f"ratio {shared.RATIO}")
"""


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A folder with the runner, two measurements and a module that both import."""
    shutil.copy(RUNNER, tmp_path)
    (tmp_path / "shared.py").write_text("RATIO = 0.5\n")
    (tmp_path / "codec.py").write_text(SCRIPT)
    (tmp_path / "rest.py").write_text(SCRIPT)
    return tmp_path


def run(bench: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(bench), *arguments], capture_output=True, text=True, check=False
    )


def test_runs_all(bench: Path) -> None:
    """Each measurement runs once, in order, under its name."""
    assert "== codec\nratio 0.5\n== rest\nratio 0.5\n" == run(bench).stdout


def test_runs_some(bench: Path) -> None:
    """A name picks one."""
    assert "== rest\nratio 0.5\n" == run(bench, "rest").stdout


def test_json(bench: Path) -> None:
    """The results of all are one JSON object."""
    expected = {"codec": {"ratio": 0.5}, "rest": {"ratio": 0.5}}

    assert expected == json.loads(run(bench, "--json").stdout)


def test_rounds(bench: Path) -> None:
    """The number of rounds is passed on."""
    (bench / "rest.py").write_text(
        'import sys\nif __name__ == "__main__":\n    print(*sys.argv[1:])\n'
    )

    assert "== rest\n--rounds 3\n" == run(bench, "rest", "--rounds", "3").stdout


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_failure_counts(bench: Path, options: list[str]) -> None:
    """One that fails is named and fails the run, and the others still run."""
    (bench / "codec.py").write_text('if __name__ == "__main__":\n    raise SystemExit(3)\n')

    done = run(bench, *options)

    assert 1 == done.returncode
    assert "codec failed with exit code 3\n" in done.stderr
    assert "rest" in done.stdout


def test_unknown_name(bench: Path) -> None:
    """A name that is no measurement is a wrong argument."""
    done = run(bench, "shared")

    assert 2 == done.returncode
    assert "no such measurement: shared" in done.stderr
