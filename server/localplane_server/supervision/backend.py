"""One running backend: started and answering, loading a model, stopped for good."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import psutil

from localplane_server.errors import BackendGoneError, LoadFailedError, LocalplaneError
from localplane_server.supervision import process_table
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.backend_process import BackendProcess, Launch
from localplane_server.supervision.calls import LoadOptions
from localplane_server.supervision.logs import tail
from localplane_server.supervision.processes import Processes
from localplane_server.supervision.programs import BackendProgram
from localplane_server.supervision.sampling import Sampler

log = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_SECONDS = 120.0
"""How long a started program may take until it answers: some import for a minute."""
ASK_AGAIN_SECONDS = 0.1
"""Pause before a program that did not answer well is asked again."""
FREE_SECONDS = 5.0
"""How long a backend may take to free its model before it is ended all the same."""
DEATH_SECONDS = 5.0
"""How long a process whose connection broke may take to be seen to end, on a machine that is busy."""
TERM_SECONDS = 15.0
"""How long a backend may take to end by itself before it is killed."""
LOG_LINES = 8
"""Lines of the log that an error carries."""
BIND_ATTEMPTS = 3
"""How many ports are tried when somebody else takes the reserved one first."""

_SECRETS = ("LOCALPLANE_API_KEY", "LOCALAI_API_KEY", "API_KEY", "LOCALAI_GRPC_AUTH_TOKEN")
_LONGEST_FILE_NAME = 200


class RunningBackend:
    """A backend whose process answers. It has no model until `load`, and none after `stop`."""

    def __init__(
        self,
        process: BackendProcess,
        client: BackendClient,
        sampler: Sampler,
        *,
        models_path: Path,
    ) -> None:
        self.process = process
        self.client = client
        self.is_stopping = False
        """Whether it was asked to stop: then a broken connection is no failure."""
        self._log_path = process.launch.log_path
        self._sampler = sampler
        self._models_folder = f"{models_path}/"

    @property
    def pid(self) -> int:
        """Process that was started; others may have descended from it."""
        return self.process.pid

    async def load(self, options: LoadOptions, *, timeout_seconds: float) -> None:
        """Load the model.

        Raises:
            LoadFailedError: If the backend refuses, does not answer in time, or ends meanwhile. The message carries
                the cause and the last lines of the log.
        """
        loading = asyncio.ensure_future(self.client.load(options))
        try:
            await asyncio.wait(
                (loading, self.process.exited),
                timeout=timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self.process.exited.done():
                raise await self.load_error(self.ended())
            if not loading.done():
                raise await self.load_error(f"not loaded within {timeout_seconds:g} s")
            try:
                await loading
            except BackendGoneError as error:
                # The connection breaks a moment before the process is seen to end.
                await self.wait_for_end(DEATH_SECONDS)
                cause = self.ended() if self.process.exited.done() else error.message
                raise await self.load_error(cause) from error
            except LoadFailedError as error:
                raise await self.load_error(error.message) from error
        finally:
            loading.cancel()

    async def load_error(self, cause: str) -> LoadFailedError:
        """Return the error of a load that failed for this cause, with the last lines of the log."""
        message = f"cannot load model {self.process.launch.model}: {cause}"
        lines = await self.log_lines()
        if lines:
            message = f"{message}; last lines of its log: {' | '.join(lines)}"
        # Whoever asked for the model need not learn where this machine keeps it.
        message = message.replace(self._models_folder, "")
        return LoadFailedError(message, model=self.process.launch.model)

    async def wait_for_end(self, seconds: float) -> None:
        """Wait until the process has ended, but no longer than so many seconds."""
        await asyncio.wait((self.process.exited,), timeout=seconds)

    def ended(self) -> str:
        """Say how the process ended."""
        return f"the backend ended with {self.process.exited.result()}"

    async def log_lines(self) -> list[str]:
        """Return the last lines that the backend wrote."""
        return await asyncio.to_thread(
            tail, self._log_path, lines=LOG_LINES, spawn_id=self.process.spawn_id
        )

    async def stop(
        self, *, free: bool = True, cut_calls: bool = False, within_seconds: float | None = None
    ) -> int | None:
        """End the backend and return the bytes that came back, or None when they could not be read.

        Returns when no process of its tree is left. Stopping a backend that ended by itself sweeps what it left.

        Args:
            free: Whether the backend is asked to free its model first.
            cut_calls: Whether calls in flight are cut first. Else they end when the process does.
            within_seconds: How long all of it may take before everything is killed. Default: as long as a backend
                may take to free its model and to end by itself.
        """
        self.is_stopping = True
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
                    await self._free(free_seconds)
        finally:
            try:
                await self.process.stop(term_seconds=term_seconds)
            finally:
                await self.client.close()
        return freed

    async def _free(self, seconds: float) -> None:
        try:
            await self.client.free(seconds)
        except LocalplaneError as error:
            # The process is about to end, which frees it all the same.
            log.debug("a backend did not free its model", extra={"cause": error.message})

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
        log_dir: Path,
        models_path: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._processes = processes
        self._sampler = sampler
        self._log_dir = log_dir
        self._models_path = models_path
        self._environment = _backend_environment(environment, models_path)
        self._reserved: set[int] = set()

    def log_path(self, model: str) -> Path:
        """Return where the output of a model's backend goes."""
        name = quote(model, safe=" ")
        if len(name) > _LONGEST_FILE_NAME:
            name = f"{name[:_LONGEST_FILE_NAME]}-{hashlib.sha256(model.encode()).hexdigest()[:16]}"
        return self._log_dir / f"{name}.log"

    async def launch(self, model: str, program: BackendProgram) -> RunningBackend:
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
            backend.process.exited.add_done_callback(partial(self._release_port, port))
            return backend
        message = f"cannot load model {model}: no port to listen on in {BIND_ATTEMPTS} attempts"
        raise LoadFailedError(message, model=model)

    async def _launch_on(
        self, port: int, model: str, program: BackendProgram
    ) -> RunningBackend | None:
        """Start the program on a port; None when somebody else took the port."""
        address = f"127.0.0.1:{port}"
        token = secrets.token_urlsafe(24)
        launch = Launch(
            model=model,
            argv=(*program.argv, "--addr", address),
            env={**self._environment, "LOCALAI_GRPC_AUTH_TOKEN": token},
            cwd=None,
            log_path=self.log_path(model),
        )
        process = await self._spawn(launch)
        client = BackendClient(address, token=token, model=model)
        backend = RunningBackend(process, client, self._sampler, models_path=self._models_path)
        try:
            if not await self._wait_for_answer(backend):
                if process.exited.done() and _is_taken(port):
                    await backend.stop(free=False)
                    return None
                cause = backend.ended() if process.exited.done() else "it does not answer"
                raise await backend.load_error(cause)
            if not await asyncio.to_thread(_listens, process, port):
                await backend.stop(free=False)
                return None
        except BaseException:
            await completed(backend.stop(free=False))
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

    async def _wait_for_answer(self, backend: RunningBackend) -> bool:
        deadline = time.monotonic() + ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            answer = asyncio.ensure_future(backend.client.health(timeout_seconds=left))
            try:
                await asyncio.wait(
                    (answer, backend.process.exited), return_when=asyncio.FIRST_COMPLETED
                )
                if backend.process.exited.done():
                    return False
                if answer.result():
                    return True
            finally:
                answer.cancel()
            # It refused the first connection, or said something else than that it is well.
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


async def completed(work: Awaitable[T]) -> T:
    """Return what the work returns, however often the caller is cancelled meanwhile: for cleaning up."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            log.debug("a clean-up goes on")
    return task.result()


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
