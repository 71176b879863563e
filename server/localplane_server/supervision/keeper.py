"""The keeper: a small process that starts backends for a server that cannot fork safely.

Standard library only. Started by path, `python -I -S keeper.py DESCRIPTOR`, before the server has
threads. Messages from the server: `spawn`, with the warden's end of a new channel and a file that
says what to start. To the server: `ready`, then per spawn `ended` once nothing of its tree is left,
and `reaped` for each orphan of a killed warden.

The keeper is a child subreaper. Whatever is its child and not a warden was left by a warden that
was killed, since a living one adopts all orphans of its own tree; so it can be killed without
asking whose it is.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

if not __package__:
    # Started by path, without site-packages: the folder that holds localplane_server, after all of
    # Python's own.
    sys.path.append(__file__.rsplit("/", 3)[0])

from localplane_server.supervision import channel, prctl, process_table, warden

WARDENS_SECONDS = 1.5
"""How long wardens may take to end their trees after the server is gone."""

_RETRY_SECONDS = 0.02
_WAKEUP_BYTES = 4096


class Keeper:
    """Forks wardens, reaps them, and ends what a killed one leaves behind."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._wardens: dict[int, str] = {}
        """Spawn ids by the numbers of living wardens."""
        self._orphaned: list[str] = []
        """Spawns whose warden was killed and whose tree is being ended."""
        self._kill_wardens_at: float | None = None
        """None while the server is there."""
        # Never written to. Only the keeper keeps the second end, so its death ends the first for
        # every warden.
        self._lifeline, self._lifeline_end = os.pipe2(os.O_CLOEXEC)
        self._wakeup, self._wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The handler only makes Python write to the wake-up descriptor.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._server, select.POLLIN)
        self._poll.register(self._wakeup, select.POLLIN)

    def run(self) -> None:
        """Serve until the server is gone and nothing that was started is left."""
        self._tell({"event": "ready"})
        while self._kill_wardens_at is None or self._wardens or self._orphaned:
            for descriptor, _ in self._poll.poll(self._timeout_milliseconds()):
                if descriptor == self._wakeup:
                    os.read(self._wakeup, _WAKEUP_BYTES)
                else:
                    self._obey()
            self._reap()
            if self._kill_wardens_at is not None and time.monotonic() >= self._kill_wardens_at:
                for pid in self._wardens:
                    os.kill(pid, signal.SIGKILL)
            if self._orphaned:
                self._end_orphans()

    def _timeout_milliseconds(self) -> float | None:
        if self._orphaned:
            return _RETRY_SECONDS * 1000
        if self._kill_wardens_at is None:
            return None
        return max(_RETRY_SECONDS, self._kill_wardens_at - time.monotonic()) * 1000

    def _obey(self) -> None:
        received = channel.receive(self._server)
        if received is None:
            # Wardens notice it themselves.
            self._poll.unregister(self._server)
            self._kill_wardens_at = time.monotonic() + WARDENS_SECONDS
            return
        to_server, launch_file = received.descriptors
        self._fork(received.message["spawn_id"], socket.socket(fileno=to_server), launch_file)

    def _fork(self, spawn_id: str, to_server: socket.socket, launch_file: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            with suppress(ConnectionError):
                channel.send(
                    to_server, {"event": "failed", "text": f"cannot fork: {error.strerror}"}
                )
            self._tell({"event": "ended", "spawn_id": spawn_id})
        else:
            if pid == 0:
                self._be_warden(spawn_id, to_server, launch_file)
            self._wardens[pid] = spawn_id
        # Else the death of the warden would not close the channel.
        to_server.close()
        os.close(launch_file)

    def _be_warden(self, spawn_id: str, to_server: socket.socket, launch_file: int) -> None:
        status = 1  # makes the keeper look for what is left
        try:
            signal.set_wakeup_fd(-1)
            self._server.close()
            for descriptor in (self._lifeline_end, self._wakeup, self._wakeup_end):
                os.close(descriptor)
            status = warden.run(spawn_id, to_server, self._lifeline, launch_file)
        except BaseException:  # noqa: BLE001 - a warden never returns into the keeper's code
            traceback.print_exc()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            spawn_id = self._wardens.pop(pid, None)
            if spawn_id is None:
                returncode = os.waitstatus_to_exitcode(status)
                self._tell({"event": "reaped", "pid": pid, "returncode": returncode})
            elif status == 0:
                self._tell({"event": "ended", "spawn_id": spawn_id})
            else:
                self._orphaned.append(spawn_id)

    def _end_orphans(self) -> None:
        table = process_table.snapshot()
        orphans = [
            entry
            for entry in table.values()
            if entry.parent == os.getpid() and entry.pid not in self._wardens
        ]
        if not orphans:
            for spawn_id in self._orphaned:
                self._tell({"event": "ended", "spawn_id": spawn_id})
            self._orphaned.clear()
            return
        below = process_table.descendants(table, [entry.pid for entry in orphans])
        alive = [entry for entry in orphans + below if not entry.is_dead]
        # Groups first, for what is being forked at the moment; see the warden.
        for group in {entry.group for entry in alive} - {os.getpgrp()}:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for entry in alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(entry.pid, signal.SIGKILL)

    def _tell(self, message: dict[str, Any]) -> None:
        # A server that is gone is noticed when its end is read.
        with suppress(ConnectionError):
            channel.send(self._server, message)


def main() -> None:
    """Keep backends for the server at the other end of a descriptor, the first argument."""
    prctl.name_process("lp-keeper")
    prctl.become_subreaper()
    # A polite signal to everybody (a terminal, a service manager) is for the server to answer.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    server = socket.socket(fileno=int(sys.argv[1]))
    server.set_inheritable(False)
    Keeper(server).run()


if __name__ == "__main__":
    main()
