"""The life of one model's backend: stopped, loaded once for all who ask, in use, stopped for good."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from localplane_server import events
from localplane_server.errors import (
    BackendGoneError,
    DrainingError,
    FailedPreconditionError,
    LoadFailedError,
    LocalplaneError,
    ModelNotLoadedError,
    NotReadyError,
)
from localplane_server.models.configuration import ModelConfig
from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.surroundings import LifeListener, RunTask, StartBackend
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.running import DEATH_SECONDS, RunningBackend, quoting

log = logging.getLogger(__name__)

_CUTS = {
    StopCause.REQUEST: "was stopped",
    StopCause.CAPACITY: "had to go for another model",
    StopCause.MEMORY: "had to go for want of memory",
    StopCause.IDLE: "was not used for long",
    StopCause.BUSY: "worked for longer than the busy limit allows, and no call came to its end",
    StopCause.SHUTDOWN: "was stopped with the service",
}
"""What became of a model, for those whose calls that cut."""
SWEEP_SECONDS = 2.0
"""How long what a dead backend left behind may take to end before it is killed."""


class BackendState(enum.Enum):
    """Where a backend is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSnapshot:
    """A backend, as last observed."""

    model: str
    """Name of the model."""
    backend: str
    """Name of the backend."""
    state: BackendState
    """Where it is in its life."""
    pid: int | None
    """Its process. None when it has none."""
    in_flight: int
    """Calls in flight."""
    last_error: str | None
    """Why it last failed. None when it has not."""
    restarts: int
    """How often it was started again after a failure."""
    loaded_at: datetime | None
    """When the model became ready. None when it is not loaded."""
    last_used: datetime | None
    """When the last call ended."""
    waiting: int = 0
    """Calls and loads that wait for it to be ready."""
    cooldown_until: datetime | None = None
    """Until when calls do not load it, since it failed again and again. None when it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """What a stop did."""

    seconds: float
    """How long it took."""
    freed_bytes: int | None
    """Memory that came back. None when it could not be read."""
    cut_calls: int
    """Calls in flight that were cut."""


class ModelActor:
    """The backend of one model.

    Everything that changes the backend runs in tasks of the actor's own; callers wait for them and may go away.
    No lock is needed: state changes between two awaits, on one event loop. Whether and when it loads or stops is for
    others to decide.
    """

    def __init__(
        self,
        model: ModelConfig,
        *,
        start: StartBackend,
        run: RunTask,
        bus: events.Events,
        listener: LifeListener,
    ) -> None:
        self.model = model
        self._start = start
        self._listener = listener
        self._run = run
        self._events = bus
        self._change = events.BackendChanged(model=model.name)
        self._calls_change = events.BackendChanged(model=model.name, calls_only=True)
        self._state = BackendState.STOPPED
        self._backend: RunningBackend | None = None
        self._load: asyncio.Task[None] | None = None
        self._given_up_after: float | None = None
        self._stop: asyncio.Task[StopReport] | None = None
        self._cause = StopCause.REQUEST
        self._drain_until = 0.0
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._end_seconds: float | None = None
        self._in_flight = 0
        self._failed_before = False
        self._restarts = 0
        self._last_error: str | None = None
        self._loaded_at: datetime | None = None
        self._last_used: datetime | None = None
        self._cooldown_until: datetime | None = None
        self._waiting = 0

    # What others see

    @property
    def state(self) -> BackendState:
        """Where the backend is in its life."""
        if self._state is BackendState.READY and self._in_flight:
            return BackendState.BUSY
        return self._state

    @property
    def backend(self) -> RunningBackend | None:
        """The running backend, or None."""
        return self._backend

    @property
    def waiting(self) -> int:
        """Calls and loads that wait for it to be ready, as the scheduler counts them."""
        return self._waiting

    @waiting.setter
    def waiting(self, count: int) -> None:
        if count != self._waiting:
            self._waiting = count
            self._events.emit(self._calls_change)

    def snapshot(self) -> BackendSnapshot:
        """Return what is known of the backend now."""
        return BackendSnapshot(
            model=self.model.name,
            backend=self.model.backend,
            state=self.state,
            pid=self._backend.pid if self._backend else None,
            in_flight=self._in_flight,
            last_error=self._last_error,
            restarts=self._restarts,
            loaded_at=self._loaded_at,
            last_used=self._last_used,
            waiting=self._waiting,
            cooldown_until=self._cooldown_until,
        )

    # Loading

    def begin_load(self, model: ModelConfig) -> None:
        """Begin to load a model; there must be no backend."""
        if self._load is not None or self._stop is not None or self._backend is not None:
            raise RuntimeError(self._state)
        self.model = model
        self._restarts += self._failed_before
        self._failed_before = False
        self._given_up_after = None
        self._state = BackendState.STARTING
        self._load = self._run(self._run_load())
        self._events.emit(self._change)

    def give_up_load(self, seconds: float) -> None:
        """End a load that has gone on for so many seconds, as one that failed."""
        if self._load is not None and self._stop is None:
            self._given_up_after = seconds
            self._load.cancel()

    def cool_down(self, seconds: float, failures: int) -> None:
        """Tell that calls do not load the model for a while, since it failed so often in a row."""
        self._cooldown_until = datetime.now(UTC) + timedelta(seconds=seconds)
        self._events.emit(self._change)
        self._events.emit(
            events.BackendCooling(
                model=self.model.name,
                backend=self.model.backend,
                seconds=seconds,
                failures=failures,
            )
        )

    def forget(self) -> None:
        """Forget how the backend failed; one that runs, or is being ended, is left alone."""
        if self._backend is None and self._load is None and self._stop is None:
            self._state = BackendState.STOPPED
            self._last_error = None
            self._cooldown_until = None
            self._failed_before = False
            self._events.emit(self._change)

    async def _run_load(self) -> None:
        began = time.monotonic()
        try:
            outcome = await self._outcome_of_load()
        finally:
            self._load = None
        if self._stop is not None or outcome is None:
            # A stop ended the load, and goes on from here.
            return
        if isinstance(outcome, LocalplaneError):
            self._load_failed(outcome)
        else:
            self._loaded(outcome, time.monotonic() - began)

    async def _outcome_of_load(self) -> RunningBackend | LocalplaneError | None:
        """Return what was loaded, or why nothing was, or None when the load was cancelled."""
        try:
            return await self._start(self.model, self._started)
        except asyncio.CancelledError:
            if self._given_up_after is None or self._stop is not None:
                return None
            return await self._overdue(self._given_up_after)
        except LocalplaneError as error:
            return error
        except Exception:
            log.exception("a load failed", extra={"model": self.model.name})
            message = f"cannot load model {self.model.name}: internal error"
            return LoadFailedError(message, model=self.model.name)

    def _loaded(self, backend: RunningBackend, seconds: float) -> None:
        self._backend = backend
        self._state = BackendState.READY
        self._last_error = None
        self._cooldown_until = None
        self._loaded_at = datetime.now(UTC)
        backend.exited.add_done_callback(lambda _: self._exited(backend))
        # First those who wait for it: then nobody sees it ready and waited for.
        self._listener.ready(self.model.name)
        self._events.emit(self._change)
        self._events.emit(
            events.BackendReady(
                model=self.model.name,
                backend=self.model.backend,
                pid=backend.pid,
                seconds=seconds,
            )
        )

    def _started(self, backend: RunningBackend) -> None:
        self._backend = backend
        self._state = BackendState.LOADING
        self._events.emit(self._change)
        self._listener.answers(self.model.name)

    async def _overdue(self, seconds: float) -> LoadFailedError:
        cause = f"nothing of it moved for {seconds:g} s, or it took too long altogether"
        if self._backend is not None:
            return await self._backend.load_error(cause)
        return LoadFailedError(
            f"cannot load model {self.model.name}: {cause}", model=self.model.name
        )

    def _load_failed(self, error: LocalplaneError) -> None:
        self._backend = None
        if isinstance(error, FailedPreconditionError):
            # Nothing was started: what is missing is missing from the service, not from this backend.
            self._state = BackendState.STOPPED
            self._events.emit(self._change)
        else:
            self._failed(error.message, was_loading=True)
        is_failure = not isinstance(error, FailedPreconditionError | NotReadyError)
        self._listener.load_ended(self.model.name, error, is_failure=is_failure)

    def _failed(self, message: str, *, was_loading: bool = False) -> None:
        self._state = BackendState.FAILED
        self._backend = None
        self._loaded_at = None
        self._last_error = message
        self._failed_before = True
        self._events.emit(self._change)
        self._events.emit(
            events.BackendFailed(
                model=self.model.name,
                backend=self.model.backend,
                message=message,
                was_loading=was_loading,
            )
        )

    def _exited(self, backend: RunningBackend) -> None:
        if self._backend is backend and self._state is BackendState.READY:
            self._failed(backend.ended())
            self._run(self._sweep(backend))
            self._listener.died(self.model.name)

    async def _sweep(self, backend: RunningBackend) -> None:
        """End what a backend that died left behind, and say why it died."""
        message = backend.ended()
        try:
            if words := await backend.last_words():
                self._last_error = quoting(message, words)
                self._events.emit(self._change)
            await backend.stop(free=False, within_seconds=SWEEP_SECONDS)
        finally:
            self._listener.gone(self.model.name)

    # Calls

    @asynccontextmanager
    async def lease(self) -> AsyncGenerator[BackendClient]:
        """Hold the loaded backend for one call. It counts as in flight until the end of the block.

        Raises:
            DrainingError: If the backend is being stopped.
            ModelNotLoadedError: If it is not loaded.
            BackendGoneError: If it failed, or ends during the call; the message says how.
        """
        backend = self._backend
        if self._state is BackendState.STOPPING:
            raise self._draining()
        if self._state is BackendState.FAILED and self._last_error is not None:
            raise BackendGoneError(
                f"cannot use model {self.model.name}: {self._last_error}", model=self.model.name
            )
        if backend is None or self._state is not BackendState.READY:
            raise ModelNotLoadedError(self.model.name)
        self._in_flight += 1
        self._idle.clear()
        self._events.emit(self._calls_change)
        try:
            yield backend.client
        except BackendGoneError as error:
            raise await self._gone(backend, error) from error
        finally:
            self._in_flight -= 1
            self._last_used = datetime.now(UTC)
            if not self._in_flight:
                self._idle.set()
            self._events.emit(self._calls_change)

    def _draining(self) -> DrainingError:
        return DrainingError(
            f"cannot use model {self.model.name}: it is being stopped", model=self.model.name
        )

    async def _gone(self, backend: RunningBackend, error: BackendGoneError) -> LocalplaneError:
        if backend.is_stopping:
            message = f"the call was cut because model {self.model.name} {_CUTS[self._cause]}"
            return BackendGoneError(message, model=self.model.name)
        # The connection breaks a moment before the process is seen to end.
        await backend.wait_for_end(DEATH_SECONDS)
        if not backend.exited.done():
            return error
        words = await backend.last_words()
        return BackendGoneError(
            quoting(f"{backend.ended()} during the call", words),
            model=self.model.name,
            exit=str(backend.exited.result()),
            log=words,
        )

    # Stopping

    async def stop(
        self, *, force: bool, grace_seconds: float, cause: StopCause = StopCause.REQUEST
    ) -> StopReport:
        """Stop the backend and return once no process of it is left; see `begin_stop`.

        A caller that goes away does not cancel it.
        """
        stop = self.begin_stop(force=force, grace_seconds=grace_seconds, cause=cause)
        await asyncio.wait((stop,))
        return stop.result()

    def begin_stop(
        self, *, force: bool, grace_seconds: float, cause: StopCause
    ) -> asyncio.Task[StopReport]:
        """Begin to stop the backend. From now on no call is admitted.

        Callers share one stop; the shortest of their grace periods counts, and the last of the causes.

        Raises:
            ModelNotLoadedError: If there is nothing to stop.
        """
        until = time.monotonic() + (0.0 if force else grace_seconds)
        if self._stop is None:
            if self._state in (BackendState.STOPPED, BackendState.FAILED):
                raise ModelNotLoadedError(self.model.name)
            self._drain_until = until
            self._state = BackendState.STOPPING
            self._stop = self._run(self._run_stop())
            self._events.emit(self._change)
        elif until < self._drain_until:
            self._drain_until = until
            self._hurry.set()
        self._cause = cause
        return self._stop

    async def close(self, *, grace_seconds: float, end_seconds: float) -> None:
        """Stop the backend if there is one.

        Args:
            grace_seconds: How long calls in flight may still run.
            end_seconds: How long the backend may take to end after that, before it is killed.
        """
        self._end_seconds = end_seconds
        if self._state not in (BackendState.STOPPED, BackendState.FAILED):
            await self.stop(force=False, grace_seconds=grace_seconds, cause=StopCause.SHUTDOWN)

    async def _run_stop(self) -> StopReport:
        began = time.monotonic()
        freed = None
        cut = 0
        was_loading = self._load is not None
        try:
            if self._load is not None:
                load = self._load
                load.cancel()
                await asyncio.wait((load,))
            elif self._backend is not None:
                await self._drain()
                cut = self._in_flight
                freed = await self._backend.stop(
                    cut_calls=cut > 0, within_seconds=self._end_seconds
                )
        finally:
            self._backend = None
            self._loaded_at = None
            self._state = BackendState.STOPPED
            self._stop = None
            self._events.emit(self._change)
            seconds = time.monotonic() - began
            self._events.emit(
                events.BackendStopped(
                    model=self.model.name,
                    backend=self.model.backend,
                    seconds=seconds,
                    cut_calls=cut,
                    was_loading=was_loading,
                    cause=self._cause.value,
                )
            )
            self._listener.gone(self.model.name)
        return StopReport(seconds=seconds, freed_bytes=freed, cut_calls=cut)

    async def _drain(self) -> None:
        """Wait until no call is in flight, or the grace period, which may get shorter, is over."""
        while (left := self._drain_until - time.monotonic()) > 0 and self._in_flight:
            self._hurry.clear()
            waits = [
                asyncio.ensure_future(self._idle.wait()),
                asyncio.ensure_future(self._hurry.wait()),
            ]
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
