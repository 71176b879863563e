"""A server that is started here: its arguments, its process, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from localplane.localai import backend_pb2
from localplane_backends.openai.registration import Registration

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
PLACEHOLDER = re.compile(r"\{([a-z_]+)(?::([^{}]*))?\}")
"""`{name}`, or `{name:what to take where there is no value}`. All else in braces stands for itself."""
OWN = ("GRPC_", "LOCALAI_GRPC_", "LOCALAI_BACKEND_PARENT_")
"""Variables of this program that are none of the command's business."""


class CommandError(Exception):
    """The server cannot be started, or ended by itself."""


class PortTakenError(CommandError):
    """Somebody else took the port that the command was given, before it did."""

    def __init__(self) -> None:
        super().__init__("somebody else listens on the port that the command was given")


def values_for(options: backend_pb2.ModelOptions, *, port: int, key: str) -> dict[str, str]:
    """Return what the placeholders stand for. Empty where the model's configuration does not say."""
    file = options.ModelFile if options.ModelFile and Path(options.ModelFile).exists() else ""
    numbers = {
        "context_size": options.ContextSize,
        "threads": options.Threads,
        "batch": options.NBatch,
        "gpu_layers": options.NGPULayers,
    }
    return {
        "host": HOST,
        "port": str(port),
        "api_key": key,
        "model": options.Model,
        "model_file": file,
        "models_path": options.ModelPath,
        **{name: str(value) if value > 0 else "" for name, value in numbers.items()},
    }


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with values in place of its placeholders.

    Raises:
        CommandError: If one has no value, or one that could be taken for an option of the command.
    """

    def fill(found: re.Match[str]) -> str:
        name, default = found.groups()
        value = values.get(name, "") or default or ""
        if not value and default is None:
            raise CommandError(_WITHOUT.get(name, f"the model's configuration does not set {name}"))
        if name == "model" and value.startswith("-") and found.start() == 0:
            # A model's configuration chooses the model, not how the operator's command runs.
            raise CommandError(f"{name} cannot begin with a dash")
        return value

    return PLACEHOLDER.sub(fill, text)


_WITHOUT = {
    "model_file": "the model has no file: parameters.model names none, or there is none of that name",
}


def free_port() -> int:
    """Return a port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Command:
    """A server that was started here. It writes to this program's output."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, port: int, key: str) -> None:
        self.url = url
        """Where its API will be."""
        self.key = key
        """Random key that it was started with. Empty when it takes none."""
        self._process = process
        self._port = port
        self._is_stopping = False
        self.ended: asyncio.Task[str] = asyncio.create_task(self._wait())
        """Done when its first process has ended; says how."""

    @property
    def is_broken(self) -> bool:
        """Whether it has ended without having been told to."""
        return self.ended.done() and not self._is_stopping

    @property
    def is_port_taken(self) -> bool:
        """Whether somebody listens on its port."""
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self._port)) == 0

    def owns_port(self) -> bool:
        """Whether it, or what it started, is who listens: any user of the machine could have taken the port."""
        import psutil  # noqa: PLC0415 - servers elsewhere do without it

        try:
            own = psutil.Process(self._process.pid)
            processes = [own, *own.children(recursive=True)]
        except psutil.Error:
            return False
        for process in processes:
            with contextlib.suppress(psutil.Error):
                for one in process.net_connections(kind="tcp"):
                    if one.status == psutil.CONN_LISTEN and one.laddr.port == self._port:
                        return True
        return False

    async def stop(self, term_seconds: float) -> None:
        """End it and what it started: with SIGTERM and, after so many seconds, with SIGKILL."""
        self._is_stopping = True
        self._signal(signal.SIGTERM)
        await asyncio.wait((self.ended,), timeout=term_seconds)
        # Also what it left behind.
        self._signal(signal.SIGKILL)
        await self.ended

    async def _wait(self) -> str:
        code = await self._process.wait()
        if not self._is_stopping:
            self._signal(signal.SIGKILL)
        if code >= 0:
            return f"exit code {code}"
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"  # a real-time signal

    def _signal(self, number: signal.Signals) -> None:
        # It leads a group of its own, which lasts as long as anybody is in it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


async def started(registration: Registration, options: backend_pb2.ModelOptions) -> Command:
    """Start the server of a registration for a model; it is not ready yet.

    Raises:
        CommandError: If that cannot be done.
    """
    port = free_port()
    takes_key = any("{api_key}" in text for text in registration.env.values())
    key = secrets.token_hex(24) if takes_key else ""
    values = values_for(options, port=port, key=key)
    argv = [filled(text, {**values, "api_key": ""}) for text in registration.command]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    environment |= {name: filled(text, values) for name, text in registration.env.items()}
    try:
        # Nothing of this process is copied, whatever threads it has: that is done by vfork.
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise CommandError(f"cannot start {registration.command[0]}: {cause}") from error
    logger.info("started %s as process %d", registration.command[0], process.pid)
    url = filled(registration.url or "http://{host}:{port}", values)
    return Command(process, url, port, key)
