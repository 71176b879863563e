"""Backends that others run: connected to, given a model, watched, and forgotten again."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from localplane_server.errors import (
    BackendGoneError,
    LoadFailedError,
    LocalplaneError,
    OverdueError,
    ServerTakenError,
)
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.calls import LoadOptions
from localplane_server.supervision.process_table import Entry
from localplane_server.supervision.programs import ExternalServer
from localplane_server.supervision.running import FREE_SECONDS, RunningBackend, completed

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""How long a server may take to accept a connection."""
REFUSED_SECONDS = 1.0
"""How long a server that refuses connections is tried again: it may just be starting anew."""
AGAIN_SECONDS = 0.05
"""Pause before it is tried again."""
ANSWER_SECONDS = 10.0
"""How long a server that accepted a connection may take to say that it is well."""
LOOK_SECONDS = 10.0
"""How often it is looked whether the server can still be reached."""
THIS_MACHINE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")  # noqa: S104 - nothing is bound here
"""Names of the same server, where the port is the same."""
FAILED_LOOKS = 3
"""Looks that must fail one after another before the server counts as gone, while its connection stands."""


class ExternalBackend(RunningBackend):
    """A model on a server that somebody else runs.

    A connection that breaks counts as the end: whether the server came back with the model or without, nobody can
    tell. The next load connects again.
    """

    unseen = "the backend runs outside this service"

    def __init__(
        self,
        model: str,
        client: BackendClient,
        server: ExternalServer,
        servers: ExternalServers,
        *,
        hidden: Sequence[Path],
    ) -> None:
        super().__init__(model, client, hidden=hidden)
        self.server = server
        """Where it is."""
        self._servers = servers
        self._exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._was_asked_to_load = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> None:
        """None: its process is not ours."""

    @property
    def exited(self) -> asyncio.Future[str]:
        """Done once the server is lost."""
        return self._exited

    def tree_in(self, table: Mapping[int, Entry]) -> list[int]:
        """Return nothing: its processes are not ours."""
        return []

    def ended(self) -> str:
        """Say how the server was lost."""
        return f"the server of backend {self.server.name} is gone: {self._exited.result()}"

    async def log_lines(self) -> list[str]:
        """Return nothing: its log is not ours."""
        return []

    def watch(self) -> None:
        """Notice from now on when the server is lost."""
        self._watch = asyncio.get_running_loop().create_task(self._watch_connection())

    async def load(self, options: LoadOptions) -> None:
        """Load the model, as every running backend."""
        self._was_asked_to_load = True
        await super().load(options)

    async def stop(
        self, *, free: bool = True, cut_calls: bool = False, within_seconds: float | None = None
    ) -> None:
        """Have the server free the model and forget it; the server itself goes on.

        It is asked to free even where the process would just be ended: a load that was given up may have got far.
        """
        is_there = not self._exited.done()
        self.is_stopping = self.is_stopping or is_there
        seconds = FREE_SECONDS
        if within_seconds is not None:
            seconds = min(seconds, within_seconds / 2)
        try:
            if cut_calls:
                await self.client.cut_calls()
            if is_there and self._was_asked_to_load:
                await self.free(seconds)
        finally:
            try:
                if self._watch is not None:
                    self._watch.cancel()
                    await asyncio.wait((self._watch,))
                await self.client.close()
            finally:
                if not self._exited.done():
                    self._exited.set_result("it was stopped here")
                self._servers.release(self)

    async def hurry(self, within_seconds: float) -> None:
        """Go on as before: to be asked to free a model takes a few seconds at most."""

    async def _watch_connection(self) -> None:
        lost = asyncio.ensure_future(self.client.disconnected())
        failed = 0
        cause = "the connection broke"
        try:
            while failed < FAILED_LOOKS:
                await asyncio.wait((lost,), timeout=LOOK_SECONDS)
                if lost.done():
                    break
                # A host that lost its power or its network closes no connection.
                problem = await _problem_with(self.server.address, CONNECT_SECONDS)
                failed = failed + 1 if problem else 0
                cause = problem or "the connection broke"
        finally:
            lost.cancel()
            # However the wait ended, the connection did.
            await asyncio.gather(lost, return_exceptions=True)
        if self.is_stopping:
            return
        log.warning(
            "an external server is gone",
            extra={
                "model": self.model,
                "backend": self.server.name,
                "address": str(self.server.address),
                "cause": cause,
            },
        )
        if not self._exited.done():
            self._exited.set_result(cause)


