"""Tasks that outlive the calls that began them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from localplane_server.readiness import Readiness

T = TypeVar("T")

log = logging.getLogger(__name__)


RESTART_SECONDS = 1.0
"""Pause before an essential loop that failed runs again."""


async def keep_running(
    name: str, loop: Callable[[], Coroutine[Any, Any, None]], readiness: Readiness
) -> None:
    """Run an essential loop for ever; one that fails is logged, reddens readiness and runs again.

    Args:
        name: What to call the loop.
        loop: Runs the loop.
        readiness: Has a cause against it until the loop runs again.
    """
    while True:
        try:
            await loop()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # A cancellation that nobody asked this task for comes from what it called.
            log.exception("an essential loop failed", extra={"loop": name})
            readiness.block(name, f"{name} has failed and is about to run again")
            await asyncio.sleep(RESTART_SECONDS)
            readiness.unblock(name)


class DetachedTasks:
    """Runs coroutines in tasks of their own. One that fails is logged and harms no other."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine; the task returned may be waited for, or not."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a detached task failed", exc_info=error, extra={"task": task.get_name()})

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
