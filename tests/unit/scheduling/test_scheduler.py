"""What the core decides is carried out, whoever comes and goes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from localplane_server import events
from localplane_server.deadlines import set_deadline
from localplane_server.errors import (
    AutoloadDisabledError,
    BackendGoneError,
    CapacityExhaustedError,
    DrainingError,
    InvalidArgumentError,
    LoadCooldownError,
    LoadFailedError,
    ModelNotLoadedError,
    NotReadyError,
)
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import ModelConfig
from localplane_server.readiness import Readiness
from localplane_server.scheduling.limits import Limits
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.snapshots import BackendState
from localplane_server.scheduling.tasks import DetachedTasks
from localplane_server.supervision.devices import DeviceMemory
from unit.scheduling.fake_backends import FakeBackend, FakeStart, settle


class Stage:
    """A scheduler with everything around it, and two models."""

    def __init__(
        self,
        folder: Path,
        *,
        autoload: bool = True,
        is_elsewhere: Callable[[ModelConfig], bool] = lambda _: False,
        device_budget: Callable[[int], float] = lambda _: math.inf,
        **limits: Any,
    ) -> None:
        for name in "ab":
            (folder / f"{name}.yaml").write_text(f"name: {name}\nbackend: fake\n")
        self.folder = folder
        self.catalog = ModelCatalog(folder)
        self.start = FakeStart()
        self.detached = DetachedTasks()
        self.readiness = Readiness()
        self.heard: list[Any] = []
        bus = events.Events()
        for kind in (events.WaitEnded, events.BackendCooling, events.BackendStopped):
            bus.listen(kind, self.heard.append)
        self.scheduler = Scheduler(
            self.catalog,
            start=self.start,
            run=self.detached,
            bus=bus,
            readiness=self.readiness,
            limits=Limits(**{"residency_seconds": 0.0, **limits}),
            is_elsewhere=is_elsewhere,
            device_budget=device_budget,
            autoload=autoload,
        )

    def begin(self, name: str, error: Exception | None = None) -> tuple[Call, asyncio.Task[None]]:
        """Begin a call, which goes on until it is let go."""
        call = Call()
        return call, asyncio.create_task(self.call(name, call, error))

    async def call(self, name: str, call: Call, error: Exception | None = None) -> None:
        async with self.scheduler.use(self.catalog.get(name)):
            call.is_admitted = True
            await call.may_end.wait()
            if error is not None:
                raise error

    async def use(self, name: str, error: Exception | None = None) -> None:
        """Call a model, and be done at once."""
        call = Call()
        call.may_end.set()
        await self.call(name, call, error)

    def states(self) -> dict[str, str]:
        return {one.model: one.state.value for one in self.scheduler.snapshots()}

    def backend(self, number: int = -1) -> FakeBackend:
        return self.start.backends[number]


class Call:
    def __init__(self) -> None:
        self.is_admitted = False
        self.may_end = asyncio.Event()


@pytest.fixture
async def make_stage(tmp_path: Path) -> AsyncIterator[Any]:
    stages = []

    def make(**options: Any) -> Stage:
        stages.append(Stage(tmp_path, **options))
        return stages[-1]

    yield make
    for stage in stages:
        await stage.scheduler.close(grace_seconds=0.0, end_seconds=0.0)
        await stage.detached.close()


async def test_load_outlives_its_caller(make_stage: Any) -> None:
    """Who leaves is forgotten, those who wait for the same load get it, and nothing is in flight in the end."""
    stage = make_stage()
    stage.start.may_finish.clear()
    (_, leaver), (stayer, staying) = stage.begin("a"), stage.begin("a")
    await settle()
    leaver.cancel()
    await settle()
    assert 1 == stage.scheduler.snapshots()[0].waiting
    stage.start.may_finish.set()
    await settle()
    assert stayer.is_admitted
    stayer.may_end.set()
    await staying

    (snapshot,) = stage.scheduler.snapshots()
    assert (BackendState.READY, 0, 0) == (snapshot.state, snapshot.in_flight, snapshot.waiting)
    assert ["left", "admitted"] == [one.outcome for one in stage.heard]


async def test_leaves_at_the_moment_of_admission(make_stage: Any) -> None:
    """A caller who was admitted and cancelled in one step holds nothing: the place can be had."""
    stage = make_stage(most_backends=1)
    stage.start.may_finish.clear()
    _, leaving = stage.begin("a")
    await settle()
    stage.scheduler.ready("a")
    leaving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaving

    assert 0 == next(iter(stage.scheduler._core.records())).in_flight


async def test_swap(make_stage: Any) -> None:
    """The one that nobody uses is stopped, and when it is gone the other is loaded and lent."""
    stage = make_stage(most_backends=1)
    await stage.use("a")
    stage.backend().may_stop.clear()
    other, calling = stage.begin("b")
    await settle()
    assert ({"a": "stopping", "b": "stopped"}, 1) == (stage.states(), len(stage.start.backends))
    stage.backend().may_stop.set()
    await settle()
    assert {"b": "busy"} == stage.states()
    other.may_end.set()
    await calling

    (stopped,) = [one for one in stage.heard if isinstance(one, events.BackendStopped)]
    assert ("a", "capacity") == (stopped.model, stopped.cause)


async def test_call_of_a_model_on_its_way_out(make_stage: Any) -> None:
    """It waits for the end and has the model loaded again, from its configuration of today."""
    stage = make_stage(most_backends=1)
    await stage.use("a")
    stage.backend().may_stop.clear()
    await stage.scheduler.load("b", wait=False)
    await settle()
    _, back = stage.begin("a")
    await settle()
    await stage.scheduler.stop("b", force=False, grace_seconds=0.0)
    (stage.folder / "a.yaml").write_text("name: a\nbackend: fake\nthreads: 3\n")
    stage.catalog.reload()
    _, again = stage.begin("a")
    await settle()
    stage.backend().may_stop.set()
    await settle()

    assert ["a", "a"] == [one.name for one in stage.start.models]
    assert 3 == stage.start.models[-1].threads
    for task in (back, again):
        task.cancel()


async def test_no_place_within_the_calls_own_time(make_stage: Any) -> None:
    """A call with a deadline is told shortly before it."""
    stage = make_stage(most_backends=1)
    _, using = stage.begin("a")
    await settle()
    set_deadline(0.05)
    try:
        with pytest.raises(CapacityExhaustedError) as caught:
            await stage.use("b")
    finally:
        set_deadline(None)

    assert caught.value.retry_after_seconds > 0
    using.cancel()


async def test_explicit_stop_during_a_load(make_stage: Any) -> None:
    """Who waited for it is told that it is being stopped."""
    stage = make_stage()
    stage.start.may_finish.clear()
    _, calling = stage.begin("a")
    await settle()
    await stage.scheduler.stop("a", force=False, grace_seconds=0.0)

    with pytest.raises(DrainingError):
        await calling
    assert {} == stage.states()


async def test_load_during_a_stop(make_stage: Any) -> None:
    """An administrator who asks for a model while it stops gets it again; a call is refused."""
    stage = make_stage()
    await stage.use("a")
    stage.backend().may_stop.clear()
    stopping = asyncio.create_task(stage.scheduler.stop("a", force=False, grace_seconds=0.0))
    await settle()
    with pytest.raises(DrainingError):
        await stage.use("a")
    loading = asyncio.create_task(stage.scheduler.load("a"))
    await settle()
    stage.backend().may_stop.set()
    await asyncio.gather(stopping, loading)

    assert ({"a": "ready"}, 2) == (stage.states(), len(stage.start.backends))


async def test_stop_of_what_is_not_there(make_stage: Any) -> None:
    """Never asked for, stopped, or failed: there is nothing to stop."""
    stage = make_stage()
    for _ in range(2):
        with pytest.raises(ModelNotLoadedError):
            await stage.scheduler.stop("a", force=False, grace_seconds=0.0)
        stage.start.error = LoadFailedError("no", model="a")
        with pytest.raises(LoadFailedError):
            await stage.scheduler.load("a")


async def test_death_during_a_call(make_stage: Any) -> None:
    """The call is told, what is left is ended, and only then the next call loads it anew."""
    stage = make_stage()
    call, calling = stage.begin("a", BackendGoneError("connection reset", model="a"))
    await settle()
    dead = stage.backend()
    dead.may_stop.clear()
    dead.exited.set_result("signal 9")
    call.may_end.set()
    with pytest.raises(BackendGoneError, match="signal 9"):
        await calling
    _, again = stage.begin("a")
    await settle()
    assert ({"a": "failed"}, 1) == (stage.states(), len(stage.start.backends))
    dead.may_stop.set()
    await settle()

    assert {"a": "busy"} == stage.states()
    again.cancel()


async def test_cooldown(make_stage: Any) -> None:
    """Two failures in a row have the third call refused, with the cause and a time, and without a start."""
    stage = make_stage()
    stage.start.error = LoadFailedError("no such weights", model="a")
    for _ in range(2):
        with pytest.raises(LoadFailedError):
            await stage.use("a")
    with pytest.raises(LoadCooldownError, match="no such weights") as caught:
        await stage.use("a")

    assert 0 < caught.value.retry_after_seconds <= 1
    assert 2 == len(stage.start.backends)
    (cooling,) = [one for one in stage.heard if isinstance(one, events.BackendCooling)]
    assert (1.0, 2) == (cooling.seconds, cooling.failures)
    assert stage.scheduler.snapshots()[0].cooldown_until is not None


async def test_forgotten(make_stage: Any) -> None:
    """A model that is another one now is loaded at once, however the one before failed, and has failed nowhere."""
    stage = make_stage()
    stage.start.error = LoadFailedError("no such weights", model="a")
    for _ in range(2):
        with pytest.raises(LoadFailedError):
            await stage.use("a")
    stage.start.error = None

    stage.scheduler.forget("a")

    assert [] == stage.scheduler.snapshots()
    await stage.use("a")
    assert BackendState.READY is stage.scheduler.state("a")
    stage.scheduler.forget("a")
    assert BackendState.READY is stage.scheduler.state("a")
    stage.scheduler.forget("never asked for")


async def test_an_answer_is_a_sign_of_life(make_stage: Any) -> None:
    """A call that the backend refused ended well: its failures before are forgotten."""
    stage = make_stage()
    stage.start.error = LoadFailedError("no", model="a")
    with pytest.raises(LoadFailedError):
        await stage.use("a")
    stage.start.error = None
    with pytest.raises(InvalidArgumentError):
        await stage.use("a", InvalidArgumentError("too long"))

    assert 0 == next(iter(stage.scheduler._core.records())).breaker.failures


async def test_idle_limit(make_stage: Any) -> None:
    """The clock wakes the core, which has the backend stopped."""
    stage = make_stage(idle_seconds=0.02)
    await stage.use("a")
    async with asyncio.timeout(10):
        while stage.states():
            await asyncio.sleep(0.005)

    assert ["idle"] == [one.cause for one in stage.heard if isinstance(one, events.BackendStopped)]


async def test_backends_elsewhere_take_no_place(make_stage: Any) -> None:
    """What others run takes nothing of what is limited here."""
    stage = make_stage(
        most_backends=1, memory_bytes=2**30, is_elsewhere=lambda one: one.name == "a"
    )
    await stage.use("a")
    await stage.use("b")
    stage.scheduler.note_memory("a", 2**40)

    assert {"a": "ready", "b": "ready"} == stage.states()


async def test_memory_of_devices(make_stage: Any) -> None:
    """What backends take on a device together counts against a share of what it has."""
    stage = make_stage(device_budget=lambda total: total / 2)
    for name in "ab":
        await stage.use(name)
        used = DeviceMemory(name="gpu", address="0", used_bytes=30, total_bytes=100)
        stage.scheduler.note_memory(name, 1, [used])
    await settle()

    assert {"b": "ready"} == stage.states()


@pytest.mark.parametrize(
    ("settings", "states"), [("", {"a": "ready"}), ("threads: 7\n", {"a": "ready", "b": "ready"})]
)
async def test_memory_of_devices_with_other_settings(
    make_stage: Any, settings: str, states: dict[str, str]
) -> None:
    """What a model took counts until its settings are others, also where they became so while it was loaded."""
    stage = make_stage(device_budget=lambda total: total)
    for name, bytes_ in (("a", 90), ("b", 50)):
        await stage.use(name)
        used = DeviceMemory(name="gpu", address="0", used_bytes=bytes_, total_bytes=100)
        stage.scheduler.note_memory(name, 1, [used])
        if name == "a":
            (stage.folder / "a.yaml").write_text(f"name: a\nbackend: fake\n{settings}")
            await stage.use("a")
            await stage.scheduler.stop("a", force=False, grace_seconds=1.0)
    await stage.use("a")

    assert states == stage.states()


async def test_load_that_fails_for_want_of_memory(make_stage: Any) -> None:
    """It is told by the words of the failure, and others on devices go before it is tried again."""
    stage = make_stage(device_budget=lambda total: total)
    await stage.use("a")
    used = DeviceMemory(name="gpu", address="0", used_bytes=30, total_bytes=100)
    stage.scheduler.note_memory("a", 1, [used])
    for words in ("no such file", "CUDA error: out of memory"):
        stage.start.error = LoadFailedError(f"cannot load: {words}", model="b")
        with pytest.raises(LoadFailedError, match=words):
            await stage.scheduler.load("b")
        assert {"a": "ready", "b": "failed"} == stage.states()
    stage.start.error = None
    await stage.scheduler.load("b")

    assert {"b": "ready"} == stage.states()


async def test_devices_that_tell_little(make_stage: Any) -> None:
    """What is not told is not counted."""
    stage = make_stage(device_budget=lambda total: total / 2)
    for name in "ab":
        await stage.use(name)
        for used, total in ((None, 100), (60, None)):
            device = f"gpu of {total}"
            told = DeviceMemory(name=device, address=None, used_bytes=used, total_bytes=total)
            stage.scheduler.note_memory(name, 1, [told])
    await settle()

    assert {"a": "ready", "b": "ready"} == stage.states()


async def test_overdue_load(make_stage: Any) -> None:
    """A load that was given up and does not end makes the service unready, with the cause, until it ends."""
    stage = make_stage(load_seconds=0.02, overdue_seconds=0.02)
    stage.start.may_finish.clear()
    _, calling = stage.begin("a")
    await settle()
    stage.backend().may_stop.clear()
    async with asyncio.timeout(10):
        while stage.readiness.is_ready:
            await asyncio.sleep(0.005)
    with pytest.raises(NotReadyError, match="the load of a is overdue"):
        stage.readiness.check()
    stage.backend().may_stop.set()

    with pytest.raises(LoadFailedError, match=r"0\.02 s"):
        await calling
    assert stage.readiness.is_ready


async def test_without_autoload(make_stage: Any) -> None:
    """Calls do not load; a load does."""
    stage = make_stage(autoload=False)
    with pytest.raises(AutoloadDisabledError):
        await stage.use("a")
    await stage.scheduler.load("a")

    await stage.use("a")


async def test_preload(make_stage: Any, caplog: pytest.LogCaptureFixture) -> None:
    """In order, as far as there is space; what cannot be loaded is logged and holds up nothing."""
    stage = make_stage(most_backends=1)
    with caplog.at_level(logging.ERROR):
        await stage.scheduler.preload(["nobody", "a", "b"])

    assert {"a": "ready"} == stage.states()
    assert ["nobody", "b"] == [record.__dict__["model"] for record in caplog.records]


async def test_load_that_nobody_waits_for(
    make_stage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What becomes of it is in the log."""
    stage = make_stage(most_backends=1, queue_seconds=0.02)
    _, using = stage.begin("a")
    await settle()
    await stage.scheduler.load("b", wait=False)
    async with asyncio.timeout(10):
        while "b" in stage.states():
            await asyncio.sleep(0.005)

    assert any("nobody waits for" in record.message for record in caplog.records)
    using.cancel()


