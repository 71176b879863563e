"""Backends of which tests decide when they load, stop and die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from localplane_server.errors import (
    BackendNotInstalledError,
    LoadFailedError,
    LocalplaneError,
    NotReadyError,
)
from localplane_server.models.configuration import ModelConfig


class FakeBackend:
    """A backend of which tests decide when it stops and when it dies."""

    pid = 7

    def __init__(self) -> None:
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.client = object()
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.is_stopping = False
        self.stops: list[bool] = []
        self.limits: list[float | None] = []

    async def stop(
        self, *, free: bool = True, cut_calls: bool = False, within_seconds: float | None = None
    ) -> int:
        self.is_stopping = True
        self.stops.append(free)
        self.limits.append(within_seconds)
        await self.may_stop.wait()
        return 1000

    async def hurry(self, within_seconds: float) -> None:
        self.limits.append(within_seconds)
        self.may_stop.set()

    def tree_in(self, table: object) -> list[int]:
        return []

    async def load_error(self, cause: str) -> LoadFailedError:
        return LoadFailedError(f"cannot load model m: {cause}", model="m")

    async def wait_for_end(self, seconds: float) -> None:
        await asyncio.wait((self.exited,), timeout=seconds)

    def ended(self) -> str:
        return f"the backend ended with {self.exited.result()}"

    async def last_words(self) -> str:
        return "last words"


class FakeStart:
    """Starts backends when the test lets it."""

    def __init__(self) -> None:
        self.may_finish = asyncio.Event()
        self.may_finish.set()
        self.error: LocalplaneError | None = None
        self.fault: Exception | None = None
        self.backends: list[FakeBackend] = []
        self.models: list[ModelConfig] = []

    async def __call__(self, model: ModelConfig, on_started: Callable[[Any], None]) -> Any:
        self.models.append(model)
        if isinstance(self.error, BackendNotInstalledError | NotReadyError):
            raise self.error
        backend = FakeBackend()
        self.backends.append(backend)
        on_started(backend)
        try:
            await self.may_finish.wait()
            if self.fault is not None:
                raise self.fault
            if self.error is not None:
                raise self.error
        except BaseException:
            await backend.stop(free=False)
            raise
        return backend


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(10):
        await asyncio.sleep(0)
