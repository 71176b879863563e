"""Which models are loaded: one actor for each model that was ever asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from localplane_server import events
from localplane_server.errors import (
    AutoloadDisabledError,
    DrainingError,
    ModelNotFoundError,
    ModelNotLoadedError,
)
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import ModelConfig
from localplane_server.scheduling.actor import (
    BackendSnapshot,
    BackendState,
    ModelActor,
    RunTask,
    StartBackend,
    StopReport,
)
from localplane_server.supervision.backend_client import BackendClient

log = logging.getLogger(__name__)


class Scheduler:
    """Loads models, lends them to calls and stops them. Models do not wait for each other."""

    def __init__(
        self,
        catalog: ModelCatalog,
        *,
        start: StartBackend,
        run: RunTask,
        bus: events.Events,
        autoload: bool = True,
    ) -> None:
        self._catalog = catalog
        self._start = start
        self._run = run
        self._events = bus
        self._autoload = autoload
        self._actors: dict[str, ModelActor] = {}
        self._is_closed = False

    def snapshots(self) -> list[BackendSnapshot]:
        """Return the backends that run, start, stop or have failed, by the name of their model."""
        return [
            actor.snapshot()
            for _, actor in sorted(self._actors.items())
            if actor.state is not BackendState.STOPPED
        ]

    def snapshot(self, name: str) -> BackendSnapshot | None:
        """Return what `snapshots` has of the model with exactly this name, or None."""
        actor = self._actors.get(name)
        return None if actor is None or actor.state is BackendState.STOPPED else actor.snapshot()

    def actors(self) -> list[ModelActor]:
        """Return the actors of all models that were ever asked for."""
        return list(self._actors.values())

    def state(self, name: str) -> BackendState:
        """Return the state of the backend of the model with exactly this name."""
        actor = self._actors.get(name)
        return actor.state if actor else BackendState.STOPPED

    def actor(self, name: str) -> ModelActor:
        """Return the actor of a model by name, alias or file name, if anything of it can be seen.

        Raises:
            InvalidModelNameError: If the name cannot be one.
            ModelNotLoadedError: If the model is not loaded or there is no such model.
        """
        actor = self._actors.get(name)
        if actor is None or actor.state is BackendState.STOPPED:
            actor = self._actors.get(self._known_name(name))
        if actor is None or actor.state is BackendState.STOPPED:
            raise ModelNotLoadedError(name)
        return actor

    async def load(self, name: str, *, wait: bool = True) -> str:
        """Load a model and return its name, at once or when it is ready.

        Raises:
            ModelNotFoundError: If there is no such model.
            LoadFailedError: If it does not load. Not without waiting: the failure is then seen in `snapshots`.
        """
        model = self._catalog.get(name)
        actor = self._actor_for(model)
        if wait:
            await actor.load(model)
        elif actor.state is BackendState.STOPPING:
            # The load has to wait for the stop, and nobody waits here.
            self._run(actor.load(model))
        else:
            actor.begin_load(model)
        return model.name

    @asynccontextmanager
    async def use(self, model: ModelConfig) -> AsyncGenerator[BackendClient]:
        """Hold the backend of a model for one call, loading the model first where that is allowed.

        Raises:
            AutoloadDisabledError: If the model is not loaded and calls may not load it.
            DrainingError: If the backend is being stopped.
            LoadFailedError: If it does not load.
            BackendGoneError: If the backend ends during the call.
        """
        actor = self._actor_for(model)
        if actor.state not in (BackendState.READY, BackendState.BUSY, BackendState.STOPPING):
            if not self._autoload and actor.state in (BackendState.STOPPED, BackendState.FAILED):
                raise AutoloadDisabledError(model.name)
            await actor.load(model)
        async with actor.lease() as client:
            yield client

    async def stop(self, name: str, *, force: bool, grace_seconds: float) -> StopReport:
        """Stop the backend of a model and return once no process of it is left.

        Raises:
            InvalidModelNameError: If the name cannot be one.
            ModelNotLoadedError: If the model is not loaded or there is no such model.
        """
        actor = self.actor(name)
        return await actor.stop(force=force, grace_seconds=grace_seconds)

    async def close(self, *, grace_seconds: float, end_seconds: float) -> None:
        """Take no new calls and stop every backend, all at once.

        Args:
            grace_seconds: How long calls in flight may still run.
            end_seconds: How long a backend may take to end after that, before it is killed.
        """
        self._is_closed = True
        closes = [
            actor.close(grace_seconds=grace_seconds, end_seconds=end_seconds)
            for actor in self._actors.values()
        ]
        for outcome in await asyncio.gather(*closes, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("a backend could not be stopped", exc_info=outcome)

    def _known_name(self, name: str) -> str:
        try:
            return self._catalog.get(name).name
        except ModelNotFoundError:
            # Its configuration may be gone while it is still loaded.
            return name

    def _actor_for(self, model: ModelConfig) -> ModelActor:
        if self._is_closed:
            raise DrainingError("the service is being stopped")
        actor = self._actors.get(model.name)
        if actor is None:
            actor = ModelActor(model, start=self._start, run=self._run, bus=self._events)
            self._actors[model.name] = actor
        return actor