async def test_stop_all(make_stage: Any) -> None:
    """One that cannot be stopped holds up no other, and is told of."""
    stage = make_stage()
    await asyncio.gather(stage.use("a"), stage.use("b"))
    first = stage.backend(0)

    async def broken(**_: Any) -> int:
        raise OSError("a secret")

    first.stop = broken
    outcomes = await stage.scheduler.stop_all(force=True, grace_seconds=0.0)

    assert [("a", "internal error"), ("b", None)] == [(one.model, one.error) for one in outcomes]
    assert [None, 1000] == [one.report and one.report.freed_bytes for one in outcomes]
    assert {} == stage.states()


async def test_close(make_stage: Any) -> None:
    """Who waits and who comes is refused, and everything is stopped."""
    stage = make_stage(most_backends=1)
    await stage.use("a")
    stage.backend().may_stop.clear()
    _, waiting = stage.begin("b")
    await settle()
    closing = asyncio.create_task(stage.scheduler.close(grace_seconds=0.0, end_seconds=0.0))
    await settle()
    with pytest.raises(DrainingError):
        await waiting
    with pytest.raises(DrainingError):
        await stage.use("b")
    stage.backend().may_stop.set()
    await closing

    assert ({}, 1) == (stage.states(), len(stage.start.backends))
