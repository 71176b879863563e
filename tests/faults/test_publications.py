"""Changes of the models folder whose process is killed, at every point at which that can make a difference."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import killed_publication

pytestmark = pytest.mark.faults

OLD = {"shared.json": "old", "x.yaml": "old"}
INSTALLED = {"shared.json": "new", "sub/x.gguf": "weights", "x.yaml": "new"}
LEAST_STEPS = 12


def outcomes(change: str, folder: Path) -> list[dict[str, Any]]:
    program = Path(str(killed_publication.__file__))
    done = subprocess.run(
        [sys.executable, program, change, folder], check=True, capture_output=True, text=True
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) > LEAST_STEPS
    return told


def test_installation(tmp_path: Path) -> None:
    """Whenever it is killed, the configuration comes last, and a recovery brings the old state or the new one."""
    told = outcomes("install", tmp_path)

    for one in told:
        after_kill = one["after_kill"]
        # What is listed is whole, even before anybody recovers anything.
        assert after_kill["x.yaml"] == "old" or INSTALLED == after_kill, one
        assert one["after_recovery"] in (OLD, INSTALLED), one
        assert not one["hidden"], one
        # Nothing is fetched again: either it is installed, or it is staged still.
        assert one["staged"] == (one["after_recovery"] == OLD), one
    assert {True, False} == {one["after_recovery"] == OLD for one in told}
    assert INSTALLED == told[-1]["after_kill"]


def test_deletion(tmp_path: Path) -> None:
    """Whenever it is killed, the configuration went first, and a recovery brings the old state or an empty one."""
    told = outcomes("delete", tmp_path)

    for one in told:
        assert one["after_kill"] in (OLD, {"shared.json": "old"}, {}), one
        assert one["after_recovery"] in (OLD, {}), one
        assert not one["hidden"], one
    assert {True, False} == {one["after_recovery"] == OLD for one in told}


def test_failure(tmp_path: Path) -> None:
    """Whenever a change that cannot be made is killed, also while it is taken back, the old state comes back."""
    for one in outcomes("take-back", tmp_path):
        assert OLD == one["after_recovery"], one
        assert one["staged"], one
        assert not one["hidden"], one
