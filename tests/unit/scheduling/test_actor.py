"""The life of one model's backend, with a backend that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from localplane_server import events
from localplane_server.errors import (
    BackendGoneError,
    BackendNotInstalledError,
    DrainingError,
    LoadFailedError,
    LocalplaneError,
    ModelNotLoadedError,
    NotReadyError,
)
from localplane_server.models.configuration import ModelConfig
from localplane_server.scheduling.actor import ModelActor
from localplane_server.scheduling.causes import StopCause
from localplane_server.scheduling.snapshots import BackendState, StopReport
from localplane_server.scheduling.tasks import DetachedTasks
from unit.scheduling.fake_backends import FakeBackend, FakeStart, settle

MODEL = ModelConfig(name="m", backend="fake")


class Told:
    """What the actor told of its life, in order."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.errors: list[LocalplaneError] = []
        self.failures: list[bool] = []

    def answers(self, model: str) -> None:
        self.turns.append("answers")

    def ready(self, model: str) -> None:
        self.turns.append("ready")

    def load_ended(self, model: str, error: LocalplaneError, *, is_failure: bool) -> None:
        self.turns.append("load_ended")
        self.errors.append(error)
        self.failures.append(is_failure)

    def died(self, model: str) -> None:
        self.turns.append("died")

    def gone(self, model: str) -> None:
        self.turns.append("gone")


class Stage:
    """An actor with everything around it."""

    def __init__(self) -> None:
        self.start = FakeStart()
        self.bus = events.Events()
        self.detached = DetachedTasks()
        self.told = Told()
        self.actor = ModelActor(
            MODEL, start=self.start, run=self.detached, bus=self.bus, listener=self.told
        )
        self.heard: list[Any] = []
        for kind in (events.BackendReady, events.BackendFailed, events.BackendStopped):
            self.bus.listen(kind, self.heard.append)

    @property
    def backend(self) -> FakeBackend:
        return self.start.backends[-1]

    async def load(self) -> None:
        """Load and wait for the outcome."""
        self.actor.begin_load(MODEL)
        await settle()

    async def stop(self, **options: Any) -> StopReport:
        return await self.actor.stop(
            force=options.get("force", False),
            grace_seconds=options.get("grace_seconds", 60.0),
            cause=options.get("cause", StopCause.REQUEST),
        )


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    await stage.detached.close()


class TestLoad:
    async def test_states_on_the_way(self, stage: Stage) -> None:
        """Stopped, starting, loading, ready."""
        stage.start.may_finish.clear()
        seen = [stage.actor.state]
        stage.actor.begin_load(MODEL)
        seen.append(stage.actor.state)
        await settle()
        seen.append(stage.actor.state)
        stage.start.may_finish.set()
        await settle()
        seen.append(stage.actor.state)

        assert [
            BackendState.STOPPED,
            BackendState.STARTING,
            BackendState.LOADING,
            BackendState.READY,
        ] == seen

    async def test_failure_is_told_and_the_next_load_counts_as_a_restart(
        self, stage: Stage
    ) -> None:
        """The listener hears why; a later load that works forgets it."""
        stage.start.error = LoadFailedError("no", model="m")
        await stage.load()
        assert ([stage.start.error], [True]) == (stage.told.errors, stage.told.failures)
        assert (BackendState.FAILED, "no") == (
            stage.actor.state,
            stage.actor.snapshot().last_error,
        )

        stage.start.error = None
        await stage.load()

        snapshot = stage.actor.snapshot()
        assert (BackendState.READY, 1, None) == (
            snapshot.state,
            snapshot.restarts,
            snapshot.last_error,
        )

    async def test_fault_of_ours(self, stage: Stage) -> None:
        """An error that nobody foresaw fails the load; it does not look loaded, and the next load works."""
        stage.start.fault = ValueError("a secret")
        await stage.load()
        assert ["cannot load model m: internal error"] == [one.message for one in stage.told.errors]
        assert "failed" == stage.actor.state.value

        stage.start.fault = None
        await stage.load()

        assert "ready" == stage.actor.state.value

    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (BackendNotInstalledError("x", "m"), BackendState.STOPPED),
            (NotReadyError("the keeper is gone"), BackendState.FAILED),
        ],
    )
    async def test_what_is_wrong_with_the_service_is_no_failure_of_the_model(
        self, stage: Stage, error: LocalplaneError, state: BackendState
    ) -> None:
        """What is not installed was not started; a keeper that is gone says nothing of the model."""
        stage.start.error = error
        await stage.load()

        assert (state, [error], [False]) == (
            stage.actor.state,
            stage.told.errors,
            stage.told.failures,
        )

    async def test_given_up(self, stage: Stage) -> None:
        """A load that is given up leaves nothing, and is one that failed."""
        stage.start.may_finish.clear()
        await stage.load()
        stage.actor.give_up_load(120.0)
        await settle()

        assert (BackendState.FAILED, [True]) == (stage.actor.state, stage.told.failures)
        assert "120 s" in stage.told.errors[0].message
        assert [False] == stage.backend.stops

    async def test_stopped_while_it_is_given_up(self, stage: Stage) -> None:
        """The stop has the last word."""
        stage.start.may_finish.clear()
        await stage.load()
        stage.backend.may_stop.clear()
        stage.actor.give_up_load(120.0)
        await settle()
        stopping = asyncio.create_task(stage.stop())
        await settle()
        stage.backend.may_stop.set()
        await stopping

        assert BackendState.STOPPED is stage.actor.state
        assert ["answers", "gone"] == stage.told.turns


