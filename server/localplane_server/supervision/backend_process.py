"""One backend process, as the server sees it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localplane_server import errors
from localplane_server.supervision import channel, exits, process_table
from localplane_server.supervision.log_files import DEFAULT_LIMITS, LogLimits

_logger = logging.getLogger(__name__)

STATUS_SECONDS = 1.0
"""How long the exit status may take after the death itself was noticed."""
KILL_SECONDS = 5.0
"""How long a warden may take to kill, before it is taken for stuck and killed itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start for a model."""

    model: str
    """Name of the model."""
    argv: tuple[str, ...]
    """Program and arguments. A program without a slash is looked for in the `PATH` of `env`."""
    env: Mapping[str, str]
    """The whole environment; nothing is inherited."""
    cwd: Path | None
    """Working directory. None for the server's."""
    log_path: Path
    """File for standard output and error. Its folder is made when it is missing."""
    log_limits: LogLimits = DEFAULT_LIMITS
    """How large that log may get."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    code: int | None
    """Exit code, when it exited."""
    signal: int | None
    """Signal, when one ended it. Both are None when the status was lost with the keeper."""
    memory_kills: int = 0
    """Processes that the kernel killed for want of memory while this one ran, if it was killed."""

    def __str__(self) -> str:
        """Return it in words, such as `exit code 1` or `signal SIGKILL`."""
        if self.code is not None:
            return exits.in_words(self.code)
        if self.signal is None:
            return "unknown exit status"
        return exits.in_words(-self.signal, memory_kills=self.memory_kills)

    @classmethod
    def from_returncode(cls, returncode: int, memory_kills: int = 0) -> Exit:
        """Return it from a number in which a signal is negative."""
        if returncode >= 0:
            return cls(returncode, None)
        return cls(None, -returncode, memory_kills)


class BackendProcess:
    """A backend that was started, and everything that it started in turn.

    Made by `Processes.spawn`, in the event loop that it belongs to.
    """

    def __init__(self, launch: Launch, spawn_id: str, end: socket.socket) -> None:
        self.launch = launch
        """What was started."""
        self.spawn_id = spawn_id
        """Random name of this spawn, `LOCALPLANE_SPAWN_ID` in the environment of the tree."""
        self.pid = 0
        """Number of the backend process."""
        self.start_ticks = 0
        """When it started, in clock ticks since boot."""
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        """Done once the backend process is dead. Shield it when you wait with a time limit."""
        self.started: asyncio.Future[None] = self._loop.create_future()
        """Done once the program runs; fails with the cause when it cannot."""
        # A caller that went away does not look.
        self.started.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._channel = end
        self._warden = (0, 0)
        self._warden_descriptor = -1
        self._descriptor = -1
        self._loop.add_reader(end.fileno(), self._on_message)

    @property
    def is_ended(self) -> bool:
        """Whether nothing of the tree is left."""
        return self._ended.done()

    def tree(self) -> list[int]:
        """Return the numbers of all living processes of the tree, the backend first.

        Reads the whole process table: for more than one tree, use `Processes.trees`.
        """
        return self.tree_in(process_table.snapshot())

    def tree_in(self, table: Mapping[int, process_table.Entry]) -> list[int]:
        """Return the same from a process table that was read before."""
        if self._ended.done():
            return []
        identities = [self._warden, (self.pid, self.start_ticks)]
        roots = [
            pid for pid, ticks in identities if pid in table and table[pid].start_ticks == ticks
        ]
        # What lost its parent is the warden's; the backend itself stands for it once the warden is
        # gone.
        pids = {e.pid for e in process_table.descendants(table, roots) if not e.is_dead}
        if self.pid in roots and not table[self.pid].is_dead:
            pids.add(self.pid)
        return sorted(pids, key=lambda pid: (pid != self.pid, table[pid].start_ticks, pid))

    async def stop(self, *, term_seconds: float = 15.0) -> None:
        """End the whole tree and return when no process of it is left.

        Every process of the tree gets SIGTERM, and what is left after the time limit gets SIGKILL.
        Safe to call at any time, by several callers, and after the backend died by itself; the
        shortest of the time limits counts. A caller that goes away does not stop the stop.

        Args:
            term_seconds: How long the tree may take to end by itself.
        """
        if self._ended.done():
            return
        # A warden that is gone, or does not read any more, leaves the rest to the keeper.
        with suppress(OSError):
            channel.send(self._channel, {"op": "stop", "term_seconds": term_seconds})
        try:
            async with asyncio.timeout(term_seconds + KILL_SECONDS):
                await asyncio.shield(self._ended)
        except TimeoutError:
            _logger.error(  # noqa: TRY400 - how it got here says nothing
                "cannot stop the backend of model %s within %s s: killing its warden",
                self.launch.model,
                term_seconds + KILL_SECONDS,
            )
            self._kill_warden()
            await asyncio.shield(self._ended)

    def abandon(self) -> None:
        """Have the tree ended soon, without waiting for it."""
        self._close_channel()

    def note_exit(self, status: Exit) -> None:
        """Take the exit status of the backend process. The first one counts."""
        if not self.exited.done():
            self.exited.set_result(status)

    def note_ended(self) -> None:
        """Take note that nothing of the tree is left."""
        while self._channel.fileno() >= 0 and self._on_message():
            pass  # what the warden said last may not have been read yet
        self._close_channel()
        self._close_descriptors()
        if not self.started.done():
            self.started.set_exception(
                errors.NotReadyError(
                    f"cannot start the backend of model {self.launch.model}: its keeper or warden died",
                    model=self.launch.model,
                )
            )
        self.note_exit(Exit(None, None))
        if not self._ended.done():
            self._ended.set_result(None)

    def _on_message(self) -> bool:
        try:
            received = channel.receive(self._channel)
        except BlockingIOError:
            return False
        if received is None:
            self._close_channel()
            return False
        self._take(received.message, received.descriptors)
        return True

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if message["event"] == "started":
            self.pid = message["pid"]
            self.start_ticks = message["start_ticks"]
            self._descriptor, self._warden_descriptor = descriptors
            self._warden = (message["warden"], message["warden_start_ticks"])
            self._loop.add_reader(self._descriptor, self._on_death)
            if not self.started.done():
                self.started.set_result(None)
        elif message["event"] == "failed":
            if not self.started.done():
                self.started.set_exception(
                    errors.BackendFailedError(
                        f"cannot start the backend of model {self.launch.model}: {message['text']}",
                        model=self.launch.model,
                        cause=message["text"],
                    )
                )
        else:
            self.note_exit(Exit.from_returncode(message["returncode"], message["memory_kills"]))

    def _on_death(self) -> None:
        self._loop.remove_reader(self._descriptor)
        # The warden reports the status at the same moment; if it is gone, the keeper does.
        self._loop.call_later(STATUS_SECONDS, self.note_exit, Exit(None, None))

    def _kill_warden(self) -> None:
        if self._warden_descriptor >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._warden_descriptor, signal.SIGKILL)

    def _close_channel(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()

    def _close_descriptors(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            os.close(self._warden_descriptor)
            self._descriptor = self._warden_descriptor = -1
