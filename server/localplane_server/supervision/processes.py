"""All backend processes of a server, and the keeper that holds them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import subprocess
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from localplane_server import errors
from localplane_server.supervision import channel, leftovers, process_table
from localplane_server.supervision.backend_process import (
    BackendProcess,
    Exit,
    Launch,
)
from localplane_server.supervision.keeper_handle import KeeperHandle, start_keeper
from localplane_server.supervision.records import (
    SPAWN_ID_VARIABLE,
    SpawnRecord,
    SpawnRecords,
    boot_id,
)

_logger = logging.getLogger(__name__)

READY_SECONDS = 10.0
"""How long a keeper may take to be ready."""
START_SECONDS = 30.0
"""How long a program may take to be executed."""
ADOPTED_SECONDS = 0.5
"""How long wardens may take to end their trees after their keeper died, before being killed."""
EXIT_SECONDS = 10.0
"""How long a keeper may take to exit when it is no longer needed."""

_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0


class Processes:
    """Starts backends by way of a keeper and knows all that live.

    An async context manager: on exit, everything is ended. A keeper that dies takes all backends
    with it; what it leaves behind is ended, and another keeper is started. Meanwhile nothing can be
    spawned.
    """

    def __init__(
        self,
        handle: KeeperHandle,
        records: SpawnRecords,
        *,
        start: Callable[[], KeeperHandle] = start_keeper,
        close_term_seconds: float = 15.0,
    ) -> None:
        """Take over a keeper.

        Args:
            handle: The keeper.
            records: Where spawns are written down.
            start: Starts another keeper.
            close_term_seconds: How long backends may take to end by themselves when all are ended.
        """
        self._handle = handle
        self._records = records
        self._start = start
        self._close_term_seconds = close_term_seconds
        self._boot_id = boot_id()
        self._is_ready = False
        self._is_closing = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._recovery: asyncio.Task[None] | None = None
        self._live: dict[str, BackendProcess] = {}
        self._listeners: list[Callable[[bool], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Wait until the keeper is ready.

        Raises:
            StartupError: If it does not become ready.
        """
        try:
            await self._attach(self._handle)
        except OSError as error:
            raise errors.StartupError("cannot start the keeper of backend processes") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything."""
        await self.close()

    @property
    def is_ready(self) -> bool:
        """Whether a backend can be spawned: there is a keeper, and it is not being replaced."""
        return self._is_ready and not self._is_closing

    @property
    def keeper_pid(self) -> int:
        """Number of the present keeper."""
        return self._handle.process.pid

    def add_listener(self, listener: Callable[[bool], None]) -> None:
        """Have a function called: with False when the keeper is lost, with True when replaced."""
        self._listeners.append(listener)

    async def spawn(self, launch: Launch) -> BackendProcess:
        """Start a backend and return once its program runs.

        When the caller goes away meanwhile, what was started is ended.

        Raises:
            BackendFailedError: If the program cannot be run; the message has the system's reason.
            NotReadyError: If there is no keeper at the moment.
        """
        if not self.is_ready:
            raise _not_ready(launch)
        spawn_id = secrets.token_hex(16)
        record = SpawnRecord(
            spawn_id=spawn_id,
            model=launch.model,
            program=launch.argv[0],
            boot_id=self._boot_id,
        )
        # Before the process exists: from its first moment on, its environment tells whose it is.
        await self._records.add(record)
        try:
            process = self._request(launch, spawn_id)
        except BaseException:
            await self._records.remove(spawn_id)
            raise
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.shield(process.started)
            known = record._replace(pid=process.pid, start_ticks=process.start_ticks)
            await self._records.add(known)
        except TimeoutError as error:
            process.abandon()
            raise errors.BackendFailedError(
                f"cannot start the backend of model {launch.model}: "
                f"its program was not running after {START_SECONDS:g} s",
                model=launch.model,
            ) from error
        except BaseException:
            process.abandon()
            raise
        if process.is_ended:
            await self._records.remove(spawn_id)  # which may have been tried before it was added
        return process

    def trees(self) -> dict[str, list[int]]:
        """Return the processes of every tree by spawn id, from one look at the process table."""
        table = process_table.snapshot()
        return {spawn_id: process.tree_in(table) for spawn_id, process in self._live.items()}

    async def close(self) -> None:
        """End every backend and the keeper, and return when no process of theirs is left."""
        self._is_closing = True
        try:
            while self._live:
                await asyncio.gather(
                    *[
                        process.stop(term_seconds=self._close_term_seconds)
                        for process in self._live.values()
                    ]
                )
                await asyncio.sleep(0)
            if self._recovery is not None:
                await self._recovery
        finally:
            self._detach()
        if self._handle.process.returncode is None:
            await self._wait_for_keeper()
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def _request(self, launch: Launch, spawn_id: str) -> BackendProcess:
        if not self.is_ready:
            raise _not_ready(launch)  # since the record was written
        message = {
            "argv": launch.argv,
            "env": {**launch.env, SPAWN_ID_VARIABLE: spawn_id},
            "cwd": None if launch.cwd is None else str(launch.cwd),
            "log": str(launch.log_path),
            "log_limits": launch.log_limits,
        }
        try:
            launch.log_path.parent.mkdir(parents=True, exist_ok=True)
            # A file, as an environment may be longer than a message can be.
            file = os.memfd_create("launch")
        except OSError as error:
            raise errors.BackendFailedError(
                f"cannot start the backend of model {launch.model}: {error}", model=launch.model
            ) from error
        ours, theirs = channel.pair()
        ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
        process = BackendProcess(launch, spawn_id, ours)
        with theirs, open(file, "wb") as launch_file:  # noqa: PTH123 - a descriptor, not a path
            launch_file.write(json.dumps(message).encode())
            launch_file.flush()
            try:
                channel.send(
                    self._handle.channel,
                    {"op": "spawn", "spawn_id": spawn_id},
                    [theirs.fileno(), file],
                )
            except OSError as error:
                process.note_ended()
                raise _not_ready(launch) from error
        self._live[spawn_id] = process
        return process

    async def _attach(self, handle: KeeperHandle) -> None:
        """Listen to a keeper and wait until it is ready.

        Raises:
            OSError: If it dies or says nothing in time. It is gone then.
        """
        self._handle = handle
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        loop.add_reader(handle.channel.fileno(), self._on_messages)
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._ready
        except BaseException:
            self._detach()
            handle.process.kill()
            await asyncio.to_thread(handle.process.wait)
            raise

    def _detach(self) -> None:
        end = self._handle.channel
        if end.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(end.fileno())
            end.close()

    def _on_messages(self) -> None:
        while True:
            try:
                received = channel.receive(self._handle.channel)
            except BlockingIOError:
                return
            if received is None:
                self._on_keeper_gone()
                return
            self._take(received.message)

    def _take(self, message: dict[str, Any]) -> None:
        if message["event"] == "ready":
            if not self._ready.done():
                self._ready.set_result(None)
                # Here and not in the task that waits for it: the next message may be that it is
                # gone.
                self._set_ready(is_ready=True)
        elif message["event"] == "ended":
            process = self._live.pop(message["spawn_id"], None)
            if process is not None:
                process.note_ended()
            self._run(self._records.remove(message["spawn_id"]))
        else:
            for process in self._live.values():
                if process.pid == message["pid"]:
                    process.note_exit(Exit.from_returncode(message["returncode"]))

    def _on_keeper_gone(self) -> None:
        self._detach()
        if not self._ready.done():
            self._ready.set_exception(ConnectionResetError("the keeper died before it was ready"))
            return
        _logger.error("the keeper of backend processes is gone: ending all backends")
        self._set_ready(is_ready=False)
        self._recovery = self._run(self._recover())

    async def _recover(self) -> None:
        await self._end_adopted()
        for spawn_id, process in list(self._live.items()):
            del self._live[spawn_id]
            process.note_ended()
            await self._records.remove(spawn_id)
        retry_seconds = _FIRST_RETRY_SECONDS
        while not self._is_closing:
            try:
                await self._attach(self._start())
            except OSError:
                _logger.exception(
                    "cannot start another keeper: trying again in %s s", retry_seconds
                )
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(retry_seconds * 2, _LAST_RETRY_SECONDS)
            else:
                _logger.info("another keeper of backend processes is ready")
                return

    async def _end_adopted(self) -> None:
        keeper = self._handle.process
        keeper.kill()
        await asyncio.to_thread(keeper.wait)
        await asyncio.to_thread(
            leftovers.end_adopted,
            keeper.pid,
            [process.pid for process in self._live.values() if process.pid],
            list(self._live),
            grace_seconds=ADOPTED_SECONDS,
        )

    async def _wait_for_keeper(self) -> None:
        try:
            status = await asyncio.to_thread(self._handle.process.wait, EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        if status != 0:
            _logger.error("the keeper of backend processes did not exit well: %s", status)
            await self._end_adopted()

    def _set_ready(self, *, is_ready: bool) -> None:
        self._is_ready = is_ready
        for listener in self._listeners:
            try:
                listener(is_ready)
            except Exception:  # a listener's bug is not the keeper's
                _logger.exception("a listener to the keeper's state failed")

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something whose caller does not wait; `close` does."""

        async def logged() -> None:
            try:
                await work
            except Exception:
                _logger.exception("a task for backend processes failed")

        task = asyncio.get_running_loop().create_task(logged())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _not_ready(launch: Launch) -> errors.NotReadyError:
    return errors.NotReadyError(
        f"cannot start the backend of model {launch.model}: "
        "the keeper of backend processes is not ready",
        model=launch.model,
    )
