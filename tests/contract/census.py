"""What a service holds: files, tasks and processes. Input that is refused must leave none behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from contract.transports import CallError, Transport
from localplane.v1 import backend_service_pb2 as pb
from localplane.v1 import system_service_pb2

SETTLED_SECONDS = 15.0


class Census(NamedTuple):
    """What there was, with no backend loaded."""

    files: int
    tasks: int
    processes: int
    opened: tuple[str, ...] = ()
    """What the files are, and the connections among them, for whoever has to find out."""

    def exceeds(self, before: Census) -> bool:
        """Whether there is more of something than there was."""
        return any(new > old for new, old in zip(self[:3], before[:3], strict=True))


async def stop_backends(transport: Transport) -> None:
    """Stop whatever is loaded."""
    listed = await transport.call("BackendService.ListBackends", pb.ListBackendsRequest())
    for one in listed.backends:
        with contextlib.suppress(CallError):  # it may have failed, or be gone by now
            request = pb.ShutdownBackendRequest(model=one.model, force=True)
            await transport.call("BackendService.ShutdownBackend", request)


def take_census() -> Census:
    """Count what this process, in which the service runs, has now."""
    process = psutil.Process()
    opened = [one for one in _links(Path("/proc/self/fd")) if not one.startswith("anon_inode:")]
    connections = [str(one) for one in process.net_connections("all")]
    return Census(
        files=len(opened),
        tasks=len(asyncio.all_tasks()),
        processes=len(process.children(recursive=True)),
        opened=(*sorted(opened), *sorted(connections)),
    )


def _links(folder: Path) -> Iterator[str]:
    """Yield what descriptors are of. Those that wake threads, which libraries make as they need, have no name."""
    for one in folder.iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            yield str(one.readlink())


async def settled(before: Census, transports: Iterable[Transport]) -> Census:
    """Return the census once it is no larger than the one before, or, after a while, what it is.

    Clients that had several connections at once close those that they no longer need when they are used again.
    """
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        now = take_census()
        if not now.exceeds(before) or time.monotonic() > deadline:
            return now
        for transport in transports:
            await transport.call("SystemService.GetVersion", system_service_pb2.GetVersionRequest())
        await asyncio.sleep(0.05)
