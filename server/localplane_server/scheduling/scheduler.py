"""Which models are loaded: what the core decides is carried out here, by one actor for each model."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from localplane_server import events
from localplane_server.deadlines import deadline
from localplane_server.errors import (
    BackendGoneError,
    DrainingError,
    LocalplaneError,
    ModelNotFoundError,
    ModelNotLoadedError,
)
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import ModelConfig
from localplane_server.readiness import Readiness
from localplane_server.scheduling import progress
from localplane_server.scheduling.actor import ModelActor
from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.core import Core, Decisions
from localplane_server.scheduling.decisions import (
    Admit,
    Cooldown,
    GiveUpLoad,
    Refuse,
    StartLoad,
    StopBackend,
    Ticket,
    TicketState,
)
from localplane_server.scheduling.limits import Limits, needed_bytes
from localplane_server.scheduling.refusals import error_of
from localplane_server.scheduling.shortage import tells_of_shortage
from localplane_server.scheduling.snapshots import BackendSnapshot, BackendState, StopReport
from localplane_server.scheduling.surroundings import RunTask, StartBackend
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.devices import DeviceMemory

log = logging.getLogger(__name__)

OVERDUE = "load"
"""Name of the cause against readiness while a load is overdue."""


@dataclass(frozen=True, slots=True)
class StopOutcome:
    """What came of the stop of one backend among several."""

    model: str
    """Name of the model."""
    report: StopReport | None
    """What the stop did. None when it failed."""
    error: str | None = None
    """Why it failed. None when it did not."""


class Scheduler:
    """Loads models, lends them to calls and stops them, as its core decides.

    Args:
        catalog: The models.
        start: Starts backends.
        run: Runs what outlives its caller.
        bus: Hears what happens.
        readiness: Has a cause against it while a load is overdue.
        limits: What may be loaded and for how long. Default: no bounds.
        is_elsewhere: Whether a model's backend runs where it takes nothing of what is shared here.
        device_budget: How much backends may take together on a device with so many bytes. Default: no bounds.
        autoload: Whether calls may have models loaded.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        *,
        start: StartBackend,
        run: RunTask,
        bus: events.Events,
        readiness: Readiness,
        limits: Limits | None = None,
        is_elsewhere: Callable[[ModelConfig], bool] = lambda _: False,
        device_budget: Callable[[int], float] = lambda _: math.inf,
        autoload: bool = True,
    ) -> None:
        self._catalog = catalog
        self._start = start
        self._run = run
        self._events = bus
        self._readiness = readiness
        self._is_elsewhere = is_elsewhere
        self._device_budget = device_budget
        self._autoload = autoload
        self._core = Core(limits or Limits())
        self._is_timed = not math.isinf(
            min(self._core.limits.idle_seconds, self._core.limits.busy_seconds)
        )
        self._actors: dict[str, ModelActor] = {}
        self._configurations: dict[str, ModelConfig] = {}
        self._loaded_as: dict[str, ModelConfig] = {}
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    # What others see

    def snapshots(self) -> list[BackendSnapshot]:
        """Return the backends that run, start, stop, have failed, or are waited for, by the name of their model."""
        return [
            actor.snapshot() for _, actor in sorted(self._actors.items()) if _is_to_be_seen(actor)
        ]

    def snapshot(self, name: str) -> BackendSnapshot | None:
        """Return what `snapshots` has of the model with exactly this name, or None."""
        actor = self._actors.get(name)
        return actor.snapshot() if actor is not None and _is_to_be_seen(actor) else None

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

    # Calls and loads

    @asynccontextmanager
    async def use(self, model: ModelConfig) -> AsyncGenerator[BackendClient]:
        """Hold the backend of a model for one call, loading the model first where that is allowed.

        Raises:
            AutoloadDisabledError: If the model is not loaded and calls may not load it.
            BackendGoneError: If the backend ends during the call.
            CapacityExhaustedError: If there was no place for the model in time.
            DrainingError: If the backend is being stopped.
            LoadCooldownError: If the model failed again and again.
            LoadFailedError: If it does not load.
            ModelTooLargeError: If it would not fit if it were alone.
        """
        actor = self._actor_for(model)
        self._describe(model)
        ticket, decided = self._core.call(
            model.name, time.monotonic(), deadline=deadline(), may_load=self._autoload
        )
        if ticket.state is not TicketState.ADMITTED:
            await self._wait(ticket, decided)
        elif self._is_timed:
            self._arm()
        is_well = False
        try:
            async with actor.lease() as client:
                yield client
            is_well = True
        except ModelNotLoadedError as error:
            # It was stopped between the moment when the call was admitted and this one.
            raise DrainingError(
                f"cannot use model {model.name}: it was stopped", model=model.name
            ) from error
        except BackendGoneError:
            raise
        except LocalplaneError:
            # The backend answered, even if with an error.
            is_well = True
            raise
        finally:
            decided = self._core.call_ended(ticket, time.monotonic(), is_well=is_well)
            # Mostly there is nothing to do, and calls are many.
            if decided or self._is_timed:
                self._obey(decided)

    async def load(self, name: str, *, wait: bool = True) -> str:
        """Load a model and return its name, at once or when it is ready.

        Raises:
            ModelNotFoundError: If there is no such model.
            LocalplaneError: If it does not load, as in `use`. What comes later is logged if nobody waits.
        """
        model = self._catalog.get(name)
        self._actor_for(model)
        self._describe(model)
        ticket, decided = self._core.load(
            model.name, time.monotonic(), deadline=deadline() if wait else math.inf
        )
        if wait or any(isinstance(one, Refuse) and one.ticket is ticket for one in decided):
            await self._wait(ticket, decided)
        else:
            self._obey(decided)
        return model.name

    async def preload(self, names: Sequence[str]) -> None:
        """Load models one after the other, as far as there is space. What fails is logged and holds up nothing."""
        for name in names:
            try:
                model = self._catalog.get(name)
                self._actor_for(model)
                self._describe(model)
                ticket, decided = self._core.load(model.name, time.monotonic(), is_patient=False)
                await self._wait(ticket, decided)
            except LocalplaneError as error:
                log.error(  # noqa: TRY400 - the cause is known, and ours
                    "a model cannot be preloaded", extra={"model": name, "cause": error.message}
                )

    def note_memory(
        self,
        model: str,
        held: int,
        devices: Sequence[DeviceMemory] | None = None,
        told: Collection[str] | None = None,
    ) -> None:
        """Take note of the memory that the backend of a model was seen to take.

        Args:
            model: Name of the model.
            held: Memory of the machine.
            devices: Memory of devices. None: it was not seen this time.
            told: Devices of which it was seen, if it was not of all.
        """
        on_devices = None
        if devices is not None:
            self._core.equip(
                {
                    one.device: self._device_budget(one.total_bytes)
                    for one in devices
                    if one.total_bytes is not None
                }
            )
            on_devices = {one.device: one.used_bytes for one in devices}
        self._obey(
            self._core.measured(model, held, time.monotonic(), devices=on_devices, told=told)
        )

    async def _wait(self, ticket: Ticket, decided: Decisions) -> None:
        """Carry out what was decided and return once the ticket is admitted."""
        answer = self._waiters[ticket] = asyncio.get_running_loop().create_future()
        outcome = "left"
        try:
            self._obey(decided)
            await answer
            outcome = "admitted"
        except LocalplaneError:
            outcome = "refused"
            raise
        except asyncio.CancelledError:
            now = time.monotonic()
            if ticket.state is TicketState.ADMITTED:
                self._obey(self._core.call_ended(ticket, now, is_well=False))
            self._obey(self._core.withdraw(ticket, now))
            raise
        finally:
            del self._waiters[ticket]
            if answer.done() and not answer.cancelled():
                # Somebody who left at the same moment does not look at it.
                answer.exception()
            seconds = time.monotonic() - ticket.arrived
            self._events.emit(
                events.WaitEnded(model=ticket.model, outcome=outcome, seconds=seconds)
            )

    # Stops

    async def stop(self, name: str, *, force: bool, grace_seconds: float) -> StopReport:
        """Stop the backend of a model and return once no process of it is left. Who waits for it is sent away.

        Raises:
            InvalidModelNameError: If the name cannot be one.
            ModelNotLoadedError: If the model is not loaded, nobody waits for it, or there is no such model.
        """
        actor = self._actors.get(name) or self._actors.get(self._known_name(name))
        if actor is None:
            raise ModelNotLoadedError(name)
        was_waited_for = actor.waiting > 0
        stop = None
        if actor.state not in (BackendState.STOPPED, BackendState.FAILED):
            # Before the core hears of it, which may have others take the place at once.
            stop = actor.begin_stop(
                force=force, grace_seconds=grace_seconds, cause=StopCause.REQUEST
            )
        self._obey(self._core.stop(actor.model.name, time.monotonic()))
        if stop is not None:
            await asyncio.wait((stop,))
            return stop.result()
        if was_waited_for:
            return StopReport(seconds=0.0, freed_bytes=0, cut_calls=0)
        raise ModelNotLoadedError(name)

    def forget(self, name: str) -> None:
        """Forget how the model with exactly this name failed: it is another one now, or there is none any more."""
        actor = self._actors.get(name)
        if actor is not None:
            self._core.forget(name)
            actor.forget()

    async def stop_all(self, *, force: bool, grace_seconds: float) -> list[StopOutcome]:
        """Stop every backend, all at once, and return once no process of theirs is left."""
        names = [
            name
            for name, actor in sorted(self._actors.items())
            if actor.waiting or actor.state not in (BackendState.STOPPED, BackendState.FAILED)
        ]
        stops = (self.stop(name, force=force, grace_seconds=grace_seconds) for name in names)
        outcomes = []
        for name, done in zip(
            names, await asyncio.gather(*stops, return_exceptions=True), strict=True
        ):
            if isinstance(done, StopReport):
                outcomes.append(StopOutcome(name, done))
            elif isinstance(done, LocalplaneError):
                outcomes.append(StopOutcome(name, None, done.message))
            else:
                log.error("a backend could not be stopped", exc_info=done, extra={"model": name})
                outcomes.append(StopOutcome(name, None, "internal error"))
        return outcomes

    async def close(self, *, grace_seconds: float, end_seconds: float) -> None:
        """Take no new calls and stop every backend, all at once.

        Args:
            grace_seconds: How long calls in flight may still run.
            end_seconds: How long a backend may take to end after that, before it is killed.
        """
        self._obey(self._core.close(time.monotonic()))
        closes = [
            actor.close(grace_seconds=grace_seconds, end_seconds=end_seconds)
            for actor in self._actors.values()
        ]
        for outcome in await asyncio.gather(*closes, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("a backend could not be stopped", exc_info=outcome)
        if self._timer is not None:
            self._timer.cancel()

    # What actors tell

    def answers(self, model: str) -> None:
        """See `LifeListener`."""
        self._obey(self._core.answers(model, time.monotonic()))
        actor = self._actors[model]
        backend = actor.backend
        if backend is not None:
            self._run(
                progress.follow(
                    backend,
                    self._core.limits.load_seconds,
                    is_loading=lambda: (
                        actor.backend is backend and actor.state is BackendState.LOADING
                    ),
                    moved=lambda: self._obey(self._core.moved(model, time.monotonic())),
                )
            )

    def ready(self, model: str) -> None:
        """See `LifeListener`."""
        self._obey(self._core.ready(model, time.monotonic()))

    def load_ended(self, model: str, error: LocalplaneError, *, is_failure: bool) -> None:
        """See `LifeListener`."""
        decided = self._core.load_ended(
            model,
            time.monotonic(),
            is_failure=is_failure,
            is_shortage=is_failure and tells_of_shortage(error.message),
        )
        self._obey(decided, load_error=error)

    def died(self, model: str) -> None:
        """See `LifeListener`."""
        self._obey(self._core.died(model, time.monotonic()))

    def gone(self, model: str) -> None:
        """See `LifeListener`."""
        self._obey(self._core.gone(model, time.monotonic()))

    # What the core decides

    def _obey(self, decided: Decisions, load_error: LocalplaneError | None = None) -> None:
        for record in self._core.records():
            self._actors[record.name].waiting = len(record.waiting)
        for one in decided:
            if isinstance(one, Admit):
                self._answer(one.ticket, None)
            elif isinstance(one, Refuse):
                self._answer(one.ticket, self._refusal(one, load_error))
            elif isinstance(one, StartLoad):
                self._loaded_as[one.model] = self._configurations[one.model]
                self._actors[one.model].begin_load(self._configurations[one.model])
            elif isinstance(one, StopBackend):
                self._actors[one.model].begin_stop(force=True, grace_seconds=0.0, cause=one.cause)
            elif isinstance(one, GiveUpLoad):
                self._actors[one.model].give_up_load(one.seconds)
            elif isinstance(one, Cooldown):
                self._actors[one.model].cool_down(one.seconds, one.failures)
        self._arm()

    def _answer(self, ticket: Ticket, error: LocalplaneError | None) -> None:
        waiter = self._waiters.get(ticket)
        if waiter is None:
            if error is not None:
                fields = {"model": ticket.model, "cause": error.message}
                log.warning("a load that nobody waits for was given up", extra=fields)
        elif not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def _refusal(self, one: Refuse, load_error: LocalplaneError | None) -> LocalplaneError:
        snapshot = self._actors[one.ticket.model].snapshot()
        record = self._core.record(one.ticket.model)
        return error_of(one, snapshot.last_error, record.needed, self._core.limits, load_error)

    def _arm(self) -> None:
        """Have the core woken when it wants to be."""
        now = time.monotonic()
        overdue = self._core.overdue(now)
        if overdue:
            self._readiness.block(OVERDUE, f"the load of {', '.join(overdue)} is overdue")
        else:
            self._readiness.unblock(OVERDUE)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake = self._core.next_wake(now)
        if not self._core.is_closed and not math.isinf(wake):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, wake - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._obey(self._core.tick(time.monotonic()))

    def _describe(self, model: ModelConfig) -> None:
        self._configurations[model.name] = model
        if self._core.record(model.name).holds:
            # Its size and its place changed nothing now, and looking for them takes a look at the disk.
            self._core.describe(model.name, is_pinned=model.pinned)
            return
        if self._loaded_as.get(model.name, model) != model:
            # What it took with other settings says little of what it is going to take.
            del self._loaded_as[model.name]
            self._core.forget_devices(model.name)
        self._core.describe(
            model.name,
            needed=needed_bytes(self._catalog.size(model) or 0),
            is_pinned=model.pinned,
            is_elsewhere=self._is_elsewhere(model),
        )

    def _known_name(self, name: str) -> str:
        try:
            return self._catalog.get(name).name
        except ModelNotFoundError:
            # Its configuration may be gone while it is still loaded.
            return name

    def _actor_for(self, model: ModelConfig) -> ModelActor:
        if self._core.is_closed:
            raise DrainingError("the service is being stopped")
        actor = self._actors.get(model.name)
        if actor is None:
            actor = ModelActor(
                model, start=self._start, run=self._run, bus=self._events, listener=self
            )
            self._actors[model.name] = actor
        return actor


def _is_to_be_seen(actor: ModelActor) -> bool:
    return actor.state is not BackendState.STOPPED or actor.waiting > 0
