"""Which backends a service has: those that ship, those that the operator names, those in the backends folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from localplane_server.config import Settings
from localplane_server.errors import SettingsError
from localplane_server.setting_values import Endpoint, ExternalSetting
from localplane_server.supervision.installed import InstalledBackends
from localplane_server.supervision.openai_programs import openai_programs
from localplane_server.supervision.programs import (
    BackendProgram,
    BackendPrograms,
    BackendSource,
    ExternalServer,
    RegisteredBackend,
)

FLAG = "--external-grpc-backends"
OPENAI = "--openai-backends"
SCRIPT_START = b"#!"


def register(
    programs: BackendPrograms, settings: Settings, environment: Mapping[str, str]
) -> BackendPrograms:
    """Return the backends of a service: those given, and those that the settings name or lead to.

    Args:
        programs: Those given.
        settings: The settings.
        environment: Has the keys of servers that the settings name variables for.

    Raises:
        SettingsError: If a backend that the operator names cannot be one.
    """
    named: list[tuple[str, RegisteredBackend]] = [
        *((FLAG, _external(one)) for one in settings.external_grpc_backends),
        *((OPENAI, one) for one in openai_programs(settings.openai_backends, environment)),
    ]
    backends = [*programs.all()]
    for setting, one in named:
        # An alias of a shipped backend is free: whoever brings LocalAI's llama-cpp wants that one.
        if any(one.name == known.name for known in backends):
            message = f"{setting}: cannot name a backend {one.name}: there is one already"
            raise SettingsError(message)
        backends.append(one)
    return BackendPrograms(backends, InstalledBackends(settings.backends_dir))


def _external(given: ExternalSetting) -> RegisteredBackend:
    if isinstance(given.target, Endpoint):
        return ExternalServer(name=given.name, address=given.target)
    return BackendProgram(
        name=given.name,
        argv=_argv(given.name, given.target),
        source=BackendSource.EXTERNAL,
        cwd=given.target.parent,
    )


def _argv(name: str, path: Path) -> tuple[str, ...]:
    """Return how to start a script: a Python file that cannot be executed by itself gets our interpreter."""
    try:
        is_file = path.is_file()
        start = b""
        if is_file:
            with path.open("rb") as file:
                start = file.read(len(SCRIPT_START))
    except OSError as error:
        raise SettingsError(f"{FLAG}: cannot use {path} as {name}: {error.strerror}") from error
    if not is_file:
        missing = "it is no file" if path.exists() else "there is no such file"
        raise SettingsError(f"{FLAG}: cannot use {path} as {name}: {missing}")
    is_executable = os.access(path, os.X_OK)
    if path.suffix == ".py" and not (is_executable and start == SCRIPT_START):
        return (sys.executable, str(path))
    if not is_executable:
        message = f"{FLAG}: cannot use {path} as {name}: it is not executable (chmod +x {path})"
        raise SettingsError(message)
    return (str(path),)
