"""A backend whose process is ours: started and answering, stopped for good."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

from localplane_server.errors import BackendFailedError, LoadFailedError, LocalplaneError
from localplane_server.supervision import process_table
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.backend_process import BackendProcess, Exit, Launch
from localplane_server.supervision.logs import LogArchive, tail
from localplane_server.supervision.processes import Processes
from localplane_server.supervision.programs import BackendProgram
from localplane_server.supervision.redaction import secrets_in
from localplane_server.supervision.running import FREE_SECONDS, RunningBackend, completed
from localplane_server.supervision.sampling import Sampler

log = logging.getLogger(__name__)

ANSWER_SECONDS = 120.0
"""How long a started program may take until it answers: some import for a minute."""
ASK_AGAIN_SECONDS = 0.1
"""Pause before a program that did not answer well is asked again."""
TERM_SECONDS = 15.0
"""How long a backend may take to end by itself before it is killed."""
LOG_LINES = 8
"""Lines of the log that an error carries."""
UNREADY_SECONDS = 2.0
"""How long a program that never answered may take to end before it is killed: it has nothing to put away."""
BIND_ATTEMPTS = 3
"""How many ports are tried when somebody else takes the reserved one first."""

_SECRETS = (
    *("LOCALPLANE_API_KEY", "LOCALAI_API_KEY", "API_KEY"),
    *("LOCALPLANE_EXTERNAL_GRPC_TOKEN", "LOCALAI_GRPC_AUTH_TOKEN"),
)


class ProcessBackend(RunningBackend):
    """A backend that is a process of ours, and all that descends from it."""

    def __init__(
        self,
        process: BackendProcess,
        client: BackendClient,
        sampler: Sampler,
        *,
        hidden: Sequence[Path],
    ) -> None:
        secrets = secrets_in(process.launch.env)
        super().__init__(process.launch.model, client, hidden=hidden, secrets=secrets)
        self.process = process
        self._log_path = process.launch.log_path
        self._sampler = sampler

    @property
    def pid(self) -> int:
        """Process that was started; others may have descended from it."""
        return self.process.pid

    @property
    def exited(self) -> asyncio.Future[Exit]:
        """Done once the process is dead."""
        return self.process.exited

    def tree_in(self, table: Mapping[int, process_table.Entry]) -> list[int]:
        """Return the living processes of the tree, the backend first."""
        return self.process.tree_in(table)

    def ended(self) -> str:
        """Say how the process ended."""
        return f"the backend ended with {self.exited.result()}"

    async def log_lines(self) -> list[str]:
        """Return the last lines that the backend wrote."""
        return await asyncio.to_thread(
            tail, self._log_path, lines=LOG_LINES, spawn_id=self.process.spawn_id
        )

    async def stop(
        self, *, free: bool = True, cut_calls: bool = False, within_seconds: float | None = None
    ) -> int | None:
        """End it, as every running backend; returns when no process of its tree is left."""
        # After an end of its own, calls have been cut by that and not by this.
        self.is_stopping = self.is_stopping or not self.exited.done()
        free_seconds, term_seconds = FREE_SECONDS, TERM_SECONDS
        if within_seconds is not None:
            free_seconds = min(free_seconds, within_seconds / 4)
            term_seconds = min(term_seconds, within_seconds / 2)
        freed = None
        try:
            if not self.process.exited.done():
                freed = await self._proportional_memory()
                if cut_calls:
                    await self.client.cut_calls()
                if free:
                    await self.free(free_seconds)
        finally:
            try:
                await self.process.stop(term_seconds=term_seconds)
            finally:
                await self.client.close()
        return freed

    async def hurry(self, within_seconds: float) -> None:
        """End its processes within so many seconds, whether or not it has freed its model by then."""
        await self.process.stop(term_seconds=min(TERM_SECONDS, within_seconds / 2))

    async def _proportional_memory(self) -> int | None:
        try:
            table = await asyncio.to_thread(process_table.snapshot)
            trees = {self.pid: self.process.tree_in(table)}
            samples = await self._sampler.sample(trees, with_pss=True)
        except (OSError, psutil.Error):
            # A figure that cannot be read is no reason to leave a process alive.
            log.warning("the memory of a backend cannot be read", exc_info=True)
            return None
        return samples[self.pid].pss_bytes if self.pid in samples else None


class BackendLauncher:
    """Starts backend programs and waits until they answer."""

    def __init__(
        self,
        processes: Processes,
        sampler: Sampler,
        *,
        logs: LogArchive,
        models_path: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._processes = processes
        self._sampler = sampler
        self._logs = logs
        self._models_path = models_path
        self._environment = _backend_environment(environment, models_path)
        self._reserved: set[int] = set()

    async def launch(self, model: str, program: BackendProgram) -> ProcessBackend:
        """Start a program for a model and return once it answers.

        Raises:
            LoadFailedError: If it cannot be started, ends, or does not answer in time. Nothing of it is left then.
        """
        for _ in range(BIND_ATTEMPTS):
            port = self._reserve_port()
            try:
                backend = await self._launch_on(port, model, program)
            except BaseException:
                self._reserved.discard(port)
                raise
            if backend is None:
                self._reserved.discard(port)
                continue
            backend.exited.add_done_callback(partial(self._release_port, port))
            return backend
        message = f"cannot load model {model}: no port to listen on in {BIND_ATTEMPTS} attempts"
        raise LoadFailedError(message, model=model)

    async def _launch_on(
        self, port: int, model: str, program: BackendProgram
    ) -> ProcessBackend | None:
        """Start the program on a port; None when somebody else took the port."""
        address = f"127.0.0.1:{port}"
        token = secrets.token_urlsafe(24)
        launch = Launch(
            model=model,
            argv=(*program.argv, "--addr", address),
            env={
                **self._environment,
                **program.env,
                "LOCALAI_GRPC_AUTH_TOKEN": token,
            },
            cwd=program.cwd,
            log_path=self._logs.path(model),
            log_limits=self._logs.limits(),
        )
        try:
            process = await self._spawn(launch)
        except BackendFailedError as error:
            # A script without a first line, an interpreter that is missing. Where it lies is for the log.
            log.warning("a backend cannot be started", extra={"cause": error.message})
            message = error.message.replace(program.argv[0], Path(program.argv[0]).name)
            raise LoadFailedError(message, model=model) from error
        client = BackendClient(address, token=token, model=model)
        hidden = [self._models_path, *([program.cwd] if program.cwd else [])]
        backend = ProcessBackend(process, client, self._sampler, hidden=hidden)
        try:
            if not await self._wait_for_answer(backend):
                if process.exited.done() and _is_taken(port):
                    await backend.stop(free=False, within_seconds=UNREADY_SECONDS)
                    return None
                cause = backend.ended() if process.exited.done() else "it does not answer"
                raise await backend.load_error(cause)
            if not await asyncio.to_thread(_listens, process, port):
                await backend.stop(free=False, within_seconds=UNREADY_SECONDS)
                return None
        except BaseException:
            await completed(backend.stop(free=False, within_seconds=UNREADY_SECONDS))
            raise
        return backend

    async def _spawn(self, launch: Launch) -> BackendProcess:
        """Start the program. When the caller is cancelled meanwhile, return to it only once nothing is left."""
        spawning = asyncio.ensure_future(self._processes.spawn(launch))
        try:
            return await asyncio.shield(spawning)
        except asyncio.CancelledError:
            with contextlib.suppress(LocalplaneError):
                process = await completed(spawning)
                await completed(process.stop(term_seconds=0.0))
            raise

    async def _wait_for_answer(self, backend: ProcessBackend) -> bool:
        deadline = time.monotonic() + ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            answer = asyncio.ensure_future(backend.client.health(timeout_seconds=left))
            try:
                await asyncio.wait((answer, backend.exited), return_when=asyncio.FIRST_COMPLETED)
                if backend.exited.done():
                    return False
                if answer.result():
                    return True
            finally:
                answer.cancel()
            # It said something else than that it is well.
            await backend.wait_for_end(ASK_AGAIN_SECONDS)
        return False

    def _release_port(self, port: int, _: object) -> None:
        self._reserved.discard(port)

    def _reserve_port(self) -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in self._reserved:
                self._reserved.add(port)
                return port


def _backend_environment(environment: Mapping[str, str], models_path: Path) -> dict[str, str]:
    env = {name: value for name, value in environment.items() if name not in _SECRETS}
    # Our own tuning of gRPC; a backend may bring another version, to which it means nothing.
    env.pop("GRPC_EXPERIMENTS", None)
    for name in ("HF_HOME", "TRANSFORMERS_CACHE", "HUGGINGFACE_HUB_CACHE"):
        env.setdefault(name, str(models_path))
    # Spinning OpenMP threads collapse as soon as another process is busy; read at import, so it is set from outside.
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    env.setdefault("PYTHONUNBUFFERED", "1")
    return env


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _listens(process: BackendProcess, port: int) -> bool:
    """Whether one of these processes listens on the port: on loopback, anybody could have taken it."""
    # Mostly the program itself does, on what it was told: an address of the first table. All else is slow to read.
    if _holds(process.pid, port, "tcp4"):
        return True
    pids = process.tree()
    return any(_holds(pid, port, kind) for kind in ("tcp4", "tcp6") for pid in pids)


def _holds(pid: int, port: int, kind: str) -> bool:
    try:
        connections = psutil.Process(pid).net_connections(kind=kind)
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)
