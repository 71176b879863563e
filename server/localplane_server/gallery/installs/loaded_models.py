"""Models that are loaded while their files change."""

from __future__ import annotations

from localplane_server.errors import ModelNotLoadedError
from localplane_server.scheduling.scheduler import Scheduler


class LoadedModels:
    """Ends the backends of models."""

    def __init__(self, scheduler: Scheduler, *, grace_seconds: float) -> None:
        """Set up.

        Args:
            scheduler: Holds the backends.
            grace_seconds: How long calls in flight may go on.
        """
        self._scheduler = scheduler
        self._grace_seconds = grace_seconds

    async def unload(self, model: str) -> int | None:
        """End the backend of a model and return the memory that came back, in bytes; None if it was not loaded.

        Calls in flight may end first, and no new ones begin. That the model failed before is forgotten: what is loaded
        next is another one.
        """
        try:
            report = await self._scheduler.stop(
                model, force=False, grace_seconds=self._grace_seconds
            )
        except ModelNotLoadedError:
            return None
        finally:
            self._scheduler.forget(model)
        return report.freed_bytes or 0
