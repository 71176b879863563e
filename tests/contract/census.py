"""What a service holds: files, tasks and processes. Input that is refused must leave none behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import NamedTuple

import psutil

from contract.transports import CallError, Transport
from localplane.v1 import backend_service_pb2 as pb

SETTLED_SECONDS = 15.0


class Census(NamedTuple):
    """What there was, with no backend loaded."""

    files: int
    tasks: int
    processes: int


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
    return Census(
        files=process.num_fds(),
        tasks=len(asyncio.all_tasks()),
        processes=len(process.children(recursive=True)),
    )


async def settled(before: Census) -> Census:
    """Return the census once it is no larger than the one before, or, after a while, what it is."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        now = take_census()
        is_larger = any(new > old for new, old in zip(now, before, strict=True))
        if not is_larger or time.monotonic() > deadline:
            return now
        await asyncio.sleep(0.05)
