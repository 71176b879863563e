"""What `localplane doctor` looks at on this machine, without a service."""

from __future__ import annotations

import enum
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from localplane_server.cli.text import size
from localplane_server.config import Settings
from localplane_server.errors import AddressTakenError, SettingsError, StartupError
from localplane_server.listening import check_free, listener_of
from localplane_server.models.catalog import ModelCatalog
from localplane_server.openai_servers import OpenAIServer
from localplane_server.rpc.access import read_keys
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.programs import (
    BackendProgram,
    BackendPrograms,
    BackendSource,
    ExternalServer,
)

OLDEST_PYTHON = (3, 11)
LITTLE_SPACE_BYTES = 1 << 30
"""Less free space is worth a word: a model may not fit."""
TOO_LITTLE_SPACE_BYTES = 64 << 20
"""With less, the state file and the logs are in danger."""
IMPORT_SECONDS = 60.0
CONNECT_SECONDS = 3.0


class Verdict(enum.StrEnum):
    """How a finding is meant."""

    OK = "ok"
    """As it should be."""
    NOTE = "note"
    """Works, and is worth knowing."""
    PROBLEM = "problem"
    """Must be mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    check: str
    """What was looked at, in one word."""
    verdict: Verdict
    """How it is meant."""
    message: str
    """What was found."""
    remedy: str | None = None
    """What to do about it."""

    def as_json(self) -> dict[str, str | None]:
        """Return it as JSON has it."""
        return asdict(self)


def examine(settings: Settings, programs: BackendPrograms) -> Iterator[Finding]:
    """Look at everything that the service needs on this machine."""
    yield _python()
    yield from _kernel()
    holder = lock_holder(settings.data_dir)
    yield _folder("data", settings.data_dir)
    yield from _privacy(settings.data_dir)
    yield _space(settings.data_dir)
    yield _lock(settings.data_dir, holder)
    yield _folder("models", settings.models_dir)
    yield from _catalog(settings.models_dir)
    yield _port("grpc", settings.grpc_listen, holder)
    yield _port("http", settings.http_listen, holder)
    yield _keys(settings)
    yield from _backends(programs, settings.openai_backends)


def lock_holder(data_dir: Path) -> int | None:
    """Return the process whose service works on a data directory; None when there is none.

    The lock itself is not tried: a service that starts at this very moment would be refused.
    """
    path = data_dir / "lock"
    try:
        inode = path.stat().st_ino
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    for words in held:
        if "FLOCK" in words and "->" not in words and words[5].endswith(f":{inode}"):
            return int(words[4])
    return None


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Finding("python", Verdict.OK, f"Python {version}")
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Finding(
        "python", Verdict.PROBLEM, f"Python {version} is too old", f"Install Python {oldest}."
    )


def _kernel() -> Iterator[Finding]:
    try:
        psutil.Process().create_time()
        yield Finding("proc", Verdict.OK, "/proc tells of processes")
    except (psutil.Error, OSError) as error:
        yield Finding(
            "proc",
            Verdict.PROBLEM,
            f"/proc cannot be read: {error}",
            "Mount /proc: backends are watched through it.",
        )
    try:
        os.close(os.pidfd_open(os.getpid()))
        yield Finding("pidfd", Verdict.OK, "the kernel has pidfds")
    except (AttributeError, OSError) as error:
        yield Finding(
            "pidfd",
            Verdict.PROBLEM,
            f"the kernel gives no pidfd: {error}",
            "Use Linux 5.3 or newer, and let a sandbox allow pidfd_open.",
        )


def _folder(check: str, folder: Path) -> Finding:
    nearest = _nearest(folder)
    if not nearest.is_dir():
        message = f"{nearest} is no directory"
        return Finding(check, Verdict.PROBLEM, message, "Move it away, or name another directory.")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        message = f"{nearest} cannot be written"
        remedy = f"Give this user the right: chown or chmod {nearest}."
        return Finding(check, Verdict.PROBLEM, message, remedy)
    if nearest != folder:
        return Finding(check, Verdict.OK, f"{folder} will be made when it is needed")
    return Finding(check, Verdict.OK, f"{folder} can be written")


def _privacy(data_dir: Path) -> Iterator[Finding]:
    if data_dir.is_dir() and data_dir.stat().st_mode & 0o002:
        message = f"{data_dir} can be changed by every user"
        yield Finding("privacy", Verdict.PROBLEM, message, f"chmod o-w {data_dir}")


def _space(data_dir: Path) -> Finding:
    nearest = _nearest(data_dir)
    free = shutil.disk_usage(nearest).free
    message = f"{size(free)} free at {nearest}"
    if free >= LITTLE_SPACE_BYTES:
        return Finding("space", Verdict.OK, message)
    verdict = Verdict.NOTE if free >= TOO_LITTLE_SPACE_BYTES else Verdict.PROBLEM
    return Finding("space", verdict, message, "Make room, or move the data with --data-dir.")


def _lock(data_dir: Path, holder: int | None) -> Finding:
    if holder is None:
        return Finding("lock", Verdict.OK, f"no service works on {data_dir}")
    return Finding("lock", Verdict.OK, f"process {holder} works on {data_dir}")


def _catalog(models_dir: Path) -> Iterator[Finding]:
    if not os.access(_nearest(models_dir), os.R_OK | os.X_OK):
        return  # said already
    catalog = ModelCatalog(models_dir)
    count = len(catalog.configured()) + len(catalog.loose())
    if count:
        yield Finding("models", Verdict.OK, f"there are {count}")
    else:
        remedy = "localplane models install smollm2"
        yield Finding("models", Verdict.NOTE, "there are none yet", remedy)
    for problem in catalog.problems:
        message = f"{models_dir / problem.file} cannot be used: {problem.message}"
        yield Finding("models", Verdict.NOTE, message, "Correct it, or move it away.")


def _port(check: str, endpoint: Endpoint, holder: int | None) -> Finding:
    try:
        check_free(endpoint)
    except AddressTakenError as error:
        listener = listener_of(endpoint.port)
        if listener is not None and listener.pid == holder:
            return Finding(check, Verdict.OK, f"the service listens on {endpoint}")
        remedy = f"End that program, or choose another address with --{check}-listen."
        return Finding(check, Verdict.PROBLEM, str(error), remedy)
    except StartupError as error:
        remedy = f"Choose another address with --{check}-listen."
        return Finding(check, Verdict.PROBLEM, str(error), remedy)
    return Finding(check, Verdict.OK, f"{endpoint} is free")


def _keys(settings: Settings) -> Finding:
    if not settings.has_keys:
        return Finding("keys", Verdict.OK, "no key is needed, and only this machine is let in")
    try:
        read_keys(settings.api_key, settings.api_key_file)
    except SettingsError as error:
        file = settings.api_key_file
        remedy = f"Write one key a line into {file}, and chmod 600 {file}."
        return Finding("keys", Verdict.PROBLEM, str(error), remedy)
    return Finding("keys", Verdict.OK, "callers need a key")


def _backends(
    programs: BackendPrograms, openai_servers: Iterable[OpenAIServer]
) -> Iterator[Finding]:
    known = programs.all()
    has_some = any(isinstance(one, ExternalServer) or one.missing is None for one in known)
    for one in known:
        if isinstance(one, ExternalServer):
            yield _answers(one.name, one.address, "--external-grpc-backends")
        elif one.is_ours:
            # Of the server behind it the settings tell more.
            continue
        elif one.source is not BackendSource.SHIPPED:
            message = f"{one.name} is {one.source.value}: {' '.join(one.argv)}"
            yield Finding("backend", Verdict.OK, message)
        elif one.missing is None:
            yield _loads(one)
        else:
            yield Finding(
                "backend",
                Verdict.NOTE if has_some else Verdict.PROBLEM,
                f"{one.name} is not installed",
                f"pip install 'localplane[{one.missing}]'",
            )
    for server in openai_servers:
        yield _openai_server(server)
    for problem in programs.problems:
        message = f"{problem.name} in the backends folder cannot be used: {problem.message}"
        yield Finding("backend", Verdict.NOTE, message, "Correct it, or move it away.")


def _openai_server(server: OpenAIServer) -> Finding:
    """See whether somebody listens where a server is said to be, or whether there is the command that runs one."""
    if not server.command:
        return _answers(server.name, Endpoint(*server.address), "--openai-backends")
    if shutil.which(server.command[0]):
        return Finding("backend", Verdict.OK, f"{server.name} runs {server.command[0]}")
    message = f"{server.name} cannot run {server.command[0]}: there is no such program"
    return Finding("backend", Verdict.NOTE, message, "Install it, or correct openai_backends.")


def _answers(name: str, address: Endpoint, setting: str) -> Finding:
    """See whether somebody listens where a server is said to be. It may be started later, so it need not be."""
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError as error:
        message = f"{name} cannot be reached at {address}: {error.strerror or error}"
        remedy = f"Start that server, or correct {setting}."
        return Finding("backend", Verdict.NOTE, message, remedy)
    return Finding("backend", Verdict.OK, f"{name} listens at {address}")


def _loads(program: BackendProgram) -> Finding:
    """Import what a backend needs, in a process of its own: a library for another processor ends it."""
    if program.needs is None or importlib.util.find_spec(program.needs) is None:
        return Finding("backend", Verdict.OK, f"{program.name} is installed")
    try:
        done = subprocess.run(  # noqa: S603 - the module's name is the program's own
            [sys.executable, "-c", f"import {program.needs}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=IMPORT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        cause = f"takes longer than {IMPORT_SECONDS:.0f} s to load"
    else:
        if done.returncode == 0:
            return Finding("backend", Verdict.OK, f"{program.name} is installed")
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        cause = f"cannot be loaded: {last}"
    return Finding(
        "backend",
        Verdict.PROBLEM,
        f"{program.name} is installed, and {program.needs} {cause}",
        f"pip install --force-reinstall 'localplane[{program.extra}]'",
    )


def _nearest(path: Path) -> Path:
    """Return the path itself or, where it is missing, the nearest above it that is there."""
    return next(one for one in (path, *path.parents) if one.exists())