class TestLease:
    async def test_counts_calls(self, stage: Stage) -> None:
        """Busy until the last call has ended."""
        await stage.load()
        async with stage.actor.lease() as client:
            assert stage.backend.client is client
            assert (BackendState.BUSY, 1) == (stage.actor.state, stage.actor.snapshot().in_flight)

        assert BackendState.READY is stage.actor.state
        assert stage.actor.snapshot().last_used is not None

    async def test_not_loaded(self, stage: Stage) -> None:
        """There is nothing to lend."""
        with pytest.raises(ModelNotLoadedError):
            async with stage.actor.lease():
                pass

    async def test_backend_dies_during_a_call(self, stage: Stage) -> None:
        """The call is told how the backend ended and what it wrote last."""
        await stage.load()
        with pytest.raises(BackendGoneError, match=r"signal 9.*last words") as caught:  # noqa: PT012
            async with stage.actor.lease():
                stage.backend.exited.set_result("signal 9")
                raise BackendGoneError("connection reset", model="m")

        assert "signal 9" == caught.value.metadata["exit"]

    async def test_backend_dies_between_calls(self, stage: Stage) -> None:
        """It is seen at once, what it left is swept, and the next load starts another."""
        await stage.load()
        dead = stage.backend
        dead.exited.set_result("exit code 1")
        await settle()
        assert (BackendState.FAILED, [False]) == (stage.actor.state, dead.stops)
        assert "last words" in (stage.actor.snapshot().last_error or "")

        await stage.load()

        assert BackendState.READY is stage.actor.state
        assert dead is not stage.backend