class ExternalServers:
    """Connects to the servers that others run. Each holds one model at a time: a second would replace the first."""

    def __init__(self, *, token: str, models_path: Path) -> None:
        """Connect to nothing yet.

        Args:
            token: What the servers know their callers by. Empty for none.
            models_path: Folder of the models, of which callers are told nothing.
        """
        self._token = token
        self._models_path = models_path
        self._holders: dict[Endpoint, ExternalBackend] = {}

    async def connect(self, model: str, server: ExternalServer) -> ExternalBackend:
        """Connect to a server for a model and return once it answers.

        Raises:
            ServerTakenError: If it holds another model.
            LoadFailedError: If it cannot be reached or does not answer well.
        """
        holder = self._holders.get(_place_of(server.address))
        if holder is not None and not holder.exited.done():
            raise ServerTakenError(server.name, model, holder.model)
        client = BackendClient(str(server.address), token=self._token, model=model)
        backend = ExternalBackend(model, client, server, self, hidden=(self._models_path,))
        self._holders[_place_of(server.address)] = backend
        try:
            problem = await _reach(server.address)
            if problem is None:
                problem = await _answer(client)
            if problem is not None:
                raise self._unreachable(model, server, problem)
            backend.watch()
        except BaseException:
            await completed(backend.stop(free=False))
            raise
        return backend

    def release(self, backend: ExternalBackend) -> None:
        """Take note that a backend holds its server no longer."""
        place = _place_of(backend.server.address)
        if self._holders.get(place) is backend:
            del self._holders[place]

    def _unreachable(self, model: str, server: ExternalServer, problem: str) -> LoadFailedError:
        log.warning(
            "an external server cannot be used",
            extra={"backend": server.name, "address": str(server.address), "cause": problem},
        )
        message = f"cannot load model {model}: the server of backend {server.name} {problem}"
        return LoadFailedError(message, model=model)


def _place_of(address: Endpoint) -> Endpoint:
    """Return the same for addresses of which it is known that one server listens there.

    Those are the names that everybody has for this machine. What another name means, only others know, and they may
    change it.
    """
    host = address.host.lower().rstrip(".")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        # One address has many spellings.
        host = str(getattr(ip, "ipv4_mapped", None) or ip)
    return Endpoint("localhost" if host in THIS_MACHINE else host, address.port)


async def _reach(address: Endpoint) -> str | None:
    """Return None once somebody accepts connections, or what is in the way."""
    deadline = time.monotonic() + REFUSED_SECONDS
    while True:
        problem = await _problem_with(address, CONNECT_SECONDS)
        if problem is None or time.monotonic() >= deadline:
            return problem
        await asyncio.sleep(AGAIN_SECONDS)


async def _answer(client: BackendClient) -> str | None:
    """Return None once the server has said that it is well, or what it says or does instead."""
    try:
        await client.check(ANSWER_SECONDS)
    except (BackendGoneError, OverdueError) as error:
        # The library's own words name the address, which is not for everybody.
        log.info("an external server does not answer", extra={"cause": error.message})
        return "accepts connections and answers no call: it hangs, or is something else"
    except LocalplaneError as error:
        return f"does not say that it is well: {error.message}"
    return None


async def _problem_with(address: Endpoint, seconds: float) -> str | None:
    """Say in words why a server cannot be reached, or None when it can."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return f"cannot be reached within {seconds:g} s"
    except OSError as error:
        return f"cannot be reached: {_cause(error)}"
    writer.close()
    return None


def _cause(error: OSError) -> str:
    # Asyncio's own texts name the address, and those of several addresses all of them.
    text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return (text or "it is not known under this name").lower()
