"""Keeping a second service out of a data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localplane_server import errors
from localplane_server.state.lock import DataDirLock

HOLDER = """
import sys
from pathlib import Path
from localplane_server.state.lock import DataDirLock
with DataDirLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(data_dir: Path) -> subprocess.Popen[bytes]:
    """Start a process that holds a data directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert b"held\n" == process.stdout.readline()
    return process


def test_second_service(tmp_path: Path) -> None:
    """A directory that is held is refused, with the number of the process that holds it."""
    with holder(tmp_path) as process:
        with pytest.raises(errors.DataDirLockedError) as caught, DataDirLock(tmp_path):
            pass
        process.kill()

    assert process.pid == caught.value.pid
    expected = f"cannot use data directory {tmp_path}: process {process.pid} is using it"
    assert expected == str(caught.value)


def test_holder_was_killed(tmp_path: Path) -> None:
    """A kill of the holder frees the directory."""
    with holder(tmp_path) as process:
        process.kill()

    with DataDirLock(tmp_path):
        assert f"{os.getpid()}\n" == (tmp_path / "lock").read_text()


def test_children_do_not_hold_it(tmp_path: Path) -> None:
    """A child that lives longer than the service does not keep the directory."""
    with DataDirLock(tmp_path):
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
    with child:
        with DataDirLock(tmp_path):
            assert child.poll() is None
        child.kill()


def test_makes_the_directory(tmp_path: Path) -> None:
    """A directory that is missing is made, for its owner only."""
    with DataDirLock(tmp_path / "a" / "b"):
        assert 0o700 == (tmp_path / "a" / "b").stat().st_mode & 0o777


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A path that is something else is refused by name."""
    (tmp_path / "file").touch()

    expected = f"cannot use data directory {tmp_path / 'file'}: File exists"
    with pytest.raises(errors.StartupError, match=expected), DataDirLock(tmp_path / "file"):
        pass