class TestStop:
    async def test_report(self, stage: Stage) -> None:
        """What came back and that nothing was cut."""
        await stage.load()
        report = await stage.stop()

        assert (1000, 0) == (report.freed_bytes, report.cut_calls)
        assert (BackendState.STOPPED, [True]) == (stage.actor.state, stage.backend.stops)

    async def test_nothing_to_stop(self, stage: Stage) -> None:
        """A stopped model, and one that failed, cannot be stopped."""
        with pytest.raises(ModelNotLoadedError):
            await stage.stop()

    async def test_waits_for_calls_and_admits_no_new_ones(self, stage: Stage) -> None:
        """Admission closes first; the call in flight ends by itself."""
        await stage.load()
        async with stage.actor.lease():
            stopping = asyncio.create_task(stage.stop())
            await settle()
            assert (BackendState.STOPPING, []) == (stage.actor.state, stage.backend.stops)
            with pytest.raises(DrainingError):
                async with stage.actor.lease():
                    pass

        assert 0 == (await stopping).cut_calls

    @pytest.mark.parametrize("options", [{"force": True}, {"grace_seconds": 0.0}])
    async def test_cuts(self, stage: Stage, options: dict[str, Any]) -> None:
        """With force, or once the grace period is over, the call in flight is cut."""
        await stage.load()
        lease = stage.actor.lease()
        await lease.__aenter__()
        report = await stage.stop(**options)
        await lease.__aexit__(None, None, None)

        assert 1 == report.cut_calls

    async def test_force_hurries_a_stop_under_way(self, stage: Stage) -> None:
        """The second caller's force counts for the first, and both get the same report."""
        await stage.load()
        lease = stage.actor.lease()
        await lease.__aenter__()
        patient = asyncio.create_task(stage.stop())
        await settle()
        forced = await stage.stop(force=True)
        await lease.__aexit__(None, None, None)

        assert forced == await patient
        assert [True] == stage.backend.stops

    async def test_shorter_grace_counts(self, stage: Stage) -> None:
        """A later stop with less patience shortens the one under way."""
        await stage.load()
        lease = stage.actor.lease()
        await lease.__aenter__()
        patient = asyncio.create_task(stage.stop(grace_seconds=3600.0))
        await settle()
        await stage.stop(grace_seconds=0.01)
        await lease.__aexit__(None, None, None)

        assert 1 == (await patient).cut_calls

    @pytest.mark.parametrize(
        ("options", "least", "most"),
        [
            ({"grace_seconds": 20.0}, 19.0, 20.0),
            ({"grace_seconds": 0.0}, 1.0, 1.0),
            ({"force": True}, 1.0, 1.0),
        ],
    )
    async def test_ends_within_the_grace_period(
        self, stage: Stage, options: dict[str, Any], least: float, most: float
    ) -> None:
        """Who asks for a stop has the backend gone by the end of the grace period, or a second later."""
        await stage.load()
        await stage.stop(**options)

        [limit] = stage.backend.limits
        assert limit is not None
        assert least <= limit <= most

    async def test_takes_its_time_for_others(self, stage: Stage) -> None:
        """What has to go for another model is not killed for taking as long as any backend may."""
        await stage.load()
        await stage.stop(force=True, cause=StopCause.CAPACITY)

        assert [None] == stage.backend.limits

    @pytest.mark.parametrize("cause", [StopCause.REQUEST, StopCause.CAPACITY])
    async def test_force_hurries_an_end_under_way(self, stage: Stage, cause: StopCause) -> None:
        """Force counts for a backend that is already ending, and takes its time over it."""
        await stage.load()
        stage.backend.may_stop.clear()
        patient = asyncio.create_task(stage.stop(grace_seconds=3600.0, cause=cause))
        await settle()
        await stage.stop(force=True)

        assert 1.0 == stage.backend.limits[-1]
        assert 0 == (await patient).cut_calls

    async def test_caller_that_goes_away(self, stage: Stage) -> None:
        """The stop goes on without whoever asked for it."""
        await stage.load()
        stage.backend.may_stop.clear()
        stopping = asyncio.create_task(stage.stop())
        await settle()
        stopping.cancel()
        await settle()
        stage.backend.may_stop.set()
        await settle()

        assert BackendState.STOPPED is stage.actor.state

    async def test_during_a_load(self, stage: Stage) -> None:
        """The load ends, and nothing is left."""
        stage.start.may_finish.clear()
        await stage.load()
        await stage.stop()

        assert ["answers", "gone"] == stage.told.turns
        assert (BackendState.STOPPED, [False]) == (stage.actor.state, stage.backend.stops)

    async def test_cause_is_told_to_the_calls_that_are_cut(self, stage: Stage) -> None:
        """A call learns that its backend was stopped for being busy too long."""
        await stage.load()
        with pytest.raises(BackendGoneError, match="busy limit"):  # noqa: PT012
            async with stage.actor.lease():
                await stage.stop(force=True, cause=StopCause.BUSY)
                raise BackendGoneError("connection reset", model="m")

        stopped = stage.heard[-1]
        assert ("busy", 1) == (stopped.cause, stopped.cut_calls)

    async def test_events(self, stage: Stage) -> None:
        """Each turn of a life is told once."""
        await stage.load()
        await stage.stop()

        assert ["BackendReady", "BackendStopped"] == [type(e).__name__ for e in stage.heard]

    async def test_events_of_a_load(self, stage: Stage) -> None:
        """A load that fails or is stopped is told apart from a backend that ends later."""
        stage.start.error = LoadFailedError("no", model="m")
        await stage.load()
        stage.start.error = None
        await stage.load()
        stage.backend.exited.set_result("exit code 1")
        await settle()
        stage.start.may_finish.clear()
        stage.actor.begin_load(MODEL)
        await settle()
        await stage.stop()
        stage.start.may_finish.set()
        await stage.load()
        await stage.stop()

        assert [
            ("BackendFailed", True),
            ("BackendReady", None),
            ("BackendFailed", False),
            ("BackendStopped", True),
            ("BackendReady", None),
            ("BackendStopped", False),
        ] == [(type(e).__name__, getattr(e, "was_loading", None)) for e in stage.heard]
