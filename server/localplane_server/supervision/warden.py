"""A warden: starts one backend, writes down what it says, and ends its whole tree.

Standard library only. Forked by the keeper, one per backend. It is a child subreaper, so a
descendant of its backend that loses its parent becomes the warden's child, whatever session or
group it has moved to: once `waitpid` finds no child, nothing of the tree is left.

To the server it sends `started` (with descriptors of the backend and of itself) or `failed`, then
`exited`; from the server it takes `stop`. It ends its tree when told to, when the backend ends,
when the server's end of the channel closes, and when the keeper dies. Should it be killed itself,
the kernel kills the backend and the keeper the rest.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

from localplane_server.supervision import channel, exits, prctl, process_table
from localplane_server.supervision.log_files import LogLimits
from localplane_server.supervision.log_record import ERRORS, OUTPUT
from localplane_server.supervision.log_writer import RotatedLog
from localplane_server.supervision.memory_kills import MemoryKills
from localplane_server.supervision.output_log import OutputLog
from localplane_server.supervision.redaction import secrets_in

SERVER_GONE_SECONDS = 1.0
"""How long a tree may take to end after the server is gone."""
KEEPER_GONE_SECONDS = 0.25
"""How long a tree may take to end after the keeper is gone."""
BACKEND_GONE_SECONDS = 2.0
"""How long the rest of a tree may take to end after its backend ended by itself."""

_READ_BYTES = 65536
_FIRST_RETRY_SECONDS = 0.01
_LAST_RETRY_SECONDS = 0.5


def run(spawn_id: str, server: socket.socket, lifeline: int, launch_file: int) -> int:
    """Start a backend, stay until nothing of its tree is left, and return the status to exit with.

    Args:
        spawn_id: Name of this spawn.
        server: Channel to the server.
        lifeline: Readable at its end once the keeper is dead.
        launch_file: File with what to start, as JSON: `argv`, `env`, `cwd`, `log`, `log_limits`.
    """
    prctl.name_process("lp-warden")
    # Before there is any child: what is forked later inherits being looked after.
    prctl.become_subreaper()
    with open(launch_file, "rb") as file:
        file.seek(0)
        launch = json.load(file)
    try:
        warden = _Warden(spawn_id, server, lifeline, launch)
    except _StartError as error:
        _tell(server, {"event": "failed", "text": str(error)})
    else:
        warden.watch()
    return 0


class _StartError(Exception):
    """The backend did not start."""


class _Warden:
    def __init__(
        self, spawn_id: str, server: socket.socket, lifeline: int, launch: dict[str, Any]
    ) -> None:
        self._server = server
        self._lifeline = lifeline
        self._kill_at: float | None = None
        """When asking ends. None while the tree may live."""
        self._look_at: float | None = None
        """When the tree is looked at next. None while the tree may live."""
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._asked: set[tuple[int, int]] = set()
        """What was sent SIGTERM, by number and start."""
        self._wakeup, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
        self._log = _open_log(launch)
        self._memory_kills = MemoryKills()
        try:
            self._backend, self._outputs = _start(launch)
        except _StartError as error:
            self._log.not_started(str(error))
            self._log.close()
            raise
        self._log.started(self._backend, spawn_id)
        self._poll = select.poll()
        for descriptor in (self._server.fileno(), self._lifeline, self._wakeup, *self._outputs):
            self._poll.register(descriptor, select.POLLIN)
        self._announce()

    def _announce(self) -> None:
        # Neither has been reaped, so neither can be missing, nor its number be somebody else's.
        descriptors = [os.pidfd_open(self._backend), os.pidfd_open(os.getpid())]
        message = {
            "event": "started",
            "pid": self._backend,
            "start_ticks": process_table.start_ticks(self._backend),
            "warden": os.getpid(),
            "warden_start_ticks": process_table.start_ticks(os.getpid()),
        }
        _tell(self._server, message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def watch(self) -> None:
        """Return when nothing of the tree is left."""
        while True:
            for descriptor, _ in self._poll.poll(self._timeout_milliseconds()):
                if descriptor == self._wakeup:
                    os.read(self._wakeup, _READ_BYTES)
                elif descriptor in self._outputs:
                    self._write_down(descriptor)
                elif descriptor == self._lifeline:
                    self._poll.unregister(descriptor)
                    self._end_within(KEEPER_GONE_SECONDS)
                else:
                    self._obey()
            if self._reap():
                break
            self._log.look()
            if self._look_at is not None and time.monotonic() >= self._look_at:
                self._signal_tree()
        self._log.close()

    def _timeout_milliseconds(self) -> float | None:
        times = [at for at in (self._look_at, self._log.due_at) if at is not None]
        if not times:
            return None
        return max(0.0, min(times) - time.monotonic()) * 1000 + 1

    def _obey(self) -> None:
        received = channel.receive(self._server)
        if received is None:
            self._poll.unregister(self._server)
            self._end_within(SERVER_GONE_SECONDS)
        else:
            self._end_within(received.message["term_seconds"])

    def _end_within(self, seconds: float) -> None:
        now = time.monotonic()
        limit = now + seconds
        # Whoever is in the greatest hurry decides.
        self._kill_at = limit if self._kill_at is None else min(self._kill_at, limit)
        self._look_at = now

    def _reap(self) -> bool:
        """Reap what died; return whether no child, and so nothing of the tree, is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._backend:
                self._backend = 0  # the number may become somebody else's
                code = os.waitstatus_to_exitcode(status)
                kills = self._memory_kills.since() if code == -signal.SIGKILL else 0
                # First what it said last: whoever hears of the exit reads the log.
                self._write_down_rest()
                self._log.ended(exits.in_words(code, memory_kills=kills))
                told = {"event": "exited", "returncode": code, "memory_kills": kills}
                _tell(self._server, told)
                if self._kill_at is None:
                    self._end_within(BACKEND_GONE_SECONDS)
            if self._kill_at is not None:
                # Something may have been adopted that was not asked yet.
                self._look_at = time.monotonic()

    def _signal_tree(self) -> None:
        now = time.monotonic()
        tree = process_table.descendants(process_table.snapshot(), [os.getpid()])
        alive = [entry for entry in tree if not entry.is_dead]
        if self._kill_at is None or now < self._kill_at:
            for entry in alive:
                if (entry.pid, entry.start_ticks) not in self._asked:
                    self._asked.add((entry.pid, entry.start_ticks))
                    _kill(entry.pid, signal.SIGTERM)
                    _kill(entry.pid, signal.SIGCONT)  # what is stopped cannot obey
            self._look_at = self._kill_at
            return
        # Groups first: a signal to a group also meets what is being forked at the moment. All the
        # groups of the tree lie in sessions that were made in the tree, so nobody else is in them.
        # Numbers are given out in turn, so none of these can have become somebody else's since the
        # table was read.
        for group in {entry.group for entry in alive} - {os.getpgrp()}:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for entry in alive:
            _kill(entry.pid, signal.SIGKILL)
        self._look_at = now + self._retry_seconds
        self._retry_seconds = min(self._retry_seconds * 2, _LAST_RETRY_SECONDS)

    def _write_down(self, descriptor: int) -> bool:
        """Copy some output to the log; return whether there may be more."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._log.write(self._outputs[descriptor], data)
            return True
        del self._outputs[descriptor]
        self._poll.unregister(descriptor)
        return False

    def _write_down_rest(self) -> None:
        for descriptor in list(self._outputs):
            # Bounded, as others of the tree may go on writing.
            for _ in range(64):
                if not self._write_down(descriptor):
                    break


def _open_log(launch: dict[str, Any]) -> OutputLog:
    try:
        log = RotatedLog(launch["log"], LogLimits(*launch["log_limits"]))
    except OSError as error:
        raise _StartError(f"cannot open {launch['log']}: {error.strerror}") from error
    secrets = tuple(os.fsencode(secret) for secret in secrets_in(launch["env"]))
    return OutputLog(log, secrets)


def _start(launch: dict[str, Any]) -> tuple[int, dict[int, str]]:
    """Start the backend; return its number, and what comes out of which pipe."""
    output, output_end = os.pipe2(os.O_CLOEXEC)
    errors, errors_end = os.pipe2(os.O_CLOEXEC)
    problem, problem_end = os.pipe2(os.O_CLOEXEC)
    warden = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        raise _StartError(f"cannot fork: {error.strerror}") from error
    if pid == 0:
        _become_backend(launch, warden, (output_end, errors_end), problem_end)
    os.close(output_end)
    os.close(errors_end)
    os.close(problem_end)
    # Ends without a word when the program has been started, as the other end closes on exec.
    with open(problem, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        text = file.read().decode(errors="replace")
    if text:
        os.waitpid(pid, 0)
        raise _StartError(text)
    os.set_blocking(output, False)
    os.set_blocking(errors, False)
    return pid, {output: OUTPUT, errors: ERRORS}


def _become_backend(
    launch: dict[str, Any], warden: int, output_ends: tuple[int, int], problem_end: int
) -> NoReturn:
    what = f"cannot run {launch['argv'][0]}"
    try:
        os.setsid()
        prctl.die_with_parent(signal.SIGKILL)
        if os.getppid() != warden:
            os._exit(1)  # it died before it could be noticed
        _reset_signals()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output_ends[0], 1)
        os.dup2(output_ends[1], 2)
        # All other descriptors close on exec.
        if launch["cwd"] is not None:
            what = f"cannot enter {launch['cwd']}"
            os.chdir(launch["cwd"])
        what = f"cannot run {launch['argv'][0]}"
        os.execvpe(launch["argv"][0], launch["argv"], launch["env"])  # noqa: S606 - no shell on purpose
    except OSError as error:
        text = f"{what}: {error.strerror}"
        if isinstance(error, FileNotFoundError) and os.path.exists(launch["argv"][0]):  # noqa: PTH110
            text += " (the interpreter that its first line names)"
    except ValueError as error:
        text = f"{what}: {error}"  # a NUL in an argument, a = in the name of a variable
    os.write(problem_end, text.encode(errors="replace"))
    os._exit(1)


def _reset_signals() -> None:
    # What is ignored stays ignored across exec; a backend expects the defaults.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _kill(pid: int, number: int) -> None:
    # Gone, or of another user by now (a set-user-id program): the next look at the tree tells.
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _tell(
    server: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] | list[int] = ()
) -> None:
    # A server that is gone is noticed when its end is read.
    with suppress(ConnectionError):
        channel.send(server, message, descriptors)


if __name__ == "__main__":
    sys.exit("a warden is forked by a keeper")
