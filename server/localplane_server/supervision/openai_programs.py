"""The program that speaks to the servers with OpenAI's API, once for each server that the operator registered."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from localplane_server.openai_servers import OpenAIServer
from localplane_server.supervision.programs import BackendProgram, BackendSource


def openai_programs(
    servers: Iterable[OpenAIServer], environment: Mapping[str, str]
) -> list[BackendProgram]:
    """Return a program for each server.

    Args:
        servers: The servers.
        environment: Has their keys.

    Raises:
        SettingsError: If a key is missing.
    """
    return [
        BackendProgram(
            name=server.name,
            argv=(sys.executable, "-m", "localplane_backends.openai"),
            source=BackendSource.EXTERNAL,
            is_ours=True,
            env=server.environment(environment),
        )
        for server in servers
    ]
