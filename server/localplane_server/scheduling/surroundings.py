"""What a model's actor needs around it: who starts backends, who runs tasks, who hears of its life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from localplane_server.errors import LocalplaneError
from localplane_server.models.configuration import ModelConfig
from localplane_server.supervision.running import RunningBackend

T = TypeVar("T")


class StartBackend(Protocol):
    """How a model's backend is started and its model loaded, told apart so that both can be seen from outside."""

    async def __call__(
        self, model: ModelConfig, on_started: Callable[[RunningBackend], None]
    ) -> RunningBackend:
        """Start and load; call `on_started` in between.

        Raises:
            LocalplaneError: If that fails. No process is left then.
        """


class LifeListener(Protocol):
    """Hears at once of every turn that the life of a model's backend takes."""

    def answers(self, model: str) -> None:
        """Hear that the program answers and begins to load the model."""

    def ready(self, model: str) -> None:
        """Hear that the model is loaded."""

    def load_ended(self, model: str, error: LocalplaneError, *, is_failure: bool) -> None:
        """Hear that a load ended badly.

        Args:
            model: Name of the model.
            error: Why.
            is_failure: Whether the model or its backend failed, rather than the service.
        """

    def died(self, model: str) -> None:
        """Hear that the process of a loaded model ended by itself. `gone` follows."""

    def gone(self, model: str) -> None:
        """Hear that nothing is left of a backend that was stopped or died."""


class RunTask(Protocol):
    """Runs a coroutine in a task that no caller can cancel."""

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return the task; what it raises is logged even if nobody waits for it."""
